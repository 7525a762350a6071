"""Settles how much a model thinks once litellm has made a budget of an effort: lowered so that
the answer keeps its share of `max_tokens`, off where too little is left or a tool is forced.
Names the client's fields that yield (thinking, temperature). Pure.

What a model thinks counts as part of `max_tokens`. An effort is a word, and the budget that it
becomes is the library's: the answer keeps its share of the limit (`budget_beside`). Where too
little is left to think with, there is no thinking, and the client is told. A budget that the
client chose itself, in tokens and within its limit, stays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

Json = dict[str, Any]

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CLAUDES: Final = frozenset({"low", "medium", "high"})
_GOOGLES: Final = frozenset({"none", "minimal", "low", "medium", "high"})
# For models that think by a budget of tokens; one that takes levels says itself which.
BUDGETED: Final[Mapping[str, frozenset[str]]] = {
    "anthropic": _CLAUDES,
    "bedrock": _CLAUDES,
    "gemini": _GOOGLES,
    "vertex": _GOOGLES,
}
# An effort that a provider has no word for; the client is told.
NEAREST: Final[Mapping[str, str]] = {"minimal": "low", "xhigh": "high", "max": "high"}


def is_effort_set(effort: str, params: Json, kind: str) -> bool:
    """Tells whether params, in the provider's words, mean this effort and no other."""
    level = _level(params)
    return effort in BUDGETED[kind] if level is None else level == effort


def _level(params: Json) -> str | None:
    for place, name in (("output_config", "effort"), ("thinkingConfig", "thinkingLevel")):
        given = params.get(place)
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return str(given[name]).lower()
    return None


LEAST_BUDGET_TOKENS: Final = 1024
HOTTEST: Final = 1.0
# Of the limit, for the answer itself: the larger of the two.
ANSWER_SHARE: Final = 0.25
LEAST_ANSWER_TOKENS: Final = 256
_FORCED: Final = ("any", "tool")


def budget_beside(budget: int, limit: int) -> int:
    """Cuts a budget so that the answer keeps its share of the limit; may be negative."""
    return min(budget, limit - max(LEAST_ANSWER_TOKENS, math.ceil(limit * ANSWER_SHARE)))


def fit_budget(params: Json, limit: object, *, own_budget: bool) -> bool:
    """Lower the budget of `thinking` as far as the limit asks. Whether enough is left.

    own_budget: it is the client's, and not made of an effort.
    """
    budget = params["thinking"].get("budget_tokens")
    if not (isinstance(limit, int) and isinstance(budget, int)):
        return True
    if own_budget and budget < limit:
        return True
    fitting = budget_beside(budget, limit)
    params["thinking"] = {**params["thinking"], "budget_tokens": fitting}
    return fitting >= min(budget, LEAST_BUDGET_TOKENS)


def settle_thinking(
    params: Json, messages: Sequence[Json], *, own_budget: bool = False
) -> list[str]:
    """Makes thinking fit the rest of a request, and returns those of the client's fields that
    yield. params: in Anthropic's words; changed in place.

    own_budget: as `fit_budget`.

    Thinking is a hint, and yields to what the answer must be: a forced tool, a short limit, a
    tool's result whose call was made without thinking. Temperature yields to thinking.
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
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def _can_think(params: Json, messages: Sequence[Json], *, own_budget: bool) -> bool:
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
    """Whether the last message is a tool's result, and the calls before it came without."""
    if not messages or messages[-1].get("role") != "tool":
        return False
    for message in reversed(messages):
        if message.get("role") == "assistant":
            return not message.get("thinking_blocks")
    return False
