"""Translates chats into AWS's Converse and back, with corrections to litellm.

As `anthropic` does for Anthropic. AWS's binary event stream is read here as well. The
interface is in `translation`.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from harness.frame.failures import FailureClass
from router.conversation.field_forms import fit_limit, fit_thinking
from router.frame.failure import Untranslatable, UpstreamFailed
from router.upstream.translate.anthropic import AnthropicChunks
from router.upstream.translate.chat_answer import completion
from router.upstream.translate.provider_errors import aws_error
from router.upstream.translate.request_screening import (
    Json,
    ScreenedRequest,
    screen_request,
)
from router.upstream.translate.translation import (
    REHEARSAL,
    ErrorInStream,
    TranslatedCall,
    fit_budget,
    free_forced_tool,
    in_a_turn_without_thought,
    mapped,
    no_counterpart,
)

_PIECES: Final = (
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
)
_TYPES: Final = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
}
# Converse refuses a document's name with other characters.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")


class BedrockTranslation:
    """Translates for AWS. library: litellm; module: one of its modules, by name."""

    def __init__(self, library: Any, module: Callable[[str], Any]) -> None:
        handler = module("llms.bedrock.chat.invoke_handler")
        self._library = library
        self._config = library.AmazonConverseConfig()
        self._decoder = handler.AWSEventStreamDecoder
        self._frames = import_module("botocore.eventstream")

    def ask(self, request: ScreenedRequest, *, stream: bool) -> TranslatedCall:
        """Translates a request; the path names the model. Raises Untranslatable."""
        dropped = request.dropped
        _without_tools(request)
        dropped.update(dict.fromkeys((*free_forced_tool(request), *_unthought(request))))
        serial = request.params.get("parallel_tool_calls") is False
        if not serial:
            request.params.pop("parallel_tool_calls", None)
        params = mapped(self._config, request, "bedrock")
        for hint in ("temperature", "top_p", "reasoning_effort"):
            if request.params.get(hint) is not None and not _arrived(hint, params):
                dropped[hint] = None
        json_mode = bool(params.get("json_mode"))
        try:
            body = self._config.transform_request(
                request.model, request.messages, params, {}, {}
            )
        except Exception:  # noqa: BLE001 - litellm has no specific error
            raise no_counterpart("bedrock", "messages") from None
        for message in body.get("messages") or ():
            _name_documents(message["content"])
        for tool in body.get("toolConfig", {}).get("tools") or ():
            spec = tool.get("toolSpec") or {}
            if spec.get("name") in request.schemas:
                spec["inputSchema"] = {"json": request.schemas[spec["name"]]}
        limits = body.get("inferenceConfig", {})
        dropped.update(dict.fromkeys(fit_limit(limits, request.can, "maxTokens")))
        more = body.get("additionalModelRequestFields")
        if isinstance(more, dict):
            fit_thinking(more, request.can, limits.get("maxTokens"))
        own_budget = "thinking" in request.params
        dropped.update(dict.fromkeys(_too_short_to_think(body, own_budget=own_budget)))
        if serial and "tool_choice" not in body.get("additionalModelRequestFields", {}):
            dropped["parallel_tool_calls"] = None
        way = "converse-stream" if stream else "converse"
        path = f"/model/{quote(request.model, safe='')}/{way}"
        return TranslatedCall(
            path,
            body,
            {},
            tuple(dropped),
            {"model": request.model, "json": json_mode},
        )

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer into a chat completion. The answer has no id and no
        model's name.
        """
        found = self._config.transform_response(
            model=ask.notes["model"],
            raw_response=SimpleNamespace(json=lambda: answer, text="", headers={}),
            model_response=self._library.ModelResponse(),
            logging_obj=None,
            request_data={},
            messages=[],
            optional_params={},
            litellm_params={},
            encoding=None,
            json_mode=ask.notes["json"],
        )
        model = ask.notes["model"]
        reason = answer.get("stopReason")
        tier = _tier(answer)
        return completion(
            found.model_dump(),
            id_="",
            model=model,
            reason=reason,
            tier=tier,
        )

    def chunks(self, ask: TranslatedCall) -> "BedrockChunks":
        """Returns the translator of one stream. ask: the call that the stream answers."""
        decoder = self._decoder(ask.notes["model"], json_mode=ask.notes["json"])
        return BedrockChunks(decoder, ask, EventMessages(self._frames))

    def rehearse(self) -> None:
        ask = self.ask(screen_request(copy.deepcopy(REHEARSAL), "bedrock"), stream=True)
        message = {"role": "assistant", "content": [{"text": "-"}]}
        usage = {
            "inputTokens": 1,
            "outputTokens": 1,
            "totalTokens": 2,
        }
        self.answer(
            ask,
            {
                "output": {"message": message},
                "stopReason": "end_turn",
                "usage": usage,
            },
        )
        self.chunks(ask).feed({"name": "messageStop", "body": {"stopReason": "end_turn"}})


