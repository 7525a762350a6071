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
from router.frame.body import iter_objects

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
        "not",
        "oneOf",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedProperties",
    }
)
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


def _meets(schema: Schema, demands: StrictSchema, levels: int) -> bool:
    is_closed = demands is StrictSchema.CLOSED
    if not levels or _TYPES.isdisjoint(schema):
        return False
    if not (_UNREAD | (_BOUNDS if is_closed else {"default"})).isdisjoint(schema):
        return False
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        if schema.get("additionalProperties") is not False:
            return False
        required = schema.get("required")
        named = set(required) if isinstance(required, list) else set[object]()
        given = set(properties) if isinstance(properties, Mapping) else set[object]()
        if not (is_closed or given <= named):
            return False
    return all(_meets(part, demands, levels - 1) for part in _parts(schema))


def _parts(schema: Schema) -> Iterator[Schema]:
    """Yields the schemas inside a schema."""
    for name in ("properties", *_DEFINITIONS):
        inner = schema.get(name)
        if isinstance(inner, Mapping):
            yield from (part for part in inner.values() if isinstance(part, Mapping))
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield items
    for name in ("anyOf", "prefixItems"):
        yield from iter_objects(schema.get(name))
