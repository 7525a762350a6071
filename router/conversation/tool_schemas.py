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
_ENUM_TYPES: Final = ("string", "integer", "number")
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
_BOUNDS: Final = {
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}


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


def write_schema(client_schema: Json, rule: SchemaRule) -> WrittenSchema:
    """Returns the client's schema as the kind accepts it: an object at the top.

    `is_weaker` is True if a constraint was lost; the router then tells the client.
    """
    writer = _Writer(client_schema, rule)
    schema = writer.root()
    return WrittenSchema(schema, writer.is_weaker)


class _Writer:
    """Writes one schema. is_weaker: a constraint was lost so far."""

    def __init__(self, whole: Json, rule: SchemaRule) -> None:
        self.is_weaker = False
        self._client_schema = whole
        self._rule = rule
        self._nodes = 0

    def root(self) -> Json:
        """Returns the schema with an object at the top, which merges the top's alternatives."""
        top = self._merge(self._client_schema, ())
        for name in _DEFINITIONS:
            definitions = top.pop(name, None)
            if self._rule.keeps_definitions and isinstance(definitions, dict):
                top[name] = {
                    key: self._write_node(value, ()) for key, value in definitions.items()
                }
        definitions_to_keep: Json = {
            name: top.pop(name) for name in _DEFINITIONS if name in top
        }
        written = self._write_members(top, ())
        return {
            **written,
            "type": "object",
            "properties": written.get("properties", {}),
            **definitions_to_keep,
        }

    def _merge(self, schema: Json, path: tuple[str, ...]) -> Json:
        top = dict(schema)
        reference = top.pop("$ref", None)
        parts = [(top.pop("allOf", None), True)]
        parts += [(top.pop(name, None), False) for name in _ALTERNATIVES]
        if isinstance(reference, str) and reference not in path:
            parts.append(([self._follow_pointer(reference)], True))
            path = (*path, reference)
        for alternatives, all_hold in parts:
            branches = [self._merge(branch, path) for branch in list_objects(alternatives)]
            if branches:
                self._join_branches(top, branches, all_hold=all_hold)
                self.is_weaker = self.is_weaker or not all_hold
        return top

    def _join_branches(
        self,
        top: Json,
        branches: list[Json],
        *,
        all_hold: bool,
    ) -> None:
        """Merges branches into `top`, in place.

        Args:
            all_hold: True for `allOf` and references: all their required members stay required.
                With alternatives, a member stays required only if every branch requires it.
        """
        properties: Json = dict(_read_object(top.get("properties")))
        for branch in branches:
            for name, value in _read_object(branch.get("properties")).items():
                earlier_value = properties.get(name, value)
                properties[name] = (
                    value if earlier_value == value else {"anyOf": [earlier_value, value]}
                )
            for name in _DEFINITIONS:
                if isinstance(branch.get(name), dict):
                    top[name] = {**branch[name], **_read_object(top.get(name))}
        required_by_branch = [set(_read_names(branch.get("required"))) for branch in branches]
        required_names = (
            set.union(*required_by_branch)
            if all_hold
            else set.intersection(*required_by_branch)
        )
        required = _read_names(top.get("required"))
        required += [
            name for name in properties if name in required_names and name not in required
        ]
        top["properties"] = properties
        if required:
            top["required"] = required

    def _write_node(self, value: Any, path: tuple[str, ...]) -> Any:
        """Writes a part of the schema. Replaces a reference if the kind has no references.

        Args:
            path: the references that lead to this part, to detect a recursive one.
        """
        if not isinstance(value, dict):
            return value
        self._nodes += 1
        reference = value.get("$ref")
        if isinstance(reference, str) and not self._keeps_reference(reference):
            if reference in path or self._nodes > MOST_NODES:
                self.is_weaker = True  # the writer cannot replace a recursive reference
                return {"type": "object"}
            other_members = {name: part for name, part in value.items() if name != "$ref"}
            return self._write_node(
                {**self._follow_pointer(reference), **other_members}, (*path, reference)
            )
        return self._write_members(value, path)

    def _write_members(self, schema: Json, path: tuple[str, ...]) -> Json:
        out: Json = {}
        for name, value in schema.items():
            if name in (
                "properties",
                "patternProperties",
                "dependentSchemas",
                *_DEFINITIONS,
            ):
                out[name] = {
                    key: self._write_node(part, path)
                    for key, part in _read_object(value).items()
                }
            elif name in (*_ALTERNATIVES, "allOf", "prefixItems"):
                parts = value if isinstance(value, list) else []
                out[name] = [self._write_node(part, path) for part in parts]
            elif name in (
                "items",
                "additionalProperties",
                "not",
                "contains",
            ):
                out[name] = self._write_node(value, path)
            else:
                out[name] = value
        return self._adapt_to_google(out) if self._rule.is_google else out

    def _adapt_to_google(self, schema: Json) -> Json:
        """Adapts a schema to Google.

        Google supports no exclusive bounds, and an `enum` only with a single type.
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
                {"type": kind, "enum": enum_values} if kind in _ENUM_TYPES else {"type": kind}
                for kind, enum_values in kinds.items()
            ]
            del schema["enum"]
            if len(choices) == 1:
                schema.update(choices[0])
            else:
                schema.pop("type", None)
                schema["anyOf"] = choices
        return schema

    def _keeps_reference(self, reference: str) -> bool:
        if not self._rule.keeps_definitions:
            return False
        return reference.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS))

    def _follow_pointer(self, reference: str) -> Json:
        """Returns the part that a JSON pointer names; if it does not exist, an open object."""
        part: Any = self._client_schema
        for step in _iter_steps(reference):
            if isinstance(part, list) and step.isdecimal() and int(step) < len(part):
                part = part[int(step)]
            else:
                part = part.get(step) if isinstance(part, dict) else None
        if isinstance(part, dict):
            return part
        self.is_weaker = True
        return {"type": "object"}


def _iter_steps(reference: str) -> Iterator[str]:
    for step in reference.removeprefix("#").split("/")[1:]:
        yield step.replace("~1", "/").replace("~0", "~")


def _read_names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _read_object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
