"""Builds the headers by which clients learn when the model that serves a route ends. Pure.

`compiler` adds them to a route's headers, so no request computes them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Final

from harness.providers.models.end_dates import DEPRECATION, SUNSET
from harness.providers.models.model_ends import EndStatement, find_end
from router.frame.replies import Header

Statements = Mapping[str, Sequence[EndStatement]]  # by the target's id
NO_ENDS: Final[Statements] = {}


def build_end_headers(statements: Sequence[EndStatement]) -> tuple[Header, ...]:
    """Builds `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) from what sources state about one
    model; empty without a stated day.

    Without a stated deprecation, the model counts as deprecated from its end on: a sunset never
    precedes the deprecation.
    """
    end = find_end(statements)
    days = [
        statement.dates.deprecated_on
        for statement in statements
        if statement.dates.deprecated_on is not None and not statement.is_withdrawn
    ]
    if end is not None:
        days.append(end.day)
    if not days:
        return ()
    deprecation = f"@{int(_begin_of(min(days)).timestamp())}".encode()
    if end is None:
        return ((DEPRECATION, deprecation),)
    sunset = format_datetime(_begin_of(end.day), usegmt=True).encode()
    return (DEPRECATION, deprecation), (SUNSET, sunset)


def _begin_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
