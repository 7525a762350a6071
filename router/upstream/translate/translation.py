"""The interface of a translation, litellm's mapping of fields, and thinking budgets.

`max_tokens` includes thinking. The answer keeps its share of the limit; if too little is
left, the translation turns thinking off. It keeps a client's own token budget below the
limit. The implementations are `anthropic`, `bedrock` and `gemini`; `transport` uses them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from router.conversation.field_forms import LEAST_BUDGET_TOKENS, budget_beside
from router.frame.failure import Untranslatable
from router.upstream.translate.request_screening import Json, ScreenedRequest

_CLAUDES: Final = frozenset({"low", "medium", "high"})
_GOOGLES: Final = frozenset({"none", "minimal", "low", "medium", "high"})
# Efforts of models with a token budget for thinking. litellm knows the levels of other models.
BUDGETED: Final[Mapping[str, frozenset[str]]] = {
    "anthropic": _CLAUDES,
    "bedrock": _CLAUDES,
    "gemini": _GOOGLES,
    "vertex": _GOOGLES,
}
# Replacements for efforts that a provider lacks; `dropped` names the change.
NEAREST: Final[Mapping[str, str]] = {
    "minimal": "low",
    "xhigh": "high",
    "max": "high",
}


def is_effort_set(
    effort: str,
    params: Json,
    kind: str,
) -> bool:
    """Returns whether litellm's mapping expresses an effort as the kind knows it.

    params: litellm's. Without a level in them, the model has a token budget.
    """
    level = _level(params)
    return effort in BUDGETED[kind] if level is None else level == effort


def _level(params: Json) -> str | None:
    for place, name in (
        ("output_config", "effort"),
        ("thinkingConfig", "thinkingLevel"),
    ):
        given = params.get(place)
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return str(given[name]).lower()
    return None


HOTTEST: Final = 1.0
_FORCED: Final = ("any", "tool")
# Choices of a chat that force no tool.
_FREE: Final = (None, "auto", "none")


def fit_budget(
    params: Json,
    limit: object,
    *,
    own_budget: bool,
) -> bool:
    """Lowers the budget in `params["thinking"]`. Returns False if too little is left.

    limit: the answer's limit in tokens; other values limit nothing. own_budget: the client
    chose the token budget, which stays if it is below the limit.
    """
    budget = params["thinking"].get("budget_tokens")
    if not (isinstance(limit, int) and isinstance(budget, int)):
        return True
    if own_budget and budget < limit:
        return True
    fitting = budget_beside(budget, limit)
    params["thinking"] = {**params["thinking"], "budget_tokens": fitting}
    return fitting >= min(budget, LEAST_BUDGET_TOKENS)


def free_forced_tool(request: ScreenedRequest) -> list[str]:
    """Frees the choice of a tool for a model that always thinks, which refuses a forced tool.

    Returns the names of the changed parameters. litellm would change it without a word.
    """
    if not request.can.thinks_always or request.params.get("tool_choice") in _FREE:
        return []
    request.params["tool_choice"] = "auto"
    return ["tool_choice"]


def settle_thinking(
    params: Json,
    messages: Sequence[Json],
    *,
    own_budget: bool = False,
) -> list[str]:
    """Removes conflicting fields from `params`, in Anthropic's form. Returns the removed names.

    A forced tool, a short limit, or a tool call without thinking removes thinking.
    Thinking removes temperature, `top_k` and a low `top_p`.
    """
    dropped = []
    temperature = params.get("temperature")
    if isinstance(temperature, int | float) and temperature > HOTTEST:
        params["temperature"] = HOTTEST
        dropped.append("temperature")
    if _on(params) and not _can_think(params, messages, own_budget=own_budget):
        params.pop("thinking")
        params.pop("output_config", None)
        dropped.append("reasoning_effort")
    if _on(params):
        sampling = ("temperature", "top_k")
        dropped += [name for name in sampling if params.pop(name, None) not in (None, HOTTEST)]
        top_p = params.get("top_p")
        if top_p is not None and not 0.95 <= top_p <= 1:
            params.pop("top_p")
            dropped.append("top_p")
    return dropped


def _on(params: Json) -> bool:
    thinking = params.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in (
        "enabled",
        "adaptive",
    )


def _can_think(
    params: Json,
    messages: Sequence[Json],
    *,
    own_budget: bool,
) -> bool:
    choice = params.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in _FORCED:
        return False
    thinking = params["thinking"]
    if thinking["type"] != "enabled":
        return True
    if in_a_turn_without_thought(messages):
        return False
    return fit_budget(params, params.get("max_tokens"), own_budget=own_budget)


def in_a_turn_without_thought(messages: Sequence[Json]) -> bool:
    """Returns whether a tool's result is last, and the answer with its call has no thinking,
    or whether the last message begins the answer.

    Anthropic refuses thinking in the middle of such a turn.
    """
    last = messages[-1].get("role") if messages else ""
    if last != "tool":
        return last == "assistant"
    for message in reversed(messages):
        if message.get("role") == "assistant":
            return not message.get("thinking_blocks")
    return False


class ErrorInStream(Exception):
    """An error in the provider's stream. error: in OpenAI's shape."""

    def __init__(self, error: Json) -> None:
        super().__init__(str(error.get("type")))
        self.error = error


@dataclass(frozen=True, slots=True)
class TranslatedCall:
    """A request in the provider's protocol. path: below `api_base`."""

    path: str
    body: Json
    headers: Mapping[str, str]
    dropped: tuple[str, ...]  # omitted fields
    notes: Mapping[str, Any]  # facts that the translation of the answer needs


