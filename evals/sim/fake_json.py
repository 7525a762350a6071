"""Makes up JSON values that fit a JSON Schema, the same for the same seed: a tool call's
arguments, or a structured answer, where no item says what is right.
"""

from collections.abc import Sequence
from typing import Any

from evals.sim import text_numbers

NAMES = ("alpha", "harbour", "lantern", "meadow", "quartz", "willow")
DEEPEST = 8


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
