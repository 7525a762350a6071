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

_CLAUDE_EFFORTS: Final = frozenset({"low", "medium", "high"})
_GOOGLE_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high"})
# Efforts of models with a token budget for thinking. litellm knows the levels of other models.
BUDGET_EFFORTS: Final[Mapping[str, frozenset[str]]] = {
    "anthropic": _CLAUDE_EFFORTS,
    "bedrock": _CLAUDE_EFFORTS,
    "gemini": _GOOGLE_EFFORTS,
    "vertex": _GOOGLE_EFFORTS,
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
    """Returns whether litellm's mapping expresses an effort that the kind knows.

    Args:
        params: litellm's parameters. If they have no level, the model has a token budget.
    """
    level = _read_level(params)
    return effort in BUDGET_EFFORTS[kind] if level is None else level == effort


def _read_level(params: Json) -> str | None:
    for holder_name, name in (
        ("output_config", "effort"),
        ("thinkingConfig", "thinkingLevel"),
    ):
        holder = params.get(holder_name)
        if isinstance(holder, dict) and isinstance(holder.get(name), str):
            return str(holder[name]).lower()
    return None


MAX_TEMPERATURE: Final = 1.0
_FORCED_CHOICES: Final = ("any", "tool")
# Choices of a chat that force no tool.
_FREE_CHOICES: Final = (None, "auto", "none")


def fit_budget(
    params: Json,
    limit: object,
    *,
    own_budget: bool,
) -> bool:
    """Lowers the budget in `params["thinking"]`. Returns whether enough of it is left.

    Args:
        limit: the answer's limit in tokens; other values limit nothing.
        own_budget: the client chose the token budget, which stays if it is below the limit.
    """
    budget = params["thinking"].get("budget_tokens")
    if not (isinstance(limit, int) and isinstance(budget, int)):
        return True
    if own_budget and budget < limit:
        return True
    fitted_budget = budget_beside(budget, limit)
    params["thinking"] = {**params["thinking"], "budget_tokens": fitted_budget}
    return fitted_budget >= min(budget, LEAST_BUDGET_TOKENS)


def free_forced_tool(request: ScreenedRequest) -> list[str]:
    """Frees the choice of a tool for a model that always thinks, which refuses a forced tool.

    Returns the names of the changed parameters. litellm would change them silently.
    """
    if not request.can.thinks_always or request.params.get("tool_choice") in _FREE_CHOICES:
        return []
    request.params["tool_choice"] = "auto"
    return ["tool_choice"]


def fit_temperature(params: Json) -> list[str]:
    """Lowers a temperature above 1, which Anthropic and Converse refuse, in place.

    Returns the names of the changed parameters.
    """
    temperature = params.get("temperature")
    if not isinstance(temperature, int | float) or temperature <= MAX_TEMPERATURE:
        return []
    params["temperature"] = MAX_TEMPERATURE
    return ["temperature"]


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
    dropped = fit_temperature(params)
    if _thinks(params) and not _can_think(params, messages, own_budget=own_budget):
        params.pop("thinking")
        params.pop("output_config", None)
        dropped.append("reasoning_effort")
    if _thinks(params):
        sampling_names = ("temperature", "top_k")
        dropped += [
            name
            for name in sampling_names
            if params.pop(name, None) not in (None, MAX_TEMPERATURE)
        ]
        top_p = params.get("top_p")
        if top_p is not None and not 0.95 <= top_p <= 1:
            params.pop("top_p")
            dropped.append("top_p")
    return dropped


def _thinks(params: Json) -> bool:
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
    if isinstance(choice, dict) and choice.get("type") in _FORCED_CHOICES:
        return False
    thinking = params["thinking"]
    if thinking["type"] != "enabled":
        return True
    if lacks_turn_thinking(messages):
        return False
    return fit_budget(params, params.get("max_tokens"), own_budget=own_budget)


def lacks_turn_thinking(messages: Sequence[Json]) -> bool:
    """Returns whether an answer without thinking continues.

    It continues if the last message begins the answer. It also continues if a tool's result
    is last and the answer with its call has no thinking. Anthropic refuses thinking in the
    middle of such a turn.
    """
    last_role = messages[-1].get("role") if messages else ""
    if last_role != "tool":
        return last_role == "assistant"
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
    """Translates one stream.

    ended: the finish reason has arrived. finished: the stream is complete.
    """

    finished: bool
    payloads: PayloadSource

    @property
    def ended(self) -> bool: ...

    def feed(self, event: Json) -> Sequence[Json]:
        """Translates an event into OpenAI's chunks. Raises ErrorInStream."""
        ...

    def end(self) -> Sequence[Json]:
        """Returns the chunks after the connection's end; no chunks for an incomplete stream."""


class Translation(Protocol):
    """A translation between chats and one protocol.

    `ask` translates a request, `answer` its whole answer, `chunks` its stream. It is pure,
    except for lookups in litellm's tables of models.
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


def map_request(
    config: Any,
    request: ScreenedRequest,
    kind: str,
) -> Json:
    """Maps the request's fields by litellm. Raises Untranslatable.

    If the model lacks the effort, maps the nearest effort, and names the change in `dropped`.

    Args:
        kind: the provider's kind, for the error.
    """
    fields = {name: value for name, value in request.params.items() if name != "top_k"}
    effort = fields.get("reasoning_effort")
    mapped_fields = None
    try:
        mapped_fields = _map_fields(config, fields, request, kind)
    except Untranslatable:
        if effort not in NEAREST:
            raise
    if effort and (mapped_fields is None or not is_effort_set(effort, mapped_fields, kind)):
        request.dropped["reasoning_effort"] = None
        if effort in NEAREST:
            fields["reasoning_effort"] = NEAREST[effort]
            mapped_fields = _map_fields(config, fields, request, kind)
    mapped_fields = mapped_fields or {}
    if request.params.get("top_k") is not None:
        mapped_fields["top_k"] = request.params["top_k"]
    return mapped_fields


def _map_fields(
    config: Any,
    fields: Json,
    request: ScreenedRequest,
    kind: str,
) -> Json:
    mapped_fields = _try_map(config, fields, request.model)
    if mapped_fields is not None:
        return mapped_fields
    # litellm's message may contain the client's content, so we find the faulty field.
    tools = {name: fields[name] for name in ("tools",) if name in fields}
    for name, value in fields.items():
        if _try_map(config, {**tools, name: value}, request.model) is None:
            raise no_counterpart(kind, name)
    raise no_counterpart(kind, None)


def _try_map(
    config: Any,
    fields: Json,
    model: str,
) -> Json | None:
    try:
        # litellm may change its argument.
        return dict(
            config.map_openai_params(copy.deepcopy(fields), {}, model, drop_params=True)
        )
    except Exception:  # noqa: BLE001 - litellm has no specific error
        return None


def no_counterpart(kind: str, param: str | None) -> Untranslatable:
    """Builds the error without litellm's message, which may contain the client's content."""
    part = f"`{param}` as given" if param else "this request"
    return Untranslatable(f"the protocol of {kind} does not support {part}", param)
