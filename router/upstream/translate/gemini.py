"""Translates chats into Google's generateContent and back, with corrections to litellm.

As `anthropic` does for Anthropic; Vertex differs only in names. The interface is in
`translation`.
"""

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from harness.frame.failures import FailureClass
from router.conversation.thinking_forms import budget_beside
from router.frame.failure import UpstreamFailed
from router.protocols.event_stream import SsePayloads
from router.upstream.translate.chat_answer import (
    ChunkMaker,
    chat_message,
    completion,
)
from router.upstream.translate.provider_errors import google_error
from router.upstream.translate.request_screening import (
    Json,
    ScreenedRequest,
    screen_request,
)
from router.upstream.translate.translation import (
    REHEARSAL,
    ErrorInStream,
    PayloadSource,
    TranslatedCall,
    mapped,
    no_counterpart,
)

# Google's smallest thinking budgets; Flash-Lite needs a larger one.
_LEAST_BUDGET_TOKENS: Final = 128
_LEAST_OF_LITE_TOKENS: Final = 512
_NO_FIELDS: Final = frozenset({"stream", "json_mode"})


class GeminiTranslation:
    """Translates for Google. library: litellm; module: one of its modules, by name."""

    kind = "gemini"
    _provider = "gemini"  # litellm's name
    _config_class = "GoogleAIStudioGeminiConfig"

    def __init__(self, library: Any, module: Callable[[str], Any]) -> None:
        chat = module("llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini")
        self._library = library
        self._config = getattr(library, self._config_class)()
        self._body = module("llms.vertex_ai.gemini.transformation").transform_request_body
        self._iterator = chat.ModelResponseIterator

    def ask(self, request: ScreenedRequest, *, stream: bool) -> TranslatedCall:
        """Translates a request; the path names the model and the way. Raises
        Untranslatable.
        """
        dropped = request.dropped
        if request.params.pop("parallel_tool_calls", None) is False:
            dropped["parallel_tool_calls"] = None
        params = {
            k: v
            for k, v in mapped(self._config, request, self.kind).items()
            if k not in _NO_FIELDS
        }
        if "thinking" not in request.params and not _leaves_an_answer(params, request.model):
            dropped["reasoning_effort"] = None
        if request.params.get("temperature") is None:
            params.pop("temperature", None)  # litellm adds one for thinking
        for hint in ("frequency_penalty", "presence_penalty"):
            if request.params.get(hint) and hint not in params:
                dropped[hint] = None
        try:
            body = self._body(
                request.messages,
                request.model,
                params,
                self._provider,
                {},
                None,
            )
        except Exception:  # noqa: BLE001 - litellm has no specific error
            raise no_counterpart(self.kind, "messages") from None
        _give_schemas(body, request.schemas)
        model = quote(request.model, safe="/")
        way = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return TranslatedCall(
            f"/models/{model}:{way}",
            body,
            {},
            tuple(dropped),
            {"model": request.model},
        )

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer. Raises UpstreamFailed if it has no candidate."""
        answer.setdefault("usageMetadata", {})
        _fill_arguments(answer)
        found = self._config.transform_google_generate_content_to_openai_model_response(
            completion_response=answer,
            model_response=self._library.ModelResponse(),
            model=ask.notes["model"],
            logging_obj=SimpleNamespace(optional_params={}),
            raw_response=SimpleNamespace(headers={}),
        )
        given = found.model_dump()
        if not given["choices"]:
            raise UpstreamFailed(FailureClass.MALFORMED, "the answer has no candidates")
        given["choices"][0]["message"].pop("thinking_blocks", None)
        model = str(answer.get("modelVersion") or ask.notes["model"])
        id_ = str(answer.get("responseId") or "")
        reason = _end_of(answer)
        tier = _tier(answer)
        return completion(
            given,
            id_=id_,
            model=model,
            reason=reason,
            tier=tier,
        )

    def chunks(self, ask: TranslatedCall) -> "GeminiChunks":
        """Returns the translator of one stream. ask: the call that the stream answers."""
        logging = SimpleNamespace(optional_params={}, model_call_details={})
        return GeminiChunks(self._iterator(None, sync_stream=True, logging_obj=logging), ask)

    def rehearse(self) -> None:
        ask = self.ask(screen_request(copy.deepcopy(REHEARSAL), self.kind), stream=True)
        parts = [
            {"text": "-", "thought": True},
            {"functionCall": {"name": "f", "args": {}}},
        ]
        content = {"role": "model", "parts": parts}
        answer = {
            "candidates": [
                {
                    "content": content,
                    "finishReason": "STOP",
                    "index": 0,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 1,
                "candidatesTokenCount": 1,
            },
        }
        self.answer(ask, copy.deepcopy(answer))
        chunks = self.chunks(ask)
        chunks.feed(answer)


def _candidates(answer: Json) -> list[Json]:
    found = answer.get("candidates")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _end_of(answer: Json) -> str:
    first, *_ = _candidates(answer) or [{}]
    return str(first.get("finishReason") or "").lower()


def _tier(answer: Json) -> object:
    """Returns the service tier of an answer or event, if its usage names one."""
    usage = answer.get("usageMetadata")
    return usage.get("trafficType") if isinstance(usage, dict) else None


def _fill_arguments(answer: Json) -> None:
    """Gives calls without arguments an empty object, in place."""
    for candidate in _candidates(answer):
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            call = part.get("functionCall") if isinstance(part, dict) else None
            if isinstance(call, dict) and call.get("args") is None:
                call["args"] = {}


def _give_schemas(body: Json, schemas: Json) -> None:
    """Sets our schemas: Google's subset has no references, and litellm drops unknown keys."""
    for tool in body.get("tools") or ():
        for place in ("functionDeclarations", "function_declarations"):
            for function in tool.get(place) or ():
                if function.get("name") in schemas:
                    function.pop("parameters", None)
                    function["parametersJsonSchema"] = schemas[function["name"]]


