"""Checks and merges the request fields that a suite or an item sends beside its messages:
tools, tool choice, response format.
"""

from collections.abc import Mapping
from typing import Final

from evals.suites.items import Item
from harness.domain.errors import InputError

FIELDS: Final = ("tools", "tool_choice", "response_format")


def check_fields(given: Mapping[str, object], place: str) -> None:
    """Checks the fields that requests add. Raises InputError for a field that we do not send,
    or of another shape than the API's.
    """
    for name in given:
        if name not in FIELDS:
            raise InputError(f"{place}: unknown field {name!r}; it knows {', '.join(FIELDS)}")
    tools = given.get("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise InputError(
            f"{place}: tools must be a list of objects of the form "
            '{"type": "function", "function": {"name": "…", "parameters": {…}}}'
        )
    if not isinstance(given.get("tool_choice", ""), str | dict):
        raise InputError(f"{place}: tool_choice must be a text or an object")
    if not isinstance(given.get("response_format", {}), dict):
        raise InputError(f"{place}: response_format must be an object")


def _is_tool(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def merge_fields(suite: Mapping[str, object], item: Item) -> dict[str, object]:
    """Returns the suite's fields with the item's own over them. Raises InputError."""
    own = {name: item.metadata[name] for name in FIELDS if item.metadata.get(name) is not None}
    check_fields(own, f"item {item.id!r}: metadata")
    return {**suite, **own}
