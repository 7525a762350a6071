"""The scorer `numeric` compares a number, on a final line of a given form if asked for."""

import re
from decimal import Decimal, InvalidOperation

from evals.scorers.interface import (
    UNSCORED,
    Options,
    Scorer,
    ScoreResult,
    right_or_wrong,
    unreadable,
)
from evals.scorers.unwrap import non_blank_lines
from evals.suites.items import Item
from harness.domain.errors import InputError

# Thousands may be set off by commas; a point or comma that ends a sentence is not part of it.
NUMBER = r"[-+−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|[-+−]?\.[0-9]+"
IN_PROSE = re.compile(rf"(?<![\w.,])[$€£]?({NUMBER})(?![0-9])")
# A minus sign that follows a number subtracts: in 5-3 the last number is 3.
SUBTRACTED = re.compile(r"(?<=[0-9])\s*[-−](?=[0-9])")


def number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None


def last_number(text: str) -> Decimal | None:
    found = IN_PROSE.findall(SUBTRACTED.sub(" - ", text))
    return number(found[-1]) if found else None


def strict_number(answer: str, final_line: str) -> Decimal | None:
    """The number in the form that was asked for; None when the form is not kept."""
    lines = non_blank_lines(answer)
    if not final_line:
        return last_number(answer)
    kept = re.fullmatch(rf"{re.escape(final_line)}\s*({NUMBER})", lines[-1]) if lines else None
    return number(kept[1]) if kept else None


def broken_rule(answer: str, final_line: str) -> str:
    at = [
        n
        for n, line in enumerate(non_blank_lines(answer))
        if final_line.casefold() in line.casefold()
    ]
    if not at:
        return "no_final_line"
    if at[-1] < len(non_blank_lines(answer)) - 1:
        return "trailing_prose"
    line = non_blank_lines(answer)[-1]
    if re.search(r"[*_`#]", line):
        return "markup"
    return "final_line_form"


def lenient_number(answer: str, final_line: str) -> Decimal | None:
    """The number after the last mention of the form, else the last number of all."""
    if final_line:
        after = re.split(re.escape(final_line.rstrip(": ")), answer, flags=re.IGNORECASE)
        found = IN_PROSE.search(after[-1].replace("*", " ")) if len(after) > 1 else None
        if found:
            return number(found[1])
    return last_number(answer.replace("*", " "))


def numeric(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores a number. tolerance: how far off is still right, in units of the number."""
    wanted = number(str(item.target).strip())
    given = lenient_number(answer, options["final_line"])
    strict = strict_number(answer, options["final_line"])
    if wanted is None:
        return UNSCORED
    if given is None and strict is None:
        return unreadable(answer, "no_number")
    tolerance = Decimal(str(options["tolerance"]))

    def right(value: Decimal | None) -> bool:
        return value is not None and abs(value - wanted) <= tolerance

    return right_or_wrong(
        strict=right(strict),
        lenient=right(given),
        rule=broken_rule(answer, options["final_line"]),
    )


def check(item: Item, options: Options) -> str | None:
    tolerance = options["tolerance"]
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        raise InputError("scorer 'numeric': option 'tolerance' must be a number from 0 up")
    value = number(str(item.target).strip())
    if isinstance(item.target, bool) or value is None or not value.is_finite():
        raise InputError(f"item {item.id!r}: target {item.target!r} is not a number")
    return None


NUMERIC = Scorer("numeric", numeric, {"tolerance": 1e-6, "final_line": ""}, check=check)
