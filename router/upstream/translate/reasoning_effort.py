"""How hard to think: OpenAI's words, and which of them each protocol has its own for. Pure.

Any other is said by the nearest that it has, and the client is told.
"""

from collections.abc import Mapping
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
NEAREST: Final[Mapping[str, str]] = {"minimal": "low", "xhigh": "high", "max": "high"}


def is_effort_set(effort: str, params: Json, kind: str) -> bool:
    """Whether params, in the provider's words, mean this effort and no other."""
    level = _level(params)
    return effort in BUDGETED[kind] if level is None else level == effort


def _level(params: Json) -> str | None:
    for place, name in (("output_config", "effort"), ("thinkingConfig", "thinkingLevel")):
        given = params.get(place)
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return str(given[name]).lower()
    return None
