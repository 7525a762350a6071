"""Translates chats into AWS's Converse and back, with corrections to litellm.

It also reads AWS's binary event stream. `translation` defines the interface; `anthropic` has
the translation for Anthropic.
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
    fit_temperature,
    free_forced_tool,
    lacks_turn_thinking,
    map_request,
    no_counterpart,
)

_BLOCK_EVENTS: Final = (
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
)
_TYPE_BY_EXCEPTION: Final = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
}
# Converse refuses a document's name with other characters.
_REFUSED_NAME_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")


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
        _remove_forbidden_tools(request)
        dropped.update(
            dict.fromkeys((*free_forced_tool(request), *_fit_thinking_fields(request)))
        )
        is_serial = request.params.get("parallel_tool_calls") is False
        if not is_serial:
            request.params.pop("parallel_tool_calls", None)
        params = map_request(self._config, request, "bedrock")
        dropped.update(dict.fromkeys(fit_temperature(params)))
        for hint in ("temperature", "top_p", "reasoning_effort"):
            if request.params.get(hint) is not None and not _is_kept(hint, params):
                dropped[hint] = None
        json_mode = bool(params.get("json_mode"))
        try:
            body = self._config.transform_request(
                request.model, request.messages, params, {}, {}
            )
        except Exception:  # noqa: BLE001 - litellm has no specific error
            raise no_counterpart("bedrock", "messages") from None
        for message in body.get("messages") or ():
            _clean_document_names(message["content"])
        for tool in body.get("toolConfig", {}).get("tools") or ():
            spec = tool.get("toolSpec") or {}
            if spec.get("name") in request.schemas:
                spec["inputSchema"] = {"json": request.schemas[spec["name"]]}
        inference_config = body.get("inferenceConfig", {})
        dropped.update(dict.fromkeys(fit_limit(inference_config, request.can, "maxTokens")))
        model_fields = body.get("additionalModelRequestFields")
        if isinstance(model_fields, dict):
            fit_thinking(model_fields, request.can, inference_config.get("maxTokens"))
        own_budget = "thinking" in request.params
        dropped.update(dict.fromkeys(_fit_budget_to_limit(body, own_budget=own_budget)))
        if is_serial and "tool_choice" not in body.get("additionalModelRequestFields", {}):
            dropped["parallel_tool_calls"] = None
        operation = "converse-stream" if stream else "converse"
        path = f"/model/{quote(request.model, safe='')}/{operation}"
        return TranslatedCall(
            path,
            body,
            {},
            tuple(dropped),
            {"model": request.model, "json": json_mode},
        )

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer into a chat completion.

        AWS's answer has no id and does not name the model.
        """
        parsed = self._config.transform_response(
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
        tier = _read_tier(answer)
        return completion(
            parsed.model_dump(),
            answer_id="",
            model=model,
            reason=reason,
            tier=tier,
        )

    def chunks(self, ask: TranslatedCall) -> "BedrockChunks":
        """Returns the translator of one stream.

        Args:
            ask: the call that the stream answers.
        """
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


def _read_tier(answer: Json) -> object:
    """Returns the service tier of an answer or of the event `metadata`, if it names one."""
    tier = answer.get("serviceTier")
    return tier.get("type") if isinstance(tier, dict) else None


def _clean_document_names(blocks: list[Json]) -> None:
    """Replaces the characters of documents' names that Converse refuses."""
    for document in (block["document"] for block in blocks if "document" in block):
        document["name"] = _REFUSED_NAME_CHARACTERS.sub("-", str(document["name"]))


def _remove_forbidden_tools(request: ScreenedRequest) -> None:
    """Removes the tools if calls are forbidden. Raises Untranslatable after a call."""
    if request.params.get("tool_choice") != "none":
        return
    if any(m.get("tool_calls") or m.get("role") == "tool" for m in request.messages):
        why = "bedrock does not support `tool_choice` none after calls"
        raise Untranslatable(why, "tool_choice")
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        request.params.pop(name, None)


def _fit_thinking_fields(request: ScreenedRequest) -> list[str]:
    """Removes thinking if a tool is forced, or if the turn has no thinking.

    Otherwise removes the sampling parameters of a request with thinking. Returns the names of
    the removed parameters.
    """
    params = request.params
    thinking_fields = [name for name in ("reasoning_effort", "thinking") if params.get(name)]
    if not thinking_fields:
        return []
    is_forced = params.get("tool_choice") not in (None, "auto")
    removed = thinking_fields if is_forced or lacks_turn_thinking(request.messages) else []
    removed = removed or [name for name in ("temperature", "top_p", "top_k") if name in params]
    for name in removed:
        del params[name]
    return removed


def _fit_budget_to_limit(body: Json, *, own_budget: bool) -> list[str]:
    """Lowers the thinking budget to fit the limit, or removes it if the limit is too short."""
    model_fields = body.get("additionalModelRequestFields", {})
    if not isinstance(model_fields.get("thinking"), dict):
        return []
    limit = body.get("inferenceConfig", {}).get("maxTokens")
    if fit_budget(model_fields, limit, own_budget=own_budget):
        return []
    del model_fields["thinking"]
    return ["reasoning_effort"]


def _is_kept(hint: str, params: Json) -> bool:
    if hint == "reasoning_effort":
        return any(name in params for name in ("thinking", "reasoning_effort", "output_config"))
    return {"top_p": "topP"}.get(hint, hint) in params


class EventMessages:
    """Reads AWS's event stream into JSON messages with their names, from pieces of any size."""

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
            kind = _TYPE_BY_EXCEPTION.get(name, "api_error")
            raise ErrorInStream(aws_error(message, kind, name[:1].upper() + name[1:]))
        if name == "messageStart":
            return self._maker.deltas({})
        if name not in (*_BLOCK_EVENTS, "metadata"):
            return ()
        parsed = self._parse(body)
        self._maker.id = self._maker.id or str(parsed.id)
        self._maker.created = self._maker.created or int(parsed.created)
        if name == "metadata":
            self._usage = parsed.usage.model_dump()
            self._maker.tier = _read_tier(body)
            return ()
        choice = parsed.choices[0].model_dump()
        delta = self._build_delta(choice["delta"])
        if name == "contentBlockStop" and self._thinking_block is not None:
            delta["thinking_blocks"] = [self._thinking_block]
            self._thinking_block = None
        chunks = list(self._maker.deltas(delta)) if delta else []
        if name == "messageStop":
            self._has_stopped = True
            chunks.append(self._maker.finish(body.get("stopReason")))
        return chunks

    def end(self) -> Sequence[Json]:
        """Returns the last chunk, with the usage, if the stop reason has arrived."""
        if not self._has_stopped:
            return ()
        self.finished = True
        return [self._maker.usage(self._usage)]
