"""Makes up JSON values that fit a JSON Schema, the same for the same seed: a tool call's
arguments, or a structured answer, where no item says what is right.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evals.sim import seeded_random

NAMES = ("alpha", "harbour", "lantern", "meadow", "quartz", "willow")
DEEPEST = 8
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def made_up(schema: object, seed: Sequence[object]) -> Any:
    """Invents a value that fits the schema's type, enum and bounds.

    Of alternatives it takes the first; references lead within the schema. A value that is not a
    schema gives null.
    """
    return _value(schema, schema, seed, 0)


def _value(schema: object, root: object, seed: Sequence[object], depth: int) -> Any:
    plain, draw = _plain(schema, root), seeded_random.random_bits(*seed)
    options = plain.get("enum", [plain["const"]] if "const" in plain else None)
    if isinstance(options, list) and options:
        return options[draw % len(options)]
    named = plain.get("type", "object")
    kind = next((k for k in named if k != "null"), "null") if isinstance(named, list) else named
    if kind in ("object", "array") and depth >= DEEPEST:
        return None
    if kind == "object":
        fields = plain.get("properties")
        parts = fields.items() if isinstance(fields, dict) else ()
        return {key: _value(part, root, (*seed, key), depth + 1) for key, part in parts}
    if kind == "array":
        return [_value(plain.get("items"), root, (*seed, 0), depth + 1)]
    if kind in ("integer", "number"):
        return round(_number(plain)) if kind == "integer" else _number(plain)
    return {"boolean": draw % 2 == 0, "string": NAMES[draw % len(NAMES)]}.get(str(kind))


def _plain(schema: object, root: object) -> Mapping[str, Any]:
    """The schema behind references and alternatives."""
    for _ in range(DEEPEST):
        if not isinstance(schema, dict):
            break
        ways = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if isinstance(schema.get("$ref"), str):
            target = root
            for part in schema["$ref"].split("/")[1:]:
                target = target.get(part) if isinstance(target, dict) else None
            schema = target
        elif isinstance(ways, list) and ways:
            schema = ways[0]
        else:
            return schema
    return {"type": "null"}


def _number(schema: Mapping[str, Any]) -> float:
    """The least whole number within the bounds; without one, a number between them."""
    bounds = {
        key: float(schema[key])
        for key in BOUNDS
        if isinstance(schema.get(key), int | float) and abs(schema[key]) < 1e15
    }
    low = max(bounds.get("minimum", -math.inf), bounds.get("exclusiveMinimum", -math.inf) + 1)
    high = min(bounds.get("maximum", math.inf), bounds.get("exclusiveMaximum", math.inf) - 1)
    first = min(1.0, high) if low == -math.inf else low
    whole = math.ceil(first) if low > -math.inf else math.floor(first)
    return float(whole) if low <= whole <= high else fmean(bounds.values())
