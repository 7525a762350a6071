"""What Anthropic allows beside thinking, and how a request is made to keep to it. Pure."""

from collections.abc import Sequence
from typing import Any, Final

Json = dict[str, Any]

LEAST_BUDGET_TOKENS: Final = 1024
HOTTEST: Final = 1.0
_FORCED: Final = ("any", "tool")


def settled(params: Json, messages: Sequence[Json]) -> list[str]:
    """params: in Anthropic's words; changed in place. The fields of the client's that yield.

    Thinking is a hint, and yields to what the answer must be: a forced tool, a short limit, a
    tool's result whose call was made without thinking. Temperature yields to thinking.
    """
    dropped = []
    temperature = params.get("temperature")
    if isinstance(temperature, int | float) and temperature > HOTTEST:
        params["temperature"] = HOTTEST
        dropped.append("temperature")
    if _on(params) and not _can_think(params, messages):
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


def _can_think(params: Json, messages: Sequence[Json]) -> bool:
    choice = params.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in _FORCED:
        return False
    thinking = params["thinking"]
    if thinking["type"] != "enabled":
        return True
    if in_a_turn_without_thought(messages):
        return False
    limit, budget = params.get("max_tokens"), thinking.get("budget_tokens")
    if isinstance(limit, int) and isinstance(budget, int) and budget >= limit:
        params["thinking"] = {**thinking, "budget_tokens": limit - 1}
        return limit > LEAST_BUDGET_TOKENS
    return True


def in_a_turn_without_thought(messages: Sequence[Json]) -> bool:
    """Whether the last message is a tool's result, and the calls before it came without."""
    if not messages or messages[-1].get("role") != "tool":
        return False
    for message in reversed(messages):
        if message.get("role") == "assistant":
            return not message.get("thinking_blocks")
    return False
