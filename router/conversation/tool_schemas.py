"""Writes a tool's JSON schema for each kind of target, and detects lost constraints.

Some kinds accept no references, no alternatives at the top, or not all keywords. The writer
keeps as much of the schema as the kind reads. It validates no call against a schema:
`router.request.guardrail_probe` does.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from router.frame.body import list_objects

Json = dict[str, Any]
# The most nodes of a schema for which the writer replaces references.
MOST_NODES: Final = 4_000
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_DEFINITIONS: Final = ("$defs", "definitions")
_TYPES: Final[Mapping[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}
_ENUMERATED: Final = ("string", "integer", "number")
# Keywords that Google ignores in JSON schemas.
_GOOGLE_UNREAD: Final = frozenset(
    {
        "not",
        "if",
        "then",
        "else",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "contains",
        "uniqueItems",
        "multipleOf",
        "unevaluatedProperties",
    }
)
_BOUNDS: Final = {"exclusiveMinimum": "greater than", "exclusiveMaximum": "less than"}


class SchemaRule(NamedTuple):
    """A kind's schema features. keeps_definitions: it supports `$defs` and `definitions`."""

    keeps_definitions: bool = True
    is_google: bool = False


SCHEMA_RULES: Final[Mapping[str, SchemaRule]] = {
    "anthropic": SchemaRule(),
    "bedrock": SchemaRule(keeps_definitions=False),
    "gemini": SchemaRule(is_google=True),
    "vertex": SchemaRule(is_google=True),
}


class WrittenSchema(NamedTuple):
    """A tool's schema for its target. is_weaker: it allows more than the client's schema."""

    schema: Json
    is_weaker: bool


def write_schema(given: Json, rule: SchemaRule) -> WrittenSchema:
    """Returns the client's schema as the kind accepts it: an object at the top.

    A constraint that cannot be written becomes `is_weaker`, which tells the client of the
    loss.
    """
    writer = _Writer(given, rule)
    schema = writer.root()
    return WrittenSchema(schema, writer.is_weaker)


class _Writer:
    """Writes one schema. is_weaker: a constraint was lost so far."""

    def __init__(self, whole: Json, rule: SchemaRule) -> None:
        self.is_weaker = False
        self._whole = whole
        self._rule = rule
        self._nodes = 0

    def root(self) -> Json:
        """Returns the schema with an object at the top, and alternatives there merged into
        it.
        """
        top = self._merged(self._whole, ())
        for name in _DEFINITIONS:
            definitions = top.pop(name, None)
            if self._rule.keeps_definitions and isinstance(definitions, dict):
                top[name] = {key: self._node(value, ()) for key, value in definitions.items()}
        kept: Json = {name: top.pop(name) for name in _DEFINITIONS if name in top}
        written = self._members(top, ())
        return {
            **written,
            "type": "object",
            "properties": written.get("properties", {}),
            **kept,
        }

    def _merged(self, schema: Json, path: tuple[str, ...]) -> Json:
        top = dict(schema)
        reference = top.pop("$ref", None)
        parts = [(top.pop("allOf", None), True)]
        parts += [(top.pop(name, None), False) for name in _ALTERNATIVES]
        if isinstance(reference, str) and reference not in path:
            parts.append(([self._pointed(reference)], True))
            path = (*path, reference)
        for given, all_hold in parts:
            branches = [self._merged(branch, path) for branch in list_objects(given)]
            if branches:
                self._join(top, branches, all_hold=all_hold)
                self.is_weaker = self.is_weaker or not all_hold
        return top

    def _join(self, top: Json, branches: list[Json], *, all_hold: bool) -> None:
        """Merges branches into `top`, in place.

        all_hold: True for `allOf` and references, whose required members all stay required.
        Of alternatives, only members stay required that each branch requires.
        """
        properties: Json = dict(_object(top.get("properties")))
        for branch in branches:
            for name, value in _object(branch.get("properties")).items():
                known = properties.get(name, value)
                properties[name] = value if known == value else {"anyOf": [known, value]}
            for name in _DEFINITIONS:
                if isinstance(branch.get(name), dict):
                    top[name] = {**branch[name], **_object(top.get(name))}
        demanded = [set(_names(branch.get("required"))) for branch in branches]
        own = set.union(*demanded) if all_hold else set.intersection(*demanded)
        required = _names(top.get("required"))
        required += [name for name in properties if name in own and name not in required]
        top["properties"] = properties
        if required:
            top["required"] = required

    def _node(self, value: Any, path: tuple[str, ...]) -> Any:
        """Writes a part of the schema; replaces a reference by its definition if the kind
        has none.

        path: the references that lead to this part, to detect a recursive one.
        """
        if not isinstance(value, dict):
            return value
        self._nodes += 1
        reference = value.get("$ref")
        if isinstance(reference, str) and not self._stays(reference):
            if reference in path or self._nodes > MOST_NODES:
                self.is_weaker = True  # the writer cannot replace a recursive reference
                return {"type": "object"}
            rest = {name: part for name, part in value.items() if name != "$ref"}
            return self._node({**self._pointed(reference), **rest}, (*path, reference))
        return self._members(value, path)

    def _members(self, schema: Json, path: tuple[str, ...]) -> Json:
        out: Json = {}
        for name, value in schema.items():
            if name in ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS):
                out[name] = {
                    key: self._node(part, path) for key, part in _object(value).items()
                }
            elif name in (*_ALTERNATIVES, "allOf", "prefixItems"):
                parts = value if isinstance(value, list) else []
                out[name] = [self._node(part, path) for part in parts]
            elif name in ("items", "additionalProperties", "not", "contains"):
                out[name] = self._node(value, path)
            else:
                out[name] = value
        return self._googles(out) if self._rule.is_google else out

    def _googles(self, schema: Json) -> Json:
        """Adapts a schema to Google, which supports no exclusive bounds, and an `enum` only
        with a single type.
        """
        self.is_weaker = self.is_weaker or not _GOOGLE_UNREAD.isdisjoint(schema)
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        bounds = [f"{words} {schema.pop(b)}" for b, words in _BOUNDS.items() if b in schema]
        if bounds:
            limits = f"It is {' and '.join(bounds)}."
            schema["description"] = f"{schema.get('description', '')} {limits}".strip()
        values = schema.get("enum")
        if isinstance(values, list) and values:
            kinds: dict[str, list[Any]] = {}
            for value in values:
                kinds.setdefault(_TYPES.get(type(value), "null"), []).append(value)
            choices: list[Json] = [
                {"type": kind, "enum": named} if kind in _ENUMERATED else {"type": kind}
                for kind, named in kinds.items()
            ]
            del schema["enum"]
            if len(choices) == 1:
                schema.update(choices[0])
            else:
                schema.pop("type", None)
                schema["anyOf"] = choices
        return schema

    def _stays(self, reference: str) -> bool:
        if not self._rule.keeps_definitions:
            return False
        return reference.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS))

    def _pointed(self, reference: str) -> Json:
        """Returns the part that a JSON pointer names; an object of any shape if it does not
        exist.
        """
        place: Any = self._whole
        for step in _steps(reference):
            if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
                place = place[int(step)]
            else:
                place = place.get(step) if isinstance(place, dict) else None
        if isinstance(place, dict):
            return place
        self.is_weaker = True
        return {"type": "object"}


def _steps(reference: str) -> Iterator[str]:
    for step in reference.removeprefix("#").split("/")[1:]:
        yield step.replace("~1", "/").replace("~0", "~")


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