def _leaves_an_answer(params: Json, model: str) -> bool:
    """Lowers the thinking budget to fit the limit. Returns False if too little is left.

    A budget that is too small becomes 0: without a budget, the model would choose its own. Pro
    models always think, so they get the smallest budget.
    """
    config = params.get("thinkingConfig")
    limit = params.get("max_output_tokens")
    budget = config.get("thinkingBudget") if isinstance(config, dict) else None
    if not (config and isinstance(budget, int) and isinstance(limit, int)):
        return True
    fitting = budget_beside(budget, limit)
    least = min(
        budget,
        _LEAST_OF_LITE_TOKENS if "lite" in model else _LEAST_BUDGET_TOKENS,
    )
    if fitting >= least:
        params["thinkingConfig"] = {**config, "thinkingBudget": fitting}
        return True
    off = _LEAST_BUDGET_TOKENS if "pro" in model else 0
    params["thinkingConfig"] = {
        **config,
        "thinkingBudget": off,
        "includeThoughts": bool(off),
    }
    return False


class VertexTranslation(GeminiTranslation):
    kind = "vertex"
    _provider = "vertex_ai"
    _config_class = "VertexGeminiConfig"


class GeminiChunks:
    """Gemini's streams have no last event: the connection ends after the finish reason."""

    def __init__(self, iterator: Any, ask: TranslatedCall) -> None:
        self.finished = False
        self.payloads: PayloadSource = SsePayloads()
        self._parse = iterator.chunk_parser
        self._maker = ChunkMaker()
        self._maker.model = ask.notes["model"]
        self._usage: object = None
        self._reason: object = None

    @property
    def ended(self) -> bool:
        return bool(self._reason)

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates one event into chunks. Raises ErrorInStream. A blocked prompt ends as
        a refusal.
        """
        if "error" in event:
            given = event["error"]
            raise ErrorInStream(google_error(given if isinstance(given, dict) else {}))
        _fill_arguments(event)
        found = self._parse(event)
        maker = self._maker
        maker.id = maker.id or str(event.get("responseId") or found.id)
        maker.model = str(event.get("modelVersion") or maker.model)
        maker.created = maker.created or int(found.created)
        maker.tier = _tier(event) or maker.tier
        if found.usage is not None:
            self._usage = found.usage.model_dump()
        out: list[Json] = []
        # litellm invents a missing finish reason, and reports a failed end as good.
        reason = _end_of(event) if event.get("candidates") else "safety"  # a blocked prompt
        for choice in found.choices[:1]:
            given = choice.model_dump()
            delta = chat_message(given["delta"], streamed=True)
            delta.pop("thinking_blocks", None)
            if delta:
                out += maker.deltas(delta)
            self._reason = reason or self._reason
        return out

    def end(self) -> Sequence[Json]:
        """Returns the last chunks, if a finish reason has arrived; else none, so that the
        stream is broken.
        """
        if not self._reason:
            return ()
        self.finished = True
        begun = self._maker.deltas({})
        return [
            *begun,
            self._maker.finish(self._reason),
            self._maker.usage(self._usage),
        ]
