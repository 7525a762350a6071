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
# Keywords that no vendor accepts in a strict schema.
_UNSUPPORTED: Final = frozenset(
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
# More keywords that OpenAI does not accept.
_OPENAI_UNSUPPORTED: Final = frozenset(
    {"contentEncoding", "contentMediaType", "default", "uniqueItems"}
)
# Bounds that Anthropic does not accept.
_ANTHROPIC_UNSUPPORTED: Final = frozenset(
    {"maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf"}
    | {"maxItems", "maxLength", "minLength", "uniqueItems"}
)
# Keywords that show a part's type. Every part needs one.
_TYPE_KEYWORDS: Final = frozenset({"$ref", "anyOf", "const", "enum", "type"})
_DEFINITIONS: Final = ("$defs", "definitions")
Schema = Mapping[str, object]


def meets_strict(schema: object, demands: StrictSchema) -> bool:
    """Returns whether a schema can be strict.

    Args:
        demands: the target's. Unknown demands are the highest ones.
    """
    if demands is StrictSchema.NONE:
        return False
    if demands is StrictSchema.ANY:
        return True
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return False
    return "anyOf" not in schema and _meets_demands(schema, demands, MOST_LEVELS)


def _meets_demands(schema: object, demands: StrictSchema, levels: int) -> bool:
    is_closed = demands is StrictSchema.CLOSED
    if not isinstance(schema, Mapping) or not levels or _TYPE_KEYWORDS.isdisjoint(schema):
        return False
    if not (
        _UNSUPPORTED | (_ANTHROPIC_UNSUPPORTED if is_closed else _OPENAI_UNSUPPORTED)
    ).isdisjoint(schema):
        return False
    if not is_closed and not _has_openai_form(schema):
        return False
    if _may_be(schema, "object") or schema.get("properties") is not None:
        if schema.get("additionalProperties") is not False:
            return False
        required = schema.get("required")
        required_names = set(required) if isinstance(required, list) else set[object]()
        properties = schema.get("properties")
        property_names = set(properties) if isinstance(properties, Mapping) else set[object]()
        if not (is_closed or property_names == required_names):
            return False
    return all(_meets_demands(part, demands, levels - 1) for part in _iter_parts(schema))


def _may_be(schema: Schema, kind: str) -> bool:
    """Returns whether a value of the schema may be of the type `kind`."""
    types = schema.get("type")
    return kind in types if isinstance(types, list) else types == kind


def _has_openai_form(schema: Schema) -> bool:
    """Returns whether a reference has no other keyword beside it, and an array has `items`."""
    if "$ref" in schema and len(schema) > 1 and _DEFINITIONS[0] not in schema:
        return False
    return not _may_be(schema, "array") or isinstance(schema.get("items"), Mapping)


def _iter_parts(schema: Schema) -> Iterator[object]:
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
