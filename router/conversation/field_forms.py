"""Writes thinking, effort, sampling and stop sequences as the target's model accepts them.

Claude up to 4.5 accepts a budget in tokens, Claude from 4.7 on `adaptive` with an effort.
The fields have Anthropic's names, also below Converse's `additionalModelRequestFields`. The
model's form is one of its abilities (`harness.providers.models.abilities`).
"""

import json
import math
from typing import Any, Final

from harness.providers.models.capabilities import Capabilities, ThinkingForm
from router.frame.body import to_json

Json = dict[str, Any]
LEAST_BUDGET_TOKENS: Final = 1024
# The part of the limit for the answer itself: this share, or these tokens if they are more.
ANSWER_SHARE: Final = 0.25
LEAST_ANSWER_TOKENS: Final = 256
# For each effort, the highest thinking budget in tokens.
_BUDGET_BY_EFFORT: Final = {
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 32_000,
}
# The effort of a request that names no effort.
DEFAULT_EFFORT: Final = "high"
_EFFORTS: Final = tuple(_BUDGET_BY_EFFORT)
# Names of the changed parts, as `x-swapproof-degraded` has them.
THINKING: Final = "thinking"
LIMIT: Final = "max_tokens"
EFFORT: Final = "effort"
_FORCED_CHOICES: Final = ("any", "tool")
_SAMPLING_FIELDS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
)
# Beside thinking, a model accepts no smaller `top_p`, and no other temperature.
_LEAST_TOP_P: Final = 0.95
_THINKING_TEMPERATURE: Final = 1


def budget_beside(budget: int, limit: int) -> int:
    """Cuts a budget so that the answer keeps its share. The result may be negative."""
    return min(
        budget,
        limit - max(LEAST_ANSWER_TOKENS, math.ceil(limit * ANSWER_SHARE)),
    )


def effort_of_budget(budget_tokens: int) -> str:
    """Returns the effort for a thinking budget: `low`, `medium` or `high`."""
    return next(
        (e for e in _EFFORTS[:2] if budget_tokens <= _BUDGET_BY_EFFORT[e]), DEFAULT_EFFORT
    )


def fit_message(body: bytes, can: Capabilities) -> tuple[bytes, tuple[str, ...]]:
    """Fits limit, thinking, effort and sampling of a Messages request to its model.

    The transport calls it only for bodies that may need it (`find_message_gates`). Returns the
    body, which is the same object if nothing changes, and the names of the changed parts.
    """
    request: Json = json.loads(body)
    changed = fit_limit(request, can)
    changed += fit_thinking(request, can, request.get("max_tokens"))
    changed += fit_forced_tool(request, can)
    changed += fit_sampling(request, can)
    return (to_json(request).encode(), tuple(changed)) if changed else (body, ())


def fit_limit(fields: Json, can: Capabilities, name: str = LIMIT) -> list[str]:
    """Lowers a limit above the model's maximum, in place.

    Also lowers a thinking budget that does not fit below the new limit.

    Args:
        name: the limit's name in the target's protocol.

    Returns the names of the changed parts.
    """
    limit = fields.get(name)
    max_tokens = can.max_output_tokens
    if max_tokens is None or not isinstance(limit, int) or limit <= max_tokens:
        return []
    fields[name] = max_tokens
    thinking = fields.get("thinking")
    if not isinstance(thinking, dict):
        return [LIMIT]
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < max_tokens:
        return [LIMIT]
    fields["thinking"] = {**thinking, "budget_tokens": budget_beside(budget, max_tokens)}
    return [LIMIT, THINKING]


def fit_thinking(fields: Json, can: Capabilities, limit: object) -> list[str]:
    """Writes `thinking` and `output_config.effort` as the model accepts them, in place.

    Args:
        limit: the answer's limit in tokens; other values limit nothing.

    Returns the names of the changed parts.
    """
    thinking = fields.get("thinking")
    changed: list[str] = []
    if isinstance(thinking, dict):
        kind = thinking.get("type")
        if kind == "enabled" and can.thinking is ThinkingForm.ADAPTIVE:
            _write_adaptive(fields, thinking)
            changed.append(THINKING)
        elif kind == "adaptive" and can.thinking is ThinkingForm.BUDGET:
            _write_budget(fields, thinking, limit)
            changed.append(THINKING)
        elif kind == "disabled" and can.thinks_always:
            del fields["thinking"]
            changed.append(THINKING)
    if can.efforts is not None and _fit_effort(fields, can.efforts):
        changed.append(EFFORT)
    return changed


