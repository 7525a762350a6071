"""Makes up JSON values that fit a JSON Schema, the same for the same seed: a tool call's
arguments, or a structured answer, where no item says what is right.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.sim import seeded_random

NAMES = ("alpha", "harbour", "lantern", "meadow", "quartz", "willow")
DEEPEST = 8
NOTHING: Mapping[str, Any] = {"type": "null"}
WAYS = ("anyOf", "oneOf", "allOf")

Seed = Sequence[object]


def made_up(schema: object, seed: Seed) -> Any:
    """Invents a value that fits the schema's type, enum and bounds; the same for the same seed.

    Of alternatives the first is taken; references lead within the schema. What is no schema
    gives null.
    """
    return _Author(schema).value(schema, seed, 0)


@dataclass(frozen=True)
class _Author:
    """Writes JSON that fits a schema."""

    root: object  # where `#/…` references lead

    def value(self, schema: object, seed: Seed, depth: int) -> Any:
        plain, draw = self._plain(schema), seeded_random.random_bits(*seed)
        options = plain.get("enum", [plain["const"]] if "const" in plain else None)
        if isinstance(options, list) and options:
            return options[draw % len(options)]
        simple = SIMPLE.get(kind(plain))
        if simple:
            return simple(plain, draw)
        if kind(plain) == "object" and depth < DEEPEST:
            fields = plain.get("properties")
            parts = fields.items() if isinstance(fields, dict) else ()
            return {key: self.value(part, (*seed, key), depth + 1) for key, part in parts}
        if kind(plain) == "array" and depth < DEEPEST:
            return [self.value(plain.get("items"), (*seed, 0), depth + 1)]
        return None

    def _plain(self, schema: object) -> Mapping[str, Any]:
        """Behind references and alternatives."""
        for _ in range(DEEPEST):
            if not isinstance(schema, dict):
                return NOTHING
            ways = next((schema[key] for key in WAYS if schema.get(key)), None)
            if isinstance(schema.get("$ref"), str):
                schema = self._target(schema["$ref"])
            elif isinstance(ways, list):
                schema = ways[0]
            else:
                return schema
        return NOTHING

    def _target(self, reference: str) -> object:
        root = self.root
        for part in reference.split("/")[1:]:
            root = root.get(part) if isinstance(root, dict) else None
        return root


def kind(schema: Mapping[str, Any]) -> str:
    """The type; of several the first that is not null; without one it is an object."""
    named = schema.get("type", "object")
    if isinstance(named, list):
        named = next((type_name for type_name in named if type_name != "null"), "null")
    return str(named)


def number(schema: Mapping[str, Any], draw: int) -> float:
    """Draws one of at most seven whole numbers within the bounds; one between these if there is
    none.
    """
    low, high = limit(schema, "minimum"), limit(schema, "maximum")
    above, below = limit(schema, "exclusiveMinimum"), limit(schema, "exclusiveMaximum")
    least = [math.ceil(bound) for bound in (low,) if bound is not None]
    least += [math.floor(bound) + 1 for bound in (above,) if bound is not None]
    most = [math.floor(bound) for bound in (high,) if bound is not None]
    most += [math.ceil(bound) - 1 for bound in (below,) if bound is not None]
    first = max(least) if least else min([1, *most])
    last = min([first + 6, *most])
    if first > last:
        ends = [bound for bound in (low, high, above, below) if bound is not None]
        return sum(ends) / len(ends)
    return float(first + draw % (last - first + 1))


def limit(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e15 else None
    return None


SIMPLE: Mapping[str, Callable[[Mapping[str, Any], int], Any]] = {
    "integer": lambda schema, draw: round(number(schema, draw)),
    "number": number,
    "boolean": lambda _, draw: draw % 2 == 0,
    "string": lambda _, draw: NAMES[draw % len(NAMES)],
}
