"""Suggests the nearest right name for a wrong one, for the end of an error message; says in our
own words what pydantic found wrong, for files, bodies, queries and tools' arguments alike.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

_Schema = Mapping[str, Any]  # a JSON schema

# What others call a key.
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
_UNKNOWN_WORD: Final = ("literal_error", "enum")


def did_you_mean(
    name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6
) -> str:
    """The end of an error message: `; did you mean 'x'?`, or `otherwise` if nothing is near.

    cutoff: how alike two names have to be, from 0 to 1.
    """
    nearest = find_nearest(name, known, cutoff=cutoff)
    return f"; did you mean {nearest!r}?" if nearest else otherwise


def find_nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Finds the name that is most like another one, in any case of letters, with or without a
    provider before a slash; empty where none is near.
    """
    spellings = {other.casefold(): other for other in known}
    spellings = {
        spelled.rpartition("/")[2]: spellings[spelled] for spelled in spellings
    } | spellings
    wanted = name.casefold()
    for spelled in (wanted, wanted.rpartition("/")[2]):
        if near := get_close_matches(spelled, spellings, n=1, cutoff=cutoff):
            return spellings[near[0]]
    return ""


def describe_fault(
    fault: Mapping[str, Any], path: Sequence[str | int], schema: _Schema, *, named: str = ""
) -> str:
    """The reason of a fault that pydantic reports, with the nearest right key or word.

    path: of the wrong value within `schema`. named: what an unknown key or word is called; a
    value that may be a secret is not repeated.
    """
    shown = f" {named!r}" if named else ""
    if fault["type"] in UNKNOWN_KEY:
        keys, unknown = _keys_beside(path, schema), str(path[-1]) if path else ""
        other = _OTHER_KEYS.get(unknown, unknown)
        return f"unknown key{shown}{_name_nearest(other if other in keys else unknown, keys)}"
    if fault["type"] in _UNKNOWN_WORD:
        words = re.findall("'([^']*)'", fault["ctx"]["expected"])
        return f"unknown word{shown}{_name_nearest(str(fault['input']), words)}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _name_nearest(name: str, known: Sequence[str]) -> str:
    listed = f"; known here: {', '.join(known)}" if known else ""
    return did_you_mean(name, known, otherwise=listed)


def _keys_beside(path: Sequence[str | int], schema: _Schema) -> list[str]:
    """The keys that may stand where the last part of `path` stands."""
    defs = schema.get("$defs", {})
    node: Any = schema
    for part in path[:-1]:
        node = _inside(_resolved(node, defs), part)
    return list(_resolved(node, defs).get("properties", {}))


def _resolved(node: Any, defs: _Schema) -> _Schema:
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _resolved(defs[str(node["$ref"]).rsplit("/", 1)[1]], defs)
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        found = _resolved(choice, defs)
        if found.get("type") in ("object", "array"):
            return found
    return node


def _inside(node: _Schema, part: str | int) -> Any:
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    others = node.get("additionalProperties")
    # pydantic adds the tried type of a union to the path, which is no key.
    return others if isinstance(others, dict) else node
