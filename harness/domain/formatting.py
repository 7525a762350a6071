"""Figures as people read them: numbers, money, shares, and spans of time.

The gate, the command line, the reports and the dashboard write figures with these functions, so
that one figure looks the same wherever it is read. Scientific notation is never used, and an
unknown figure is `unknown`, never 0.
"""

import math
import re
from datetime import datetime
from typing import Final

MINUS: Final = "−"
UNKNOWN: Final = "unknown"
# Below it the price of one answer tells a reader nothing, and the price of a thousand does.
SMALL_USD: Final = 0.01
HUGE: Final = 1e15
_EXPONENT: Final = r"\d(?:\.\d+)?e[+-]\d+"
_PRICES: Final = re.compile(r"\$([\d.]+(?:e[+-]\d+)?) against \$([\d.]+(?:e[+-]\d+)?)")
_SCIENTIFIC: Final = re.compile(rf"(?<![\w.]){_EXPONENT}(?![\w.]*\d)")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_ROUND_UNITS: Final = ((_DAY_S, "days"), (_HOUR_S, "h"), (_MINUTE_S, "min"))


def format_number(value: float, digits: int = 3) -> str:
    """So many significant digits: `0.0000111`, `2.5`, `12,300`; `more than 1,000,…` if huge."""
    if abs(value) > HUGE:
        return f"more than {HUGE:,.0f}"
    rounded = float(f"{value:.{digits}g}")
    if not rounded:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_count(number: float) -> str:
    """A number of things, with separators: `12,300`."""
    return f"{number:,.0f}"


def format_quantity(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 suite`, `4 suites`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def format_signed(value: float, digits: int = 1) -> str:
    """`+2.6`, `−0.4`, `0.0`: a real minus sign, and no sign on what rounds to nothing."""
    text = f"{abs(value):,.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def format_points(share: float | None, missing: str = UNKNOWN) -> str:
    """A difference of two shares in points of a hundred, signed: `+2.6`."""
    return missing if share is None else format_signed(share * 100)


def format_percent(
    share: float | None, digits: int | None = None, missing: str = UNKNOWN
) -> str:
    """A share of 1 as a percentage: `12.3 %`. digits: places after the point, by
    default as many as three significant digits need.
    """
    if share is None:
        return missing
    percent = share * 100
    number = format_number(percent) if digits is None else f"{percent:.{digits}f}"
    return f"{number} %".replace("-", MINUS)


def format_bps(bps: float) -> str:
    """A share of traffic in basis points as a percentage: `1 %`, `0.5 %`."""
    return f"{bps / 100:g} %"


def format_usd(amount: float | None, missing: str = UNKNOWN) -> str:
    """`$0.41`; two significant digits below ten cents; no cents from $10,000 on."""
    if amount is None:
        return missing
    if 0 < amount < 0.1:
        return f"${amount:.2g}" if amount >= 0.0001 else "under $0.0001"
    return f"${amount:,.2f}" if amount < 10_000 else f"${amount:,.0f}"


def format_answer_price(usd: float, beside: float | None = None) -> str:
    """The price of one answer; small ones by the thousand. beside: another, written alike."""
    if max(usd, beside or 0.0) >= SMALL_USD:
        return f"${format_number(usd)}"
    return f"${format_number(usd * 1000)} per 1,000 answers"


def format_latency(seconds: float | None, missing: str = UNKNOWN) -> str:
    """`0.71 s`, `12.4 s`."""
    if seconds is None:
        return missing
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.1f} s"


def format_span(seconds: float) -> str:
    """A length of time in its two largest units: `40 s`, `12 min`, `2 h 5 min`, `6 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        hours, minutes = divmod(whole // _MINUTE_S, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(whole // _HOUR_S, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_estimate(seconds: float) -> str:
    """A forecast length of time: `40 s`, `12 min`, `3.5 h`, `6 days`. Two digits are enough."""
    for length, unit in _ROUND_UNITS:
        if seconds >= 2 * length or (length == _MINUTE_S and seconds >= length):
            value = seconds / length
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    return f"{math.ceil(seconds)} s"


def format_age(then: datetime, now: datetime) -> str:
    """How long ago something was, in its largest unit: `just now`, `12 min ago`."""
    past_s = (now - then).total_seconds()
    if past_s < 10:
        return "just now"
    number, unit, *_ = format_span(past_s).split(" ")
    return f"{number} {unit} ago"


def without_scientific_notation(sentence: str) -> str:
    """A stored sentence, with numbers such as 1.11e-05 in it written out."""
    return _SCIENTIFIC.sub(
        lambda match: format_number(float(match[0])), _PRICES.sub(_by_thousand, sentence)
    )


def _by_thousand(match: re.Match[str]) -> str:
    candidate, incumbent = float(match[1]), float(match[2])
    if max(candidate, incumbent) >= SMALL_USD:
        return match[0]
    candidate_price, incumbent_price = (
        format_number(price * 1000) for price in (candidate, incumbent)
    )
    return f"${candidate_price} against ${incumbent_price} per 1,000 answers"
