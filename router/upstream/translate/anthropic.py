"""Translates chats into Anthropic's Messages and back, with corrections to litellm.

`transport` chooses this class by the target's kind; `translation` defines its interface. It
changes JSON only. It adds the name of every lost part to `dropped`. It raises Untranslatable
for a necessary part without a counterpart.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from harness.providers.target import ANTHROPIC_VERSION
from router.conversation.field_forms import fit_limit, fit_sampling, fit_thinking
from router.frame.body import iter_objects
from router.protocols.event_stream import SsePayloads
from router.protocols.messages.dialect import read_message_tokens
from router.upstream.translate.chat_answer import (
    ChunkMaker,
    chat_message,
    completion,
)
from router.upstream.translate.request_screening import (
    Json,
    ScreenedRequest,
    screen_request,
)
from router.upstream.translate.translation import (
    NEAREST,
    REHEARSAL,
    ErrorInStream,
    PayloadSource,
    TranslatedCall,
    free_forced_tool,
    map_request,
    no_counterpart,
    settle_thinking,
)

# Betas that litellm adds, and that the body does not need: `output_config.format` replaced the
# first, and a request has no files of Anthropic's storage.
_UNNEEDED_BETAS: Final = frozenset(
    {
        "structured-outputs-2025-11-13",
        "code-execution-2025-05-22",
        "files-api-2025-04-14",
    }
)


class AnthropicTranslation:
    """Translates for Anthropic. library: litellm; module: one of its modules, by name."""

    def __init__(self, library: Any, module: Callable[[str], Any]) -> None:
        chat = module("llms.anthropic.chat.transformation")
        self._library = library
        self._config = library.AnthropicConfig()
        self._iterator = module("llms.anthropic.chat.handler").ModelResponseIterator
        self._names = chat.ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY

    def ask(self, request: ScreenedRequest, *, stream: bool) -> TranslatedCall:
        """Translates a request. Raises Untranslatable.

        Corrects litellm's translation: names the hints that litellm lost, fits thinking to
        the other fields, and writes tool schemas and structured outputs in the current form.
        """
        dropped = request.dropped
        self._fit_effort(request)
        dropped.update(dict.fromkeys(free_forced_tool(request)))
        params = map_request(self._config, request, "anthropic")
        for hint in (
            "temperature",
            "top_p",
            "response_format",
            "reasoning_effort",
        ):
            if request.params.get(hint) is not None and not _is_kept(hint, params):
                dropped[hint] = None
        own_budget = "thinking" in request.params
        dropped.update(
            dict.fromkeys(settle_thinking(params, request.messages, own_budget=own_budget))
        )
        json_mode = bool(params.pop("json_mode", False))
        names: Json = {}
        try:
            headers = self._config.validate_environment(
                headers={},
                model=request.model,
                messages=request.messages,
                optional_params=params,
                litellm_params=names,
                api_key="-",
                api_base=None,
            )
            body = self._config.transform_request(
                request.model, request.messages, params, names, headers
            )
        except Exception:  # noqa: BLE001 - litellm has no specific error
            raise no_counterpart("anthropic", "messages") from None
        text_format = body.pop("output_format", None)
        if text_format is not None:
            body["output_config"] = {
                **body.get("output_config", {}),
                "format": text_format,
            }
        for tool in body.get("tools") or ():
            if "input_schema" in tool and tool.get("name") in request.schemas:
                tool["input_schema"] = request.schemas[tool["name"]]
        dropped.update(dict.fromkeys(fit_limit(body, request.can)))
        if fit_thinking(body, request.can, body.get("max_tokens")) and "thinking" not in body:
            dropped["reasoning_effort"] = None
        dropped.update(dict.fromkeys(fit_sampling(body, request.can)))
        if stream:
            body["stream"] = True
        notes = {"json": json_mode, "names": names.get(self._names) or {}}
        return TranslatedCall(
            "/messages", body, _version_headers(headers), tuple(dropped), notes
        )

    def _fit_effort(self, request: ScreenedRequest) -> None:
        """Replaces an effort that the model lacks, because litellm would refuse it later."""
        effort = str(request.params.get("reasoning_effort"))
        if effort not in NEAREST:
            return
        lacks_effort = self._config._validate_effort_for_model  # noqa: SLF001 - no public one
        if lacks_effort(request.model, effort, "anthropic"):
            request.params["reasoning_effort"] = NEAREST[effort]
            request.dropped["reasoning_effort"] = None

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer into a chat completion."""
        parsed = self._config.transform_parsed_response(
            completion_response=answer,
            raw_response=SimpleNamespace(headers={}, status_code=200),
            model_response=self._library.ModelResponse(),
            json_mode=ask.notes["json"],
            tool_name_reverse_map=ask.notes["names"],
        )
        answer_id = str(answer.get("id") or "")
        model = str(answer.get("model") or "")
        reason = answer.get("stop_reason")
        return completion(
            parsed.model_dump(),
            answer_id=answer_id,
            model=model,
            reason=reason,
            tier=_read_tier(answer.get("usage")),
        )

    def chunks(self, ask: TranslatedCall) -> "AnthropicChunks":
        """Returns the translator of one stream.

        Args:
            ask: the call that the stream answers.
        """
        iterator = self._iterator(
            None,
            sync_stream=True,
            json_mode=ask.notes["json"],
            tool_name_reverse_map=ask.notes["names"],
        )
        return AnthropicChunks(iterator)

    def rehearse(self) -> None:
        """Translates a sample both ways, because litellm builds its classes on first use."""
        request = screen_request(copy.deepcopy(REHEARSAL), "anthropic")
        ask = self.ask(request, stream=True)
        usage = {"input_tokens": 1, "output_tokens": 1}
        content: list[Json] = [
            {
                "type": "thinking",
                "thinking": "-",
                "signature": "-",
            }
        ]
        content.append(
            {
                "type": "tool_use",
                "id": "1",
                "name": "f",
                "input": {},
            }
        )
        message = {
            "id": "-",
            "model": "-",
            "content": content,
            "usage": usage,
        }
        self.answer(ask, {**message, "stop_reason": "tool_use"})
        chunks = self.chunks(ask)
        chunks.feed({"type": "message_start", "message": {**message, "content": []}})
        chunks.feed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})


