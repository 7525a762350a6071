"""Decides whether a JSON schema meets the demands of `strict`, by vendor.

A client's schema with optional fields must not become strict: OpenAI refuses it. The
translations ask here, and leave `strict` out for a schema that does not meet the demands of its
target. `tool_schemas` writes schemas for targets that do not read all of JSON Schema.

Sources: https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Iterator, Mapping
from typing import Final

from harness.providers.models.capabilities import StrictSchema

# A deeper schema does not meet the demands.
MOST_LEVELS: Final = 32
# Keywords that no vendor takes in a strict schema.
_UNREAD: Final = frozenset(
    {
        "allOf",
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "maxProperties",
        "minContains",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
# What else OpenAI does not take.
_REFUSED: Final = frozenset({"contentEncoding", "contentMediaType", "default", "uniqueItems"})
# Bounds that Anthropic does not take.
_BOUNDS: Final = frozenset(
    {"maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf"}
    | {"maxItems", "maxLength", "minLength", "uniqueItems"}
)
# One of these tells a part's type.
_TYPES: Final = frozenset({"$ref", "anyOf", "const", "enum", "type"})
_DEFINITIONS: Final = ("$defs", "definitions")
Schema = Mapping[str, object]


def meets_strict(schema: object, demands: StrictSchema) -> bool:
    """Returns whether a schema can be strict.

    demands: the target's. Unknown demands are the highest ones.
    """
    if demands is StrictSchema.NONE:
        return False
    if demands is StrictSchema.ANY:
        return True
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return False
    return "anyOf" not in schema and _meets(schema, demands, MOST_LEVELS)


def _meets(schema: object, demands: StrictSchema, levels: int) -> bool:
    is_closed = demands is StrictSchema.CLOSED
    if not isinstance(schema, Mapping) or not levels or _TYPES.isdisjoint(schema):
        return False
    if not (_UNREAD | (_BOUNDS if is_closed else _REFUSED)).isdisjoint(schema):
        return False
    if not is_closed and not _has_openai_form(schema):
        return False
    if _is(schema, "object") or schema.get("properties") is not None:
        if schema.get("additionalProperties") is not False:
            return False
        required = schema.get("required")
        named = set(required) if isinstance(required, list) else set[object]()
        properties = schema.get("properties")
        given = set(properties) if isinstance(properties, Mapping) else set[object]()
        if not (is_closed or given == named):
            return False
    return all(_meets(part, demands, levels - 1) for part in _parts(schema))


def _is(schema: Schema, kind: str) -> bool:
    """Tells whether a value of the schema may be of a type."""
    types = schema.get("type")
    return kind in types if isinstance(types, list) else types == kind


def _has_openai_form(schema: Schema) -> bool:
    """Tells whether a reference stands alone, and each array says what its items are."""
    if "$ref" in schema and len(schema) > 1 and _DEFINITIONS[0] not in schema:
        return False
    return not _is(schema, "array") or isinstance(schema.get("items"), Mapping)


def _parts(schema: Schema) -> Iterator[object]:
    """Yields the schemas inside a schema. `true` and `false` are schemas, too."""
    for name in ("properties", *_DEFINITIONS):
        inner = schema.get(name)
        if isinstance(inner, Mapping):
            yield from inner.values()
    if "items" in schema:
        yield schema["items"]
    for name in ("anyOf", "prefixItems"):
        inner = schema.get(name)
        yield from inner if isinstance(inner, list) else ()
