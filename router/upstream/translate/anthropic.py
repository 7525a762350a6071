"""Translates chats into Anthropic's Messages and back, with corrections to litellm.

One of the classes that `transport` chooses by kind; their interface is in `translation`. It
changes JSON only. Every part that is lost is named in `dropped`, and a part without a
counterpart raises Untranslatable instead of disappearing.
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
    mapped,
    no_counterpart,
    settle_thinking,
)

_STRUCTURED: Final = "structured-outputs-2025-11-13"  # `output_config.format` replaced it


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

        Corrects litellm: hints that it lost are named, thinking is settled with other
        fields, tool schemas and structured outputs are sent in the current form.
        """
        dropped = request.dropped
        self._keep_to_levels(request)
        dropped.update(dict.fromkeys(free_forced_tool(request)))
        params = mapped(self._config, request, "anthropic")
        for hint in (
            "temperature",
            "top_p",
            "response_format",
            "reasoning_effort",
        ):
            if request.params.get(hint) is not None and not _arrived(hint, params):
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
        form = body.pop("output_format", None)
        if form is not None:
            body["output_config"] = {
                **body.get("output_config", {}),
                "format": form,
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
        return TranslatedCall("/messages", body, _versions(headers), tuple(dropped), notes)

    def _keep_to_levels(self, request: ScreenedRequest) -> None:
        """Replaces an effort that the model lacks; litellm would refuse it later."""
        effort = str(request.params.get("reasoning_effort"))
        if effort not in NEAREST:
            return
        lacks = self._config._validate_effort_for_model  # noqa: SLF001 - no public one
        if lacks(request.model, effort, "anthropic"):
            request.params["reasoning_effort"] = NEAREST[effort]
            request.dropped["reasoning_effort"] = None

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer into a chat completion."""
        found = self._config.transform_parsed_response(
            completion_response=answer,
            raw_response=SimpleNamespace(headers={}, status_code=200),
            model_response=self._library.ModelResponse(),
            json_mode=ask.notes["json"],
            tool_name_reverse_map=ask.notes["names"],
        )
        id_ = str(answer.get("id") or "")
        model = str(answer.get("model") or "")
        reason = answer.get("stop_reason")
        return completion(
            found.model_dump(),
            id_=id_,
            model=model,
            reason=reason,
            tier=_tier(answer.get("usage")),
        )

    def chunks(self, ask: TranslatedCall) -> "AnthropicChunks":
        """Returns the translator of one stream. ask: the call that the stream answers."""
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


def _arrived(hint: str, params: Json) -> bool:
    """Returns whether litellm's mapping kept a hint."""
    match hint:
        case "response_format":
            return bool(params.get("json_mode"))
        case "reasoning_effort":
            return "thinking" in params or "output_config" in params
        case _:
            return hint in params


def _tier(usage: object) -> object:
    """Returns the service tier of a message's usage, as the chat has it."""
    tokens = read_message_tokens(usage)
    return tokens.tier if tokens else ""


def _versions(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the version headers, without a beta that a field of the request has replaced."""
    found = {"anthropic-version": headers.get("anthropic-version") or ANTHROPIC_VERSION}
    betas = [part.strip() for part in headers.get("anthropic-beta", "").split(",")]
    kept = [beta for beta in betas if beta and beta != _STRUCTURED]
    return {**found, "anthropic-beta": ",".join(kept)} if kept else found


class AnthropicChunks:
    """Sends thinking as text, then again complete and signed. Sends one block at a time."""

    def __init__(self, iterator: Any) -> None:
        self.finished = False
        self.payloads: PayloadSource = SsePayloads()
        self._parse = iterator.chunk_parser
        self._maker = ChunkMaker()
        self._usage: object = None
        self._thought: Json | None = None
        self._stopped = False
        self._open: object = None  # the index of the current block
        self._is_hosted = False  # the current block is a call that the provider answers
        self._waiting: list[Json] = []  # events of later blocks

    @property
    def ended(self) -> bool:
        return self._stopped

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates one event into chunks. Raises ErrorInStream for the provider's error
        event.
        """
        return [chunk for piece in self._in_turn(event) for chunk in self._fed(piece)]

    def _in_turn(self, event: Json) -> list[Json]:
        """Returns the events that are due: those of other blocks wait until the current
        block ends.
        """
        kind = str(event.get("type"))
        place = event.get("index")
        if kind == "message_start":
            return _split_content(event)
        if kind in _ENDS:
            waiting = self._waiting
            self._waiting = []
            return [*waiting, event]
        if not kind.startswith("content_block_"):
            return [event]
        if self._open is None:
            self._open = place
        if place != self._open:
            self._waiting.append(event)
            return []
        if kind != "content_block_stop":
            return _split_input(event)
        waiting = self._waiting
        self._waiting = []
        self._open = None
        return [
            event,
            *(piece for later in waiting for piece in self._in_turn(later)),
        ]

    def _fed(self, event: Json) -> Sequence[Json]:
        kind = event.get("type")
        if kind == "error":
            raise ErrorInStream(dict(event.get("error") or {}))
        if kind == "message_stop":
            self.finished = True
            return [self._maker.usage(self._usage)]
        if kind == "message_start":
            message = {**_NO_HEAD, **event["message"]}
            event = {**event, "message": message}
            self._maker.id = str(message["id"])
            self._maker.model = str(message["model"])
            self._maker.tier = _tier(message["usage"])
        if kind not in _EVENTS or self._skips(event):
            return ()
        found = self._parse(event)
        self._maker.created = self._maker.created or int(found.created)
        if found.usage is not None:
            self._usage = found.usage.model_dump()
        choice = found.choices[0].model_dump()
        out = []
        delta = self._delta(choice["delta"])
        if kind == "content_block_stop" and self._thought is not None:
            delta["thinking_blocks"] = [self._thought]
            self._thought = None
        if delta or kind == "message_start":
            out += self._maker.deltas(delta)
        if kind == "message_delta" and event["delta"].get("stop_reason"):
            self._stopped = True
            out.append(self._maker.finish(event["delta"]["stop_reason"]))
        return out

    def _skips(self, event: Json) -> bool:
        """Returns whether an event belongs to a call that the provider answers itself; the
        client could not answer it.
        """
        block = event.get("content_block")
        if isinstance(block, dict):
            self._is_hosted = block.get("type") in _HOSTED
        skips = self._is_hosted
        if event.get("type") == "content_block_stop":
            self._is_hosted = False
        return skips and str(event.get("type")).startswith("content_block_")

    def _delta(self, given: Json) -> Json:
        delta = chat_message(given, streamed=True)
        for block in delta.pop("thinking_blocks", ()):
            if block.get("type") == "redacted_thinking":
                delta["thinking_blocks"] = [block]
                continue
            thought = self._thought or {
                "type": "thinking",
                "thinking": "",
                "signature": "",
            }
            thought["thinking"] += block.get("thinking") or ""
            thought["signature"] += block.get("signature") or ""
            self._thought = thought
        return delta

    def end(self) -> Sequence[Json]:
        return ()


# Members of `message_start` that Anthropic-compatible servers omit.
_NO_HEAD: Final[Json] = {
    "id": "",
    "model": "",
    "usage": {"input_tokens": 0, "output_tokens": 0},
}
_ENDS: Final = frozenset({"message_delta", "message_stop"})
_HOSTED: Final = frozenset({"server_tool_use", "mcp_tool_use"})


def _split_content(event: Json) -> list[Json]:
    """Moves the blocks and the stop reason of a first event into following events, as
    Anthropic sends them for most answers.
    """
    message = event.get("message")
    blocks = message.get("content") if isinstance(message, dict) else None
    if not blocks or not isinstance(message, dict):
        return [event]
    reason = message.get("stop_reason")
    found: list[Json] = [{**event, "message": {**message, "content": [], "stop_reason": None}}]
    for number, block in enumerate(iter_objects(blocks)):
        place = {"index": number}
        text = block.get("text") if block.get("type") == "text" else None
        opened = {**block, "text": ""} if text else dict(block)
        found += _split_input({"type": "content_block_start", **place, "content_block": opened})
        if text:
            delta = {"type": "text_delta", "text": text}
            found.append({"type": "content_block_delta", **place, "delta": delta})
        found.append({"type": "content_block_stop", **place})
    if reason:
        usage = message.get("usage") or _NO_HEAD["usage"]
        delta = {"stop_reason": reason}
        found.append({"type": "message_delta", "delta": delta, "usage": usage})
    return found


def _split_input(event: Json) -> list[Json]:
    """Moves a call's complete input into a following event, as Anthropic sends it."""
    block = event.get("content_block")
    given = block.get("input") if isinstance(block, dict) else None
    if not given or not isinstance(block, dict) or block.get("type") != "tool_use":
        return [event]
    delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
    piece = {
        "type": "content_block_delta",
        "index": event.get("index"),
        "delta": delta,
    }
    return [{**event, "content_block": {**block, "input": {}}}, piece]


_EVENTS: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
    }
)