def _is_kept(hint: str, params: Json) -> bool:
    """Returns whether litellm's mapping kept a hint."""
    match hint:
        case "response_format":
            return bool(params.get("json_mode"))
        case "reasoning_effort":
            return "thinking" in params or "output_config" in params
        case _:
            return hint in params


def _read_tier(usage: object) -> object:
    """Returns the service tier that a message's usage names; empty without one."""
    tokens = read_message_tokens(usage)
    return tokens.tier if tokens else ""


def _version_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the version headers, without betas that the body does not need."""
    versions = {"anthropic-version": headers.get("anthropic-version") or ANTHROPIC_VERSION}
    betas = [part.strip() for part in headers.get("anthropic-beta", "").split(",")]
    kept_betas = [beta for beta in betas if beta and beta not in _UNNEEDED_BETAS]
    return {**versions, "anthropic-beta": ",".join(kept_betas)} if kept_betas else versions


class AnthropicChunks:
    """Translates a stream's events, one block at a time.

    Sends thinking as text first. At its end, sends it again, complete and signed.
    """

    def __init__(self, iterator: Any) -> None:
        self.finished = False
        self.payloads: PayloadSource = SsePayloads()
        self._parse = iterator.chunk_parser
        self._maker = ChunkMaker()
        self._usage: object = None
        self._thinking_block: Json | None = None
        self._has_stopped = False
        self._open_index: object = None  # the index of the current block
        self._is_hosted_block = False  # the current block is a call that the provider answers
        self._waiting_events: list[Json] = []  # events of later blocks

    @property
    def ended(self) -> bool:
        return self._has_stopped

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates one event into chunks. Raises ErrorInStream for an error event."""
        return [
            chunk
            for piece in self._order_events(event)
            for chunk in self._translate_event(piece)
        ]

    def _order_events(self, event: Json) -> list[Json]:
        """Returns the events that are due. Other blocks wait for the current block's end."""
        kind = str(event.get("type"))
        index = event.get("index")
        if kind == "message_start":
            return _split_content(event)
        if kind in _FINAL_EVENTS:
            waiting_events = self._waiting_events
            self._waiting_events = []
            return [*waiting_events, event]
        if not kind.startswith("content_block_"):
            return [event]
        if self._open_index is None:
            self._open_index = index
        if index != self._open_index:
            self._waiting_events.append(event)
            return []
        if kind != "content_block_stop":
            return _split_input(event)
        waiting_events = self._waiting_events
        self._waiting_events = []
        self._open_index = None
        return [
            event,
            *(
                piece
                for waiting_event in waiting_events
                for piece in self._order_events(waiting_event)
            ),
        ]

    def _translate_event(self, event: Json) -> Sequence[Json]:
        kind = event.get("type")
        if kind == "error":
            raise ErrorInStream(dict(event.get("error") or {}))
        if kind == "message_stop":
            self.finished = True
            return [self._maker.usage(self._usage)]
        if kind == "message_start":
            message = {**_EMPTY_HEAD, **event["message"]}
            event = {**event, "message": message}
            self._maker.id = str(message["id"])
            self._maker.model = str(message["model"])
            self._maker.tier = _read_tier(message["usage"])
        if kind not in _PARSED_EVENTS or self._is_hosted_event(event):
            return ()
        parsed = self._parse(event)
        self._maker.created = self._maker.created or int(parsed.created)
        if parsed.usage is not None:
            self._usage = parsed.usage.model_dump()
        choice = parsed.choices[0].model_dump()
        chunks = []
        delta = self._build_delta(choice["delta"])
        if kind == "content_block_stop" and self._thinking_block is not None:
            delta["thinking_blocks"] = [self._thinking_block]
            self._thinking_block = None
        if delta or kind == "message_start":
            chunks += self._maker.deltas(delta)
        if kind == "message_delta" and event["delta"].get("stop_reason"):
            self._has_stopped = True
            chunks.append(self._maker.finish(event["delta"]["stop_reason"]))
        return chunks

    def _is_hosted_event(self, event: Json) -> bool:
        """Returns whether an event belongs to a call of a hosted tool.

        The provider answers the call itself. The client could not answer it.
        """
        block = event.get("content_block")
        if isinstance(block, dict):
            self._is_hosted_block = block.get("type") in _HOSTED_CALLS
        is_hosted = self._is_hosted_block
        if event.get("type") == "content_block_stop":
            self._is_hosted_block = False
        return is_hosted and str(event.get("type")).startswith("content_block_")

    def _build_delta(self, message: Json) -> Json:
        delta = chat_message(message, is_streamed=True)
        for block in delta.pop("thinking_blocks", ()):
            if block.get("type") == "redacted_thinking":
                delta["thinking_blocks"] = [block]
                continue
            thinking_block = self._thinking_block or {
                "type": "thinking",
                "thinking": "",
                "signature": "",
            }
            thinking_block["thinking"] += block.get("thinking") or ""
            thinking_block["signature"] += block.get("signature") or ""
            self._thinking_block = thinking_block
        return delta

    def end(self) -> Sequence[Json]:
        return ()


