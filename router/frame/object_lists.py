"""Reads lists of objects out of requests and answers, however malformed they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject


def first_object(members: ParsedObject, name: str) -> Mapping[object, object]:
    """Returns the first object of a list. Raises UpstreamFailed where there is none."""
    member = members.get(name)
    if not isinstance(member, list) or not member or not isinstance(member[0], dict):
        what = "an error" if "error" in members else f"no {name}"
        raise UpstreamFailed(FailureClass.MALFORMED, f"status 200 with {what}")
    return member[0]


def empty_answer_error(reason: str) -> UpstreamFailed:
    return UpstreamFailed(
        FailureClass.MALFORMED, f"status 200 without content and without a {reason}"
    )


def iter_objects(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def list_objects(value: object) -> list[dict[str, Any]]:
    """Lists the objects in a list, to be changed in place; none for any other value."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