def _tier(answer: Json) -> object:
    """Returns the service tier of an answer or of the event `metadata`, if it names one."""
    tier = answer.get("serviceTier")
    return tier.get("type") if isinstance(tier, dict) else None


def _name_documents(blocks: list[Json]) -> None:
    """Writes the names of documents with the characters that Converse takes."""
    for document in (block["document"] for block in blocks if "document" in block):
        document["name"] = _NOT_IN_NAMES.sub("-", str(document["name"]))


def _without_tools(request: ScreenedRequest) -> None:
    """Removes the tools if calls are forbidden. Raises Untranslatable after a call."""
    if request.params.get("tool_choice") != "none":
        return
    if any(m.get("tool_calls") or m.get("role") == "tool" for m in request.messages):
        why = "bedrock does not support `tool_choice` none after calls"
        raise Untranslatable(why, "tool_choice")
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        request.params.pop(name, None)


def _unthought(request: ScreenedRequest) -> list[str]:
    """Removes thinking if a tool is forced or the turn has no thinking; else, for a request
    with thinking, removes sampling parameters.

    Returns the names of the removed parameters.
    """
    params = request.params
    thinking = [name for name in ("reasoning_effort", "thinking") if params.get(name)]
    if not thinking:
        return []
    forced = params.get("tool_choice") not in (None, "auto")
    gone = thinking if forced or in_a_turn_without_thought(request.messages) else []
    gone = gone or [name for name in ("temperature", "top_p", "top_k") if name in params]
    for name in gone:
        del params[name]
    return gone


def _too_short_to_think(body: Json, *, own_budget: bool) -> list[str]:
    """Lowers the thinking budget to fit the limit, or removes it if the limit is too short."""
    more = body.get("additionalModelRequestFields", {})
    if not isinstance(more.get("thinking"), dict):
        return []
    limit = body.get("inferenceConfig", {}).get("maxTokens")
    if fit_budget(more, limit, own_budget=own_budget):
        return []
    del more["thinking"]
    return ["reasoning_effort"]


def _arrived(hint: str, params: Json) -> bool:
    if hint == "reasoning_effort":
        return any(name in params for name in ("thinking", "reasoning_effort", "output_config"))
    return {"top_p": "topP"}.get(hint, hint) in params


class EventMessages:
    """Reads AWS's event stream, in pieces of any size, into JSON messages with their names."""

    def __init__(self, frames: Any) -> None:
        self._buffer = frames.EventStreamBuffer()
        self._error = frames.ParserError

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yields events as JSON. Raises UpstreamFailed (malformed)."""
        self._buffer.add_data(data)
        try:
            for message in self._buffer:
                headers = message.headers
                name = headers.get(":event-type") or headers.get(":exception-type")
                body = json.loads(message.payload or b"{}")
                yield json.dumps({"name": str(name or "error"), "body": body}).encode()
        except (self._error, ValueError) as error:
            why = "the answer is not an AWS event stream"
            raise UpstreamFailed(FailureClass.MALFORMED, why) from error


class BedrockChunks(AnthropicChunks):
    """Reads Converse's events. Blocks of thinking are the same as Anthropic's."""

    def __init__(
        self,
        decoder: Any,
        ask: TranslatedCall,
        payloads: EventMessages,
    ) -> None:
        super().__init__(SimpleNamespace(chunk_parser=decoder.converse_chunk_parser))
        self.payloads = payloads
        self._maker.model = ask.notes["model"]

    def feed(self, event: Json) -> Sequence[Json]:
        name = event["name"]
        body = event["body"]
        if name.endswith("Exception") or name == "error":
            message = str(body.get("message") or name)
            kind = _TYPES.get(name, "api_error")
            raise ErrorInStream(aws_error(message, kind, name[:1].upper() + name[1:]))
        if name == "messageStart":
            return self._maker.deltas({})
        if name not in (*_PIECES, "metadata"):
            return ()
        found = self._parse(body)
        self._maker.id = self._maker.id or str(found.id)
        self._maker.created = self._maker.created or int(found.created)
        if name == "metadata":
            self._usage = found.usage.model_dump()
            self._maker.tier = _tier(body)
            return ()
        choice = found.choices[0].model_dump()
        delta = self._delta(choice["delta"])
        if name == "contentBlockStop" and self._thought is not None:
            delta["thinking_blocks"] = [self._thought]
            self._thought = None
        out = list(self._maker.deltas(delta)) if delta else []
        if name == "messageStop":
            self._stopped = True
            out.append(self._maker.finish(body.get("stopReason")))
        return out

    def end(self) -> Sequence[Json]:
        """Returns the last chunk, with the usage, if the stop reason has arrived."""
        if not self._stopped:
            return ()
        self.finished = True
        return [self._maker.usage(self._usage)]
