"""Numbers and sums of money as people write them: never in scientific notation."""

import math
import re
from typing import Final

_EXPONENT: Final = r"\d(?:\.\d+)?e[+-]\d+"
_PRICES: Final = re.compile(r"\$([\d.]+(?:e[+-]\d+)?) against \$([\d.]+(?:e[+-]\d+)?)")
_SCIENTIFIC: Final = re.compile(rf"(?<![\w.]){_EXPONENT}(?![\w.]*\d)")
# Below it a price of one answer says nothing to a reader, and one of a thousand does.
SMALL_USD: Final = 0.01
HUGE: Final = 1e15


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


def format_answer_price(usd: float, beside: float | None = None) -> str:
    """A price of one answer; small ones by the thousand. beside: another, written alike."""
    if max(usd, beside or 0.0) >= SMALL_USD:
        return f"${format_number(usd)}"
    return f"${format_number(usd * 1000)} per 1,000 answers"


def without_scientific_notation(sentence: str) -> str:
    """A sentence that was stored with numbers such as 1.11e-05 in it, for people."""
    return _SCIENTIFIC.sub(
        lambda found: format_number(float(found[0])), _PRICES.sub(_by_thousand, sentence)
    )


def _by_thousand(found: re.Match[str]) -> str:
    ours, theirs = float(found[1]), float(found[2])
    if max(ours, theirs) >= SMALL_USD:
        return found[0]
    return (
        f"${format_number(ours * 1000)} against ${format_number(theirs * 1000)} per "
        "1,000 answers"
    )
