"""Decides whether a simulated model calls a tool, and with which arguments: right ones, wrong
ones, or, for a forced tool that the item does not expect, made-up ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.sim import text_numbers
from evals.sim.fake_json import NAMES, make_up
from evals.sim.profiles import ScriptLine
from evals.sim.protocols.requests import ChatRequest
from evals.sim.simulated_model import SimulatedAnswer


@dataclass(frozen=True, slots=True)
class SimulatedToolCall:
    """Holds a tool call of the simulated model."""

    id: str
    name: str
    arguments: str  # as JSON text, the way the API carries them


def call_for(
    request: ChatRequest, verdict: SimulatedAnswer | None, line: ScriptLine | None = None
) -> SimulatedToolCall | None:
    """The call that the model makes, None when it answers in words.

    It calls when its script's line does, when the item expects a call and has that tool, or
    when `tool_choice` forces one. Without a script it does not call again once a tool has
    answered.
    """
    if line is not None:
        return written(request, line.tool, line.arguments) if line.tool else None
    if not request.tools or request.tool_choice == "none" or request.after_tool:
        return None
    if verdict and verdict.item.tool_call and verdict.item.tool_call["name"] in request.tools:
        return expected(request, verdict, verdict.item.tool_call)
    name = request.forced_tool
    if name is None:
        return None
    return written(request, name, make_up(request.tools[name], (request.prompt, name)))


def expected(
    request: ChatRequest, verdict: SimulatedAnswer, call: Mapping[str, Any]
) -> SimulatedToolCall:
    """Writes the right call, or one of the same tool with other arguments."""
    name, arguments = str(call["name"]), call["arguments"]
    if not verdict.right:
        wrong = verdict.value
        shaped = isinstance(wrong, dict) and isinstance(wrong.get("arguments"), dict)
        arguments = wrong["arguments"] if shaped else altered(arguments, request.prompt)
    return written(request, name, arguments)


def written(request: ChatRequest, name: str, arguments: object) -> SimulatedToolCall:
    mark = text_numbers.random_bits("call", request.prompt, name)
    return SimulatedToolCall(
        f"call_{mark:016x}", name, json.dumps(arguments, ensure_ascii=False)
    )


def altered(arguments: Mapping[str, Any], seed: str) -> dict[str, Any]:
    """Returns the arguments with one of them wrong; without any, one too many."""
    if not arguments:
        return {"note": NAMES[text_numbers.random_bits(seed) % len(NAMES)]}
    key = sorted(arguments)[text_numbers.random_bits(seed) % len(arguments)]
    value = arguments[key]
    if isinstance(value, bool):
        return {**arguments, key: not value}
    if isinstance(value, int | float):
        return {**arguments, key: value + 1}
    return {
        **arguments,
        key: f"{value} {NAMES[text_numbers.random_bits(seed, key) % len(NAMES)]}",
    }
