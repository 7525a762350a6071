"""Writes domain objects as JSON answers (`JsonAnswer`), small lists as one page, and errors in
one shape (`problem`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from starlette.responses import Response

from harness.control.serialize import write_json
from harness.domain.pagination import Page

T = TypeVar("T")


def json_answer(everything: Sequence[T]) -> Page[T]:
    """A list that is small by nature, as one page."""
    return Page(everything, len(everything))


def extend(kind: type[T], found: Any, **more: Any) -> T:
    """Makes an answer of `found` and what the API adds to it. kind: a dataclass; its fields are
    attributes of `found`, or are in `more`.
    """
    names = {field.name for field in fields(kind)} - more.keys()  # type: ignore[arg-type]
    return kind(**{name: getattr(found, name) for name in names}, **more)


class JsonAnswer(Response):
    """Answers with the JSON of a domain object. A figure that is not finite becomes null: JSON
    has no word.
    """

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return write_json(content).encode()


def problem(
    status: int,
    kind: str,
    message: str,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> JsonAnswer:
    """Builds an error's answer, in the one shape that all errors have. kind: the class in
    harness.domain.errors, where one exists.
    """
    body = {"error": {"type": kind, "message": message, "retryable": retryable}}
    return JsonAnswer(body, status_code=status, headers=dict(headers or {}))