def fit_forced_tool(fields: Json, can: Capabilities) -> list[str]:
    """Removes thinking beside a forced tool, in place, because Claude refuses both together.

    A model that always thinks gets a free choice of tools instead, even if the request names
    no thinking. Returns the names of the changed parts.
    """
    choice = fields.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") not in _FORCED_CHOICES:
        return []
    if can.thinks_always:
        choice["type"] = "auto"
        choice.pop("name", None)
        return ["tool_choice"]
    if can.thinking is ThinkingForm.UNKNOWN or not _asks_for_thinking(fields):
        return []
    del fields["thinking"]
    return [THINKING]


def _asks_for_thinking(fields: Json) -> bool:
    thinking = fields.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def fit_sampling(fields: Json, can: Capabilities) -> list[str]:
    """Removes the sampling parameters that the model refuses, in place. Returns their names.

    Some models refuse them only beside thinking.
    """
    sampling = {name: fields[name] for name in _SAMPLING_FIELDS if fields.get(name) is not None}
    thinks = _asks_for_thinking(fields)
    if can.sampling is False:
        removed = [
            name
            for name in sampling
            if name != "temperature" or sampling[name] != _THINKING_TEMPERATURE
        ]
    elif thinks and can.thinking is not ThinkingForm.UNKNOWN:
        removed = [name for name, value in sampling.items() if not _suits_thinking(name, value)]
    else:
        removed = []
    has_both = {"temperature", "top_p"} <= sampling.keys() - set(removed)
    if has_both and can.temperature_with_top_p is False:
        removed.append("top_p")
    for name in removed:
        del fields[name]
    return removed


def _suits_thinking(name: str, value: object) -> bool:
    if name == "top_p":
        return isinstance(value, int | float) and _LEAST_TOP_P <= value <= 1
    return name == "temperature" and value == _THINKING_TEMPERATURE


def _write_adaptive(fields: Json, thinking: Json) -> None:
    """Replaces a budget by an effort. The client's own effort stays.

    Models with a budget show their thinking by default, models with `adaptive` hide it.
    """
    budget = thinking.get("budget_tokens")
    other_members = {name: value for name, value in thinking.items() if name != "budget_tokens"}
    fields["thinking"] = {"display": "summarized", **other_members, "type": "adaptive"}
    if isinstance(budget, int):
        config = fields.get("output_config")
        effort = {"effort": effort_of_budget(budget)}
        fields["output_config"] = {**effort, **(config if isinstance(config, dict) else {})}


def _write_budget(fields: Json, thinking: Json, limit: object) -> None:
    """Replaces `adaptive` by the effort's budget. Removes thinking for a short limit."""
    config = fields.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    budget = _BUDGET_BY_EFFORT.get(str(effort), _BUDGET_BY_EFFORT[DEFAULT_EFFORT])
    if isinstance(limit, int):
        budget = budget_beside(budget, limit)
    if budget < LEAST_BUDGET_TOKENS:
        del fields["thinking"]
    else:
        fields["thinking"] = {**thinking, "type": "enabled", "budget_tokens": budget}


def _fit_effort(fields: Json, efforts: tuple[str, ...]) -> bool:
    """Replaces an effort that the model lacks by the next lower one, or removes it.

    Returns whether the effort changed.
    """
    config = fields.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is None or effort in efforts or not isinstance(config, dict):
        return False
    del config["effort"]
    model_efforts = [name for name in _EFFORTS if name in efforts]
    if model_efforts and effort in _EFFORTS:
        lower = [
            name for name in model_efforts if _EFFORTS.index(name) < _EFFORTS.index(effort)
        ]
        config["effort"] = lower[-1] if lower else model_efforts[0]
    if not config:
        del fields["output_config"]
    return True
