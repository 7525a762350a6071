"""Decides whether a simulated model calls a tool, and with which arguments: right ones, wrong
ones, or, where no item says what is right, made-up ones that fit the tool's schema.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.sim import text_numbers
from evals.sim.profiles import ScriptLine
from evals.sim.protocols.requests import ChatRequest
from evals.sim.simulated_model import SimulatedAnswer

NAMES = ("alpha", "harbour", "lantern", "meadow", "quartz", "willow")
DEEPEST = 8


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
    schemas = request.schemas
    if request.tool_choice == "none" or request.after_tool:
        return None
    call = verdict.item.tool_call if verdict else None
    if verdict and call and call["name"] in schemas:
        wrong, arguments = verdict.value, call["arguments"]
        if not verdict.right:
            shaped = isinstance(wrong, dict) and isinstance(wrong.get("arguments"), dict)
            arguments = wrong["arguments"] if shaped else altered(arguments, request.prompt)
        return written(request, str(call["name"]), arguments)
    name = request.forced_tool
    if name is None:
        return None
    return written(request, name, make_up(schemas[name], (request.prompt, name)))


def written(request: ChatRequest, name: str, arguments: object) -> SimulatedToolCall:
    """The call as text. Its id is another at each point of a conversation: clients throw away
    the second call of an id.
    """
    mark = text_numbers.random_bits("call", *request.texts, name)
    text = json.dumps(arguments, ensure_ascii=False)
    return SimulatedToolCall(f"call_{mark:016x}", name, text)


def altered(arguments: Mapping[str, Any], seed: str) -> dict[str, Any]:
    """Returns the arguments with one of them wrong; without any, one too many."""
    draw = text_numbers.random_bits(seed)
    key = sorted(arguments)[draw % len(arguments)] if arguments else "note"
    return {**arguments, key: f"{arguments.get(key, '')} {NAMES[draw % len(NAMES)]}".strip()}


def make_up(schema: object, seed: Sequence[object], depth: int = 0) -> Any:
    """Invents a value that fits the schema's type, enum and lower bound.

    Of alternatives it takes the first. A value that is not a schema gives null.
    """
    plain = schema if isinstance(schema, dict) else {"type": "null"}
    if isinstance(ways := plain.get("anyOf"), list) and ways and depth < DEEPEST:
        return make_up(ways[0], seed, depth + 1)
    draw = text_numbers.random_bits(*seed)
    options = plain.get("enum", [plain["const"]] if "const" in plain else None)
    if isinstance(options, list) and options:
        return options[draw % len(options)]
    kind = plain.get("type", "object")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind in ("object", "array") and depth >= DEEPEST:
        return None
    if kind == "object":
        fields = plain.get("properties")
        parts = fields.items() if isinstance(fields, dict) else ()
        return {key: make_up(part, (*seed, key), depth + 1) for key, part in parts}
    if kind == "array":
        return [make_up(plain.get("items"), (*seed, 0), depth + 1)]
    least = plain.get("minimum")
    number = least if isinstance(least, int) and abs(least) < 1e15 else 1
    values = {"boolean": draw % 2 == 0, "string": NAMES[draw % len(NAMES)]}
    return {"integer": number, "number": float(number), **values}.get(str(kind))
