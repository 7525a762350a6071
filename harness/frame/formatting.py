"""Formats numbers for people, in the same way everywhere.

Formats never use scientific notation. An unknown number is `unknown` or a dash, never 0.
tests/unit/number_formats.txt has examples.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar

T = TypeVar("T")
MINUS: Final = "−"
UNKNOWN: Final = "unknown"
# For the cost of answers that came before their model had a price. The price may be known by
# now, so "unknown" would contradict it.
NOT_RECORDED: Final = "not recorded"
DASH: Final = "–"

# If one answer costs less, we show the price of 1,000 answers.
SMALL_USD: Final = 0.01
HUGE: Final = 1e15

# A spreadsheet may also treat the full-width East Asian forms as the start of a formula.
FORMULA_STARTS: Final = (
    "=",
    "+",
    "-",
    "@",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)

# All control characters except tab and line feed.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# These characters change the text direction. In a name, they would rearrange its whole line.
_DIRECTIONS: Final = re.compile(r"[\u202a-\u202e\u2066-\u2069]")

# Blank or invisible characters that Unicode classifies as letters, marks or symbols.
INVISIBLE_CHARACTERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5\u034f\u2800")
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400

_ROUND_UNITS: Final = (
    (_DAY_S, "days"),
    (_HOUR_S, "h"),
    (_MINUTE_S, "min"),
)


def format_number(value: float, digits: int = 3) -> str:
    """Formats a number with `digits` significant digits; a huge number is `more than …`."""
    if abs(value) > HUGE:
        return f"more than {HUGE:,.0f}"
    rounded = float(f"{value:.{digits}g}")
    if not rounded:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_count(number: float) -> str:
    """Formats a number of things: `12,300`."""
    return f"{number:,.0f}"


def format_rate(per_hour: float) -> str:
    """Formats a number per hour: `12,345`; below 100 with decimals: `2.35`."""
    return format_count(per_hour) if per_hour >= 100 else format_number(per_hour)


def format_quantity(
    number: int,
    one: str,
    many: str = "",
) -> str:
    """Formats a number with its noun: `1 suite`, `2 replies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def format_signed(value: float, digits: int = 1) -> str:
    """Formats a number with its sign: a real minus, and no sign if it rounds to zero."""
    text = f"{abs(value):,.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def format_points(share: float | None, missing: str = UNKNOWN) -> str:
    """Formats a difference of two shares in percentage points, signed: `+2.6`."""
    return missing if share is None else format_signed(share * 100)


def format_points_interval(
    low: float | None,
    high: float | None,
    missing: str = DASH,
) -> str:
    """Formats an interval of a difference of shares.

    Args:
        missing: the text if an end is unknown.
    """
    if low is None or high is None:
        return missing
    return f"{format_points(low)} to {format_points(high)}"


def format_score(
    score: float | None,
    digits: int | None = 1,
    missing: str = UNKNOWN,
) -> str:
    """Formats a score from 0 to 1, or the size of a difference of two scores, on the scale of
    100.

    Args:
        digits: places after the point; None for all of them.
    """
    if score is None:
        return missing
    return format_number(score * 100, 6) if digits is None else f"{score * 100:.{digits}f}"


def format_percent(
    share: float | None,
    digits: int | None = None,
    missing: str = UNKNOWN,
    *,
    significant: int = 3,
) -> str:
    """Formats a share from 0 to 1 as a percentage.

    Args:
        digits: places after the point.
    """
    if share is None:
        return missing
    number = (
        format_number(share * 100, significant)
        if digits is None
        else f"{share * 100:.{digits}f}"
    )
    return f"{number} %".replace("-", MINUS)


def format_harm(distance_to_trip: float) -> str:
    """Formats the evidence of harm: `66 % of the rollback level`."""
    return f"{format_percent(distance_to_trip, 0)} of the rollback level"


def format_relative_change(before: float, after: float) -> str:
    """Formats a relative change: `−60 %`."""
    return f"{format_signed((after / before - 1) * 100, 0)} %"


def format_bps(bps: float) -> str:
    """Formats a share of traffic in basis points as a percentage: `0.5 %`."""
    return f"{bps / 100:g} %"


def format_usd(amount: float | None, missing: str = UNKNOWN) -> str:
    """Formats US dollars: two significant digits below ten cents, no cents from $10,000 on."""
    if amount is None:
        return missing
    if 0 < amount < 0.1:
        return f"${amount:.2g}" if amount >= 0.0001 else "under $0.0001"
    return f"${amount:,.2f}" if amount < 10_000 else f"${amount:,.0f}"


def format_spent_usd(
    amount: float,
    unpriced: int,
    bounded: int = 0,
) -> str:
    """Formats spending.

    Args:
        unpriced: the number of calls without a price; `amount` omits them.
        bounded: the number of calls whose cost in `amount` is a lower bound.
    """
    if not (unpriced or bounded):
        return format_usd(amount)
    return f"at least {format_usd(amount)}" if amount else UNKNOWN


def format_month_usd(usd: float | None, missing: str = UNKNOWN) -> str:
    """Formats an estimated monthly cost: three significant digits, no cents from $10 on."""
    if usd is None or usd < 10:
        return format_usd(usd, missing)
    digits = max(0, math.floor(math.log10(usd)) - 2)
    return f"${round(usd, -digits):,.0f}"


def format_thousand_price(usd: float | None, missing: str = UNKNOWN) -> str:
    """Formats the price of 1,000 answers: below a dollar with three significant digits, so that
    the ends of an interval differ.
    """
    if usd is None or usd >= 1 or usd < 0.0001:
        return format_usd(usd, missing)
    digits = format_number(usd)
    return f"${digits}" if len(digits) > len("0.50") else f"${usd:.2f}"


def format_answer_price(usd: float, beside: float | None = None) -> str:
    """Formats the price of one answer, or of 1,000 answers if both prices are small.

    Args:
        usd: of one answer.
        beside: the price next to it, with which people compare it.
    """
    if max(usd, beside or 0.0) >= SMALL_USD:
        return f"${format_number(usd)}"
    return f"${format_number(usd * 1000)} per 1,000 answers"


def format_price_pair(candidate: float, incumbent: float) -> str:
    """Formats two prices per answer, or per 1,000 answers if both are small."""
    if max(candidate, incumbent) >= SMALL_USD:
        return f"${format_number(candidate)} against ${format_number(incumbent)}"
    by_thousand = (
        format_number(candidate * 1000),
        format_number(incumbent * 1000),
    )
    return f"${by_thousand[0]} against ${by_thousand[1]} per 1,000 answers"


def format_latency(seconds: float | None, missing: str = UNKNOWN) -> str:
    """Formats the latency of an answer in seconds: `0.71 s`, `12.4 s`."""
    if seconds is None:
        return missing
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.1f} s"


def format_milliseconds(ms: float) -> str:
    """Formats a short time that readers compare: `1,234 ms`."""
    return f"{ms:,.0f} ms"


def format_range(
    ends: tuple[float, float] | None,
    write: Callable[[float | None], str],
    missing: str = UNKNOWN,
) -> str:
    """Formats an interval, each end with `write`: `0.50 s to 12.4 s`."""
    if ends is None:
        return missing
    low = write(ends[0])
    high = write(ends[1])
    return f"{_pad_fraction(low, high)} to {_pad_fraction(high, low)}"


def _pad_fraction(amount: str, other: str) -> str:
    """Pads an amount below a dollar to as many decimals as `other`."""
    if not amount.startswith("$0.") or not other.startswith("$0."):
        return amount
    return amount.ljust(len(other), "0")


def format_span(seconds: float) -> str:
    """Formats a length of time in its two largest units: `2 h 5 min`."""
    whole_s = max(0, int(seconds))
    if whole_s < _MINUTE_S:
        return f"{whole_s} s"
    if whole_s < _HOUR_S:
        return f"{whole_s // _MINUTE_S} min"
    if whole_s < _DAY_S:
        hours, minutes = divmod(whole_s // _MINUTE_S, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(whole_s // _HOUR_S, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_estimate(seconds: float) -> str:
    """Formats an estimated length of time with two digits: `3.5 h`."""
    for length, unit in _ROUND_UNITS:
        if seconds >= 2 * length or (length == _MINUTE_S and seconds >= length):
            value = seconds / length
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    return f"{math.ceil(seconds)} s"


def format_age(then: datetime, now: datetime) -> str:
    """Formats the time since `then` in its largest unit: `12 min ago`."""
    past_s = (now - then).total_seconds()
    if past_s < 10:
        return "just now"
    number, unit, *_ = format_span(past_s).split(" ")
    return f"{number} {unit} ago"


def escape_formula(value: T) -> T | str:
    """Quotes a text that a spreadsheet would run as a formula in a CSV cell (OWASP, "CSV
    injection").
    """
    if isinstance(value, str) and value.lstrip().startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def format_date(day: date) -> str:
    """Formats a day: `2 Nov 2026`."""
    return day.strftime("%d %b %Y").removeprefix("0")


def format_date_time(at: datetime) -> str:
    """Formats a time to the minute: `2 Nov 2026 05:41 UTC`."""
    return at.astimezone(UTC).strftime("%d %b %Y %H:%M UTC").removeprefix("0")


def format_timestamp(at: datetime) -> str:
    """Formats a time in UTC to the second: `2026-11-02 05:41:07`."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def escape_controls(text: str) -> str:
    """Replaces control characters, so that a terminal shows the text and does not obey it."""
    return escape_directions(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text))


def escape_directions(text: str) -> str:
    """Replaces direction controls, so that they cannot reverse the text that follows."""
    return _DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", text)


def format_excerpt(text: str, characters: int) -> str:
    """Returns the beginning of a text, in one line: `one two…`."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def format_bytes(size: int) -> str:
    """Formats a size in bytes: `200 KiB`, `1.4 MiB`."""
    if size < 1024:
        return f"{size} B"
    if size < 1024 * 1024:
        return f"{format_number(size / 1024, 3)} KiB"
    return f"{format_number(size / (1024 * 1024), 2)} MiB"


# One day before the calendar's end, so that adding a time zone's offset does not overflow.
NEVER: Final = datetime(9999, 12, 30, tzinfo=UTC)


def add_seconds(at: datetime, seconds: float) -> datetime:
    """Returns the time `seconds` after `at`, at most NEVER."""
    try:
        return min(at + timedelta(seconds=seconds), NEVER)
    except OverflowError:
        return NEVER
