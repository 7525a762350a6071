"""Translates chats into Google's generateContent and back, with corrections to litellm.

Vertex differs from Google's own API only in names. `translation` defines the interface;
`anthropic` has the translation for Anthropic.
"""

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from harness.frame.failures import FailureClass
from router.conversation.field_forms import budget_beside
from router.frame.failure import UpstreamFailed
from router.protocols.event_stream import SsePayloads
from router.upstream.translate.chat_answer import (
    ChunkMaker,
    chat_message,
    completion,
)
from router.upstream.translate.gemini_calls import GeminiCalls
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
    map_request,
    no_counterpart,
)

# Google's smallest thinking budgets; Flash-Lite needs a larger one.
_LEAST_BUDGET_TOKENS: Final = 128
_LEAST_LITE_BUDGET_TOKENS: Final = 512
_LITELLM_FIELDS: Final = frozenset({"stream", "json_mode"})


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
        """Translates a request. The path names the model and the operation.

        Raises Untranslatable.
        """
        dropped = request.dropped
        if request.params.pop("parallel_tool_calls", None) is False:
            dropped["parallel_tool_calls"] = None
        params = {
            name: value
            for name, value in map_request(self._config, request, self.kind).items()
            if name not in _LITELLM_FIELDS
        }
        if "thinking" not in request.params and not _fit_budget(params, request.model):
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
        _set_schemas(body, request.schemas)
        model = quote(request.model, safe="/")
        operation = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return TranslatedCall(
            f"/models/{model}:{operation}",
            body,
            {},
            tuple(dropped),
            {"model": request.model},
        )

    def answer(self, ask: TranslatedCall, answer: Json) -> Json:
        """Translates a whole answer. Raises UpstreamFailed if it has no candidate."""
        answer.setdefault("usageMetadata", {})
        _fill_arguments(answer)
        parsed = self._config.transform_google_generate_content_to_openai_model_response(
            completion_response=answer,
            model_response=self._library.ModelResponse(),
            model=ask.notes["model"],
            logging_obj=SimpleNamespace(optional_params={}),
            raw_response=SimpleNamespace(headers={}),
        )
        chat = parsed.model_dump()
        if not chat["choices"]:
            raise UpstreamFailed(FailureClass.MALFORMED, "the answer has no candidates")
        chat["choices"][0]["message"].pop("thinking_blocks", None)
        model = str(answer.get("modelVersion") or ask.notes["model"])
        answer_id = str(answer.get("responseId") or "")
        reason = _read_finish_reason(answer)
        tier = _read_tier(answer)
        return completion(
            chat,
            answer_id=answer_id,
            model=model,
            reason=reason,
            tier=tier,
        )

    def chunks(self, ask: TranslatedCall) -> "GeminiChunks":
        """Returns the translator of one stream.

        Args:
            ask: the call that the stream answers.
        """
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


def _list_candidates(answer: Json) -> list[Json]:
    candidates = answer.get("candidates")
    return (
        [item for item in candidates if isinstance(item, dict)]
        if isinstance(candidates, list)
        else []
    )


def _read_finish_reason(answer: Json) -> str:
    first, *_ = _list_candidates(answer) or [{}]
    return str(first.get("finishReason") or "").lower()


def _read_tier(answer: Json) -> object:
    """Returns the service tier of an answer or event, if its usage names one."""
    usage = answer.get("usageMetadata")
    return usage.get("trafficType") if isinstance(usage, dict) else None


def _fill_arguments(answer: Json) -> None:
    """Gives calls without arguments an empty object, in place."""
    for candidate in _list_candidates(answer):
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            call = part.get("functionCall") if isinstance(part, dict) else None
            if isinstance(call, dict) and call.get("args") is None:
                call["args"] = {}


def _set_schemas(body: Json, schemas: Json) -> None:
    """Replaces litellm's schemas by ours, in place.

    Google's older field has no references, and litellm drops unknown keys.
    """
    for tool in body.get("tools") or ():
        for declarations_name in ("functionDeclarations", "function_declarations"):
            for function in tool.get(declarations_name) or ():
                if function.get("name") in schemas:
                    function.pop("parameters", None)
                    function["parametersJsonSchema"] = schemas[function["name"]]


def _fit_budget(params: Json, model: str) -> bool:
    """Lowers the thinking budget to fit the limit. Returns whether enough of it is left.

    A budget that is too small becomes 0, because without a budget the model would choose its
    own. Pro models always think, so they get the smallest budget.
    """
    config = params.get("thinkingConfig")
    limit = params.get("max_output_tokens")
    budget = config.get("thinkingBudget") if isinstance(config, dict) else None
    if not (config and isinstance(budget, int) and isinstance(limit, int)):
        return True
    fitted_budget = budget_beside(budget, limit)
    least_budget = min(
        budget,
        _LEAST_LITE_BUDGET_TOKENS if "lite" in model else _LEAST_BUDGET_TOKENS,
    )
    if fitted_budget >= least_budget:
        params["thinkingConfig"] = {**config, "thinkingBudget": fitted_budget}
        return True
    smallest_budget = _LEAST_BUDGET_TOKENS if "pro" in model else 0
    params["thinkingConfig"] = {
        **config,
        "thinkingBudget": smallest_budget,
        "includeThoughts": bool(smallest_budget),
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
        self._finish_reason: object = None
        self._calls = GeminiCalls()

    @property
    def ended(self) -> bool:
        return bool(self._finish_reason)

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates one event into chunks. A blocked prompt ends as a refusal.

        Raises ErrorInStream.
        """
        if "error" in event:
            error = event["error"]
            raise ErrorInStream(google_error(error if isinstance(error, dict) else {}))
        self._calls.join(event)
        _fill_arguments(event)
        parsed = self._parse(event)
        maker = self._maker
        maker.id = maker.id or str(event.get("responseId") or parsed.id)
        maker.model = str(event.get("modelVersion") or maker.model)
        maker.created = maker.created or int(parsed.created)
        maker.tier = _read_tier(event) or maker.tier
        if parsed.usage is not None:
            self._usage = parsed.usage.model_dump()
        chunks: list[Json] = []
        # litellm invents a missing finish reason, and reports a failed end as good.
        reason = (
            _read_finish_reason(event) if event.get("candidates") else "safety"
        )  # a blocked prompt
        for choice in parsed.choices[:1]:
            delta = chat_message(choice.model_dump()["delta"], is_streamed=True)
            delta.pop("thinking_blocks", None)
            if delta:
                chunks += maker.deltas(delta)
            self._finish_reason = reason or self._finish_reason
        return chunks

    def end(self) -> Sequence[Json]:
        """Returns the last chunks if a finish reason has arrived.

        Returns no chunks otherwise, so that the endpoint's filter reports a broken stream.
        """
        if not self._finish_reason:
            return ()
        self.finished = True
        opening_chunks = self._maker.deltas({})
        return [
            *opening_chunks,
            self._maker.finish(self._finish_reason),
            self._maker.usage(self._usage),
        ]
