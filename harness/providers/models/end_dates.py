"""Reads the end of a model from a provider's list and from the headers of an answer. Pure.

`tests/world/ends` has the published examples that the forms come from. A value of another form
is no date. A header of another form is malformed, and the caller counts it.
"""

import re
from collections.abc import Iterable, Mapping
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
# Unix times of lists, from 2001 to 2100. Other numbers are not times in seconds.
_LEAST_UNIX_S: Final = 1_000_000_000
_MOST_UNIX_S: Final = 4_102_444_800
# OpenRouter's list, and the lists that OpenRouter reads.
_END_FIELDS: Final = ("expiration_date", "deprecation_date")
_LISTED_END_FIELDS: Final = frozenset({*_END_FIELDS, "deprecation", "modelLifecycle"})
_DEPRECATED_STATES: Final = frozenset({"deprecated", "deprecating", "legacy"})


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


def parse_listed_end(entry: Mapping[str, object]) -> EndDates:
    """Parses the end in an entry of a provider's or gateway's list, in the form of OpenRouter,
    Mistral, Azure, Bedrock or Cohere. The earliest of several ends counts.
    """
    ends = [_parse_day(entry.get(field)) for field in _END_FIELDS]
    deprecation = entry.get("deprecation")
    if isinstance(deprecation, Mapping):
        deprecation = deprecation.get("inference")  # Azure
    ends.append(_parse_day(deprecation))
    lifecycle = entry.get("modelLifecycle")  # Bedrock
    deprecated_on = None
    states = [entry.get("lifecycle_status"), entry.get("lifecycleStatus")]
    if isinstance(lifecycle, Mapping):
        ends.append(_parse_day(lifecycle.get("endOfLifeTime")))
        deprecated_on = _parse_day(lifecycle.get("legacyTime"))
        states.append(lifecycle.get("status"))
    is_deprecated = entry.get("is_deprecated") is True or any(
        isinstance(state, str) and state.lower() in _DEPRECATED_STATES for state in states
    )
    ends_on = min((day for day in ends if day is not None), default=None)
    return EndDates(ends_on, deprecated_on, is_deprecated or deprecated_on is not None)


def tells_end(entry: Mapping[str, object]) -> bool:
    """Tells whether an entry has a field for an end, also an empty one."""
    return not _LISTED_END_FIELDS.isdisjoint(entry)


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
    return _parse_unix_s(int(found[1])) if found else None


def _parse_unix_s(seconds: float) -> date | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).date()
    return None


def _parse_day(value: object) -> date | None:
    """Parses a Unix time in seconds, or a day or time in ISO 8601; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _parse_unix_s(value) if _LEAST_UNIX_S <= value < _MOST_UNIX_S else None
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(value.strip())
        return (time.astimezone(UTC) if time.tzinfo is not None else time).date()
    return None
