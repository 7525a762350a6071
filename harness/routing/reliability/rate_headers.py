"""Reads a provider's rate limits from an answer's headers. Pure.

Each header has the form of one family of providers; a header that is missing, negative or not a
number is unknown. `tests/world/rates` has the published headers that the forms come from.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class RateKind(StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"


_R: Final = RateKind.REQUESTS
_T: Final = RateKind.TOKENS
# `{}` stands for `remaining`, `limit` and `reset`.
_FORMS: Final = (
    (_R, "x-ratelimit-{}-requests"),  # OpenAI, Azure, Groq
    (_T, "x-ratelimit-{}-tokens"),
    (_R, "anthropic-ratelimit-requests-{}"),
    (_T, "anthropic-ratelimit-tokens-{}"),
    (_T, "anthropic-ratelimit-input-tokens-{}"),
    (_T, "anthropic-ratelimit-output-tokens-{}"),
    (_R, "x-ratelimit-{}-req-minute"),  # Mistral
    (_T, "x-ratelimit-{}-tokens-minute"),  # Mistral, Cerebras
    (_T, "x-ratelimit-{}-tokens-per-minute"),  # DigitalOcean
    (_R, "x-ratelimit-{}"),  # OpenRouter
    (_R, "ratelimit-{}"),  # the first drafts of the IETF's standard
)
_HEADER_NAMES: Final = tuple(
    (kind, form.format("remaining"), form.format("limit"), form.format("reset"))
    for kind, form in _FORMS
)
# Stricter than float(), which accepts "1_0", "infinity" and digits of any script.
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{0,20})?", re.ASCII)
_LONGEST: Final = 64
# Units of a duration in Go's notation, in seconds.
_UNIT_SECONDS: Final[Mapping[str, float]] = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}
_SPAN_PART: Final = re.compile(r"(\d+\.?\d*)(ms|h|m|s)", re.ASCII)
_SPAN: Final = re.compile(rf"({_SPAN_PART.pattern})+", re.ASCII)
# A larger number of seconds is a Unix time, in seconds or in milliseconds.
_LEAST_UNIX_S: Final = 1e9
_LEAST_UNIX_MS: Final = 1e12


@dataclass(frozen=True, slots=True)
class RateReading:
    """The rest of one rate limit, as an answer's headers report it."""

    kind: RateKind
    remaining: float
    limit: float | None = None  # None if unknown
    reset_s: float | None = None  # seconds until the limit is renewed; None if unknown


def read_rates(headers: Mapping[str, str], now: datetime) -> tuple[RateReading, ...]:
    """Reads the headers of an answer. If a kind has several limits, returns the limit with the
    least rest.

    Args:
        headers: look-up ignores case, or names are lower case.
        now: aware.
    """
    readings: dict[RateKind, RateReading] = {}
    for kind, remaining_name, limit_name, reset_name in _HEADER_NAMES:
        remaining = _parse_number(headers.get(remaining_name, ""))
        if remaining is None or (kind in readings and readings[kind].remaining <= remaining):
            continue
        limit = _parse_number(headers.get(limit_name, "")) or None
        reset_s = _parse_reset_s(headers.get(reset_name, "").strip(), now)
        readings[kind] = RateReading(kind, remaining, limit, reset_s)
    return tuple(readings.values())


def used_up_for_s(headers: Mapping[str, str], now: datetime) -> float:
    """Returns the seconds until a used-up rate is renewed; 0 if the headers report no used-up
    rate.

    Args:
        headers: as for `read_rates`.
        now: as for `read_rates`.
    """
    rates = read_rates(headers, now)
    return max((rate.reset_s or 0.0 for rate in rates if not rate.remaining), default=0.0)


def is_used_up(headers: Mapping[str, str]) -> bool:
    """Tells whether the headers report that no request, or no token, remains.

    Args:
        headers: as for `read_rates`.
    """
    return any(
        _parse_number(headers.get(remaining, "")) == 0 for _, remaining, *_ in _HEADER_NAMES
    )


def _parse_number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_reset_s(text: str, now: datetime) -> float | None:
    """Parses a duration in Go's notation such as `1m0.5s`, seconds, a Unix time, or a time in
    ISO 8601 with its zone; None for any other text.
    """
    if not text or len(text) > _LONGEST:
        return None
    if _SPAN.fullmatch(text):
        return sum(
            float(number) * _UNIT_SECONDS[unit] for number, unit in _SPAN_PART.findall(text)
        )
    number = _parse_number(text)
    if number is not None:
        if number < _LEAST_UNIX_S:
            return number
        unix_s = number / 1000 if number >= _LEAST_UNIX_MS else number
        return max(0.0, unix_s - now.timestamp())
    with suppress(ValueError, OverflowError):
        reset_at = datetime.fromisoformat(text)
        # Without its zone, the time is unknown.
        return (
            max(0.0, (reset_at - now).total_seconds()) if reset_at.tzinfo is not None else None
        )
    return None
