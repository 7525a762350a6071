"""Reads the end of a model from the headers of an answer. Pure.

`tests/world/ends` has the published examples that the forms come from. A header of another form
is malformed, and the caller counts it. `listed_ends` reads the end from a provider's list.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from harness.providers.models.model_ends import EndDates

DEPRECATION: Final = b"deprecation"
SUNSET: Final = b"sunset"
END_HEADERS: Final = frozenset({DEPRECATION, SUNSET})
_LONGEST: Final = 64
# A date of structured fields (RFC 9651, section 3.3.7), with optional parameters.
_FIELD_DATE: Final = re.compile(r"@(-?\d{1,12})(?:;[ -~]*)?", re.ASCII)
_TRUE: Final = "true"  # of the drafts before RFC 9745
# The three forms of RFC 9110, section 5.6.7. The weekday decides nothing: RFC 8594's own
# example has a wrong one.
_HTTP_DATES: Final = (
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %d %H:%M:%S %Y",
)


class HeaderDates(NamedTuple):
    """The dates in an answer's headers, and how many of its end headers are malformed."""

    dates: EndDates
    malformed: int


def parse_end_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderDates:
    """Parses `Deprecation` (RFC 9745 and its drafts) and `Sunset` (RFC 8594).

    Args:
        headers: pairs with names in lower case.

    A repeated header with different values is malformed.
    """
    values: dict[bytes, set[str]] = {}
    for name, value in headers:
        if name in END_HEADERS:
            values.setdefault(name, set()).add(value.decode("latin-1").strip())
    ends_on = None
    deprecated_on = None
    malformed = 0
    if SUNSET in values:
        ends_on = _parse_http_date(_get_only(values[SUNSET]))
        malformed += ends_on is None
    is_deprecated = False
    if DEPRECATION in values:
        text = _get_only(values[DEPRECATION])
        deprecated_on = _parse_field_date(text) or _parse_http_date(text)
        is_deprecated = deprecated_on is not None or text.lower() == _TRUE
        malformed += not is_deprecated
    return HeaderDates(EndDates(ends_on, deprecated_on, is_deprecated), malformed)


def _get_only(values: set[str]) -> str:
    """Returns the only value; empty for several values, and for a value that is too long."""
    value = values.pop() if len(values) == 1 else ""
    return value if len(value) <= _LONGEST else ""


def _parse_http_date(text: str) -> date | None:
    for form in _HTTP_DATES:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC).date()
    return None


def _parse_field_date(text: str) -> date | None:
    found = _FIELD_DATE.fullmatch(text)
    return parse_unix_s(int(found[1])) if found else None


def parse_unix_s(seconds: float) -> date | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).date()
    return None