class PayloadSource(Protocol):
    """Splits a provider's stream into events."""

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yields the JSON of each complete event. Raises UpstreamFailed (malformed)."""
        ...


class ChunkTranslator(Protocol):
    """Translates one stream. ended: the finish reason arrived. finished: it is complete."""

    finished: bool
    payloads: PayloadSource

    @property
    def ended(self) -> bool: ...

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates an event into OpenAI's chunks. Raises ErrorInStream."""
        ...

    def end(self) -> Sequence[Json]:
        """Returns the last chunks once the connection has ended; none if the stream is
        incomplete.
        """


class Translation(Protocol):
    """Pure, except for lookups in litellm's tables of models.

    `ask` translates a request, `answer` its whole answer, `chunks` its stream.
    """

    def ask(self, request: ScreenedRequest, *, stream: bool) -> TranslatedCall: ...

    def answer(self, ask: TranslatedCall, answer: Json) -> Json: ...

    def chunks(self, ask: TranslatedCall) -> ChunkTranslator: ...

    def rehearse(self) -> None:
        """Translates a sample both ways, because litellm builds its classes on first use."""
        ...


REHEARSAL: Final[Json] = {
    "model": "-",
    "messages": [{"role": "user", "content": "-"}],
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object"}},
        }
    ],
}


def mapped(
    config: Any,
    request: ScreenedRequest,
    kind: str,
) -> Json:
    """Maps the fields by litellm. Raises Untranslatable.

    If the model lacks the effort, the nearest one is mapped, and `dropped` names the
    change. kind: the provider's, for the error.
    """
    given = {name: value for name, value in request.params.items() if name != "top_k"}
    effort = given.get("reasoning_effort")
    found = None
    try:
        found = _as_mapped(config, given, request, kind)
    except Untranslatable:
        if effort not in NEAREST:
            raise
    if effort and (found is None or not is_effort_set(effort, found, kind)):
        request.dropped["reasoning_effort"] = None
        if effort in NEAREST:
            given["reasoning_effort"] = NEAREST[effort]
            found = _as_mapped(config, given, request, kind)
    found = found or {}
    if request.params.get("top_k") is not None:
        found["top_k"] = request.params["top_k"]
    return found


def _as_mapped(
    config: Any,
    given: Json,
    request: ScreenedRequest,
    kind: str,
) -> Json:
    found = _try_mapped(config, given, request.model)
    if found is not None:
        return found
    # litellm's message may contain the client's content, so we find the faulty field.
    tools = {name: given[name] for name in ("tools",) if name in given}
    for name, value in given.items():
        if _try_mapped(config, {**tools, name: value}, request.model) is None:
            raise no_counterpart(kind, name)
    raise no_counterpart(kind, None)


def _try_mapped(
    config: Any,
    given: Json,
    model: str,
) -> Json | None:
    try:
        # litellm may change its argument.
        return dict(config.map_openai_params(copy.deepcopy(given), {}, model, drop_params=True))
    except Exception:  # noqa: BLE001 - litellm has no specific error
        return None


def no_counterpart(kind: str, param: str | None) -> Untranslatable:
    """Builds the error without litellm's message, which may contain the client's content."""
    what = f"`{param}` as given" if param else "this request"
    return Untranslatable(f"the protocol of {kind} does not support {what}", param)
