"""Suggests the nearest valid name for a wrong name in error messages, and translates pydantic's
faults into our words for files, bodies, queries and tool arguments.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

_Schema = Mapping[str, Any]  # a JSON schema

# Names that other products use for our keys.
_OTHER_KEYS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("dashboard", "frontend", "web"), "ui"),
    **dict.fromkeys(("model", "primary"), "incumbent"),
    **dict.fromkeys(("database", "db"), "database_url"),
    "gateway": "router",
    "proxy": "router",
    "base_url": "api_base",
    "type": "kind",
}
UNKNOWN_KEY: Final = ("extra_forbidden", "unexpected_keyword_argument")
_UNKNOWN_WORD: Final = ("literal_error", "enum", "union_tag_invalid")
_LIST: Final = "a list is needed"
_MAPPING: Final = "a mapping of keys to values is needed"
_WHOLE: Final = "a whole number is needed"
_TIME: Final = "a time is needed, like 2026-11-27T09:00:00Z"
_DATE: Final = "a date is needed, like 2026-11-27"
# Texts by pydantic's fault type; braces contain the names of values in the fault's `ctx`.
_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "union_tag_not_found": "needs {discriminator}",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), _LIST),
    "set_item_not_hashable": "must not be a list or a mapping",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _MAPPING),
    **dict.fromkeys(("dataclass_type", "dataclass_exact_type"), _MAPPING),
    "string_type": "a text is needed",
    "string_unicode": "is not a valid text",
    "string_not_ascii": "must contain only ASCII characters",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is needed"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size"), _WHOLE),
    "int_from_float": _WHOLE,
    **dict.fromkeys(("float_type", "float_parsing"), "a number is needed"),
    "finite_number": "a finite number is needed",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_object_invalid"),
        _TIME,
    ),
    "datetime_from_date_parsing": _TIME,
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), _DATE),
    "date_from_datetime_inexact": _DATE,
    **dict.fromkeys(("datetime_past", "date_past"), "must lie in the past"),
    **dict.fromkeys(("datetime_future", "date_future"), "must lie in the future"),
    "timezone_aware": "needs a time zone, like 2026-11-27T09:00:00Z",
    "none_required": "must be empty",
    "invalid_key": "a key must be a text",
    "is_instance_of": "is no {class}",
    "json_invalid": "is not valid JSON: {error}",
}


def did_you_mean(
    name: str,
    names: Iterable[str],
    *,
    otherwise: str = "",
    cutoff: float = 0.6,
    meant: str = "",
) -> str:
    """Returns the end of an error message: `; did you mean 'x'?`, or `otherwise`. Never
    suggests `name` itself.

    Args:
        otherwise: the end if no name is near.
        cutoff: the required similarity, from 0 to 1.
        meant: our name for `name`, if `name` is another product's; empty to look for the
            nearest.
    """
    nearest = meant or find_nearest(name, names, cutoff=cutoff)
    return f"; did you mean {nearest!r}?" if nearest else otherwise


def find_nearest(
    name: str,
    names: Iterable[str],
    *,
    cutoff: float = 0.6,
) -> str:
    """Finds the most similar other name. Ignores case and a provider before a slash. Returns an
    empty text if no known name is near.
    """
    # The caller may refuse a known name, such as an alias without its route. To suggest the
    # same name would not help.
    spellings = {other.casefold(): other for other in names if other != name}
    spellings = {
        spelled.rpartition("/")[2]: spellings[spelled] for spelled in spellings
    } | spellings
    folded_name = name.casefold()
    for spelled in (folded_name, folded_name.rpartition("/")[2]):
        if matches := get_close_matches(
            spelled,
            spellings,
            n=1,
            cutoff=cutoff,
        ):
            return spellings[matches[0]]
    return ""


def find_fault_path(fault: Mapping[str, Any], value: Any) -> tuple[str | int, ...]:
    """Returns the place of a pydantic fault in `value`, without the types that pydantic tried
    for a union.
    """
    path: list[str | int] = []
    for number, part in enumerate(fault["loc"], start=1):
        try:
            value = value[part]
        except (LookupError, TypeError):
            if fault["type"] != "missing" or number < len(fault["loc"]):
                continue
        path.append(part)
    return tuple(path)


def describe_fault(
    fault: Mapping[str, Any],
    path: Sequence[str | int],
    schema: _Schema,
    *,
    named: str = "",
) -> str:
    """Describes a fault that pydantic reports, with the nearest valid key or word.

    Args:
        path: the wrong value's place within `schema`.
        named: the unknown key or word to show; empty if it may be a secret.
    """
    shown_name = f" {named!r}" if named else ""
    if fault["type"] in UNKNOWN_KEY:
        keys = _list_valid_keys(path, schema)
        unknown = str(path[-1]) if path else ""
        our_name = _OTHER_KEYS.get(unknown, "")
        meant = our_name if our_name in keys else ""
        return f"unknown key{shown_name}{_name_nearest(unknown, keys, meant=meant)}"
    if fault["type"] in _UNKNOWN_WORD:
        ctx = fault["ctx"]
        words = re.findall("'([^']*)'", ctx.get("expected") or ctx["expected_tags"])
        union = f" of {ctx['discriminator']}" if "discriminator" in ctx else ""
        word = str(ctx.get("tag", fault["input"]))
        return f"unknown word{union or shown_name}{_name_nearest(word, words)}"
    if text := _WORDS.get(fault["type"]):
        return text.format(**fault.get("ctx", {}))
    return str(fault["msg"]).removeprefix("Value error, ")


def _name_nearest(
    name: str,
    names: Sequence[str],
    *,
    meant: str = "",
) -> str:
    known_names = f"; known here: {', '.join(names)}" if names else ""
    return did_you_mean(
        name,
        names,
        otherwise=known_names,
        meant=meant,
    )


def _list_valid_keys(path: Sequence[str | int], schema: _Schema) -> list[str]:
    """Lists the valid keys in the place of the last part of `path`."""
    defs = schema.get("$defs", {})
    node: Any = schema
    for part in path[:-1]:
        node = _find_child_schema(_resolve_schema(node, defs), part)
    return list(_resolve_schema(node, defs).get("properties", {}))


def _resolve_schema(node: Any, defs: _Schema) -> _Schema:
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _resolve_schema(defs[str(node["$ref"]).rsplit("/", 1)[1]], defs)
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        resolved = _resolve_schema(choice, defs)
        if resolved.get("type") in ("object", "array"):
            return resolved
    return node


def _find_child_schema(node: _Schema, part: str | int) -> Any:
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    additional = node.get("additionalProperties")
    # For a union, pydantic adds the tried type to the path. This part is no key.
    return additional if isinstance(additional, dict) else node
