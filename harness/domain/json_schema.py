"""Checks a JSON value against a JSON schema, in bounded time for any schema. Pure.

Types, required members, constants, and what stands in objects and lists. Patterns, formats and
references fit always: schemas come from clients, and a pattern can take for ever.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 32
_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


def matches_schema(schema: object, value: object, depth: int = 0) -> bool:
    """Whether the value fits; it does where there is no schema, or deeper than MAX_DEPTH."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return schema is not False
    kinds = schema.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    known = [_TYPES[each] for each in named if isinstance(each, str) and each in _TYPES]
    if known and not any(each(value) for each in known):
        return False
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(listed, list) and value not in listed:
        return False
    if isinstance(value, dict):
        return _members_fit(schema, value, depth)
    if isinstance(value, list) and "items" in schema:
        return all(matches_schema(schema["items"], each, depth + 1) for each in value)
    return True


def _members_fit(schema: Mapping[str, Any], value: Mapping[str, object], depth: int) -> bool:
    required = schema.get("required")
    if isinstance(required, list) and any(each not in value for each in required):
        return False
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    if schema.get("additionalProperties") is False and set(value) - set(known):
        return False
    return all(
        matches_schema(known[name], each, depth + 1)
        for name, each in value.items()
        if name in known
    )
