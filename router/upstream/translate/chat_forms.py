"""Writes other forms of a chat's fields as the common ones, before the screening.

`allowed_tools` is OpenAI's choice among a part of the tools:
https://developers.openai.com/api/docs/guides/function-calling. `reasoning` is OpenRouter's
and Vercel's name of the effort or the budget in a chat:
https://openrouter.ai/docs/use-cases/reasoning-tokens.
"""

from collections.abc import Mapping
from typing import Any, Final

from router.frame.body import list_objects

Json = dict[str, Any]
# The effort of `enabled: true` without an effort or a budget.
_DEFAULT_EFFORT: Final = "medium"
_EFFORT_FIELDS: Final = ("reasoning_effort", "thinking")


def write_common_forms(body: Json) -> tuple[str, ...]:
    """Rewrites the forms in place. Returns the names of the parts that have no counterpart."""
    _write_allowed_tools(body)
    return _write_reasoning(body)


def _write_allowed_tools(body: Json) -> None:
    """Offers only the allowed tools. A choice with an unknown tool stays, to be refused."""
    choice = body.get("tool_choice")
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return
    inner = choice.get("allowed_tools")
    allowed = inner if isinstance(inner, Mapping) else choice
    names = {_tool_name(tool) for tool in list_objects(allowed.get("tools"))}
    tools = [tool for tool in list_objects(body.get("tools")) if _tool_name(tool) in names]
    if not names or len({_tool_name(tool) for tool in tools}) < len(names):
        return
    body["tools"] = tools
    body["tool_choice"] = allowed.get("mode") or "auto"


def _tool_name(tool: Mapping[str, object]) -> str:
    function = tool.get("function")
    holder = function if isinstance(function, Mapping) else tool
    return str(holder.get("name"))


def _write_reasoning(body: Json) -> tuple[str, ...]:
    reasoning = body.get("reasoning")
    if not isinstance(reasoning, Mapping):
        return ()
    del body["reasoning"]
    if not any(body.get(name) for name in _EFFORT_FIELDS):
        effort = reasoning.get("effort")
        budget = reasoning.get("max_tokens")
        is_on = reasoning.get("enabled")
        if isinstance(effort, str) and effort:
            body["reasoning_effort"] = effort
        elif type(budget) is int and budget > 0:
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        elif isinstance(is_on, bool):
            body["reasoning_effort"] = _DEFAULT_EFFORT if is_on else "none"
    # The client would have to leave out the thinking itself.
    return ("reasoning.exclude",) if reasoning.get("exclude") is True else ()