# Members of `message_start` that Anthropic-compatible servers omit.
_EMPTY_HEAD: Final[Json] = {
    "id": "",
    "model": "",
    "usage": {"input_tokens": 0, "output_tokens": 0},
}
_FINAL_EVENTS: Final = frozenset({"message_delta", "message_stop"})
_HOSTED_CALLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})


def _split_content(event: Json) -> list[Json]:
    """Moves the blocks and the stop reason of a first event into later events.

    Anthropic sends them in later events for most answers.
    """
    message = event.get("message")
    blocks = message.get("content") if isinstance(message, dict) else None
    if not blocks or not isinstance(message, dict):
        return [event]
    reason = message.get("stop_reason")
    events: list[Json] = [{**event, "message": {**message, "content": [], "stop_reason": None}}]
    for number, block in enumerate(iter_objects(blocks)):
        index_member = {"index": number}
        text = block.get("text") if block.get("type") == "text" else None
        opening_block = {**block, "text": ""} if text else dict(block)
        events += _split_input(
            {"type": "content_block_start", **index_member, "content_block": opening_block}
        )
        if text:
            delta = {"type": "text_delta", "text": text}
            events.append({"type": "content_block_delta", **index_member, "delta": delta})
        events.append({"type": "content_block_stop", **index_member})
    if reason:
        usage = message.get("usage") or _EMPTY_HEAD["usage"]
        delta = {"stop_reason": reason}
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
    return events


def _split_input(event: Json) -> list[Json]:
    """Moves a call's complete input into a following event, as Anthropic sends it."""
    block = event.get("content_block")
    call_input = block.get("input") if isinstance(block, dict) else None
    if not call_input or not isinstance(block, dict) or block.get("type") != "tool_use":
        return [event]
    delta = {"type": "input_json_delta", "partial_json": json.dumps(call_input)}
    input_event = {
        "type": "content_block_delta",
        "index": event.get("index"),
        "delta": delta,
    }
    return [{**event, "content_block": {**block, "input": {}}}, input_event]


_PARSED_EVENTS: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
    }
)
