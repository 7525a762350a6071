"""Reads numbers as people write them: 1,234.5 and 1.234,5, 1'234, 1 234 with a narrow space.

A comma or point that two readings allow (1,234 and 1.234) is read by the suite's decimal sign,
which its other targets show. Nothing here reads a comma as no sign at all: 4,2 is 4.2.
"""

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Final

POINT: Final = "."
COMMA: Final = ","
# Signs that only group digits: apostrophes, no-break and thin spaces, Arabic separators.
_GROUPING: Final = "'’‘ʼ＇\u00a0\u2007\u2009\u202f٬"
_UNDERSCORE: Final = re.compile(r"(?<=[0-9])_(?=[0-9]{3})")
_SAME: Final = str.maketrans(
    {
        **dict.fromkeys("−－﹣‐‑‒–", "-"),
        **dict.fromkeys(_GROUPING, "'"),
        "＋": "+",
        "．": POINT,
        "٫": COMMA,
        "，": COMMA,
    }
)
_EXPONENT: Final = r"(?:[eE][-+]?[0-9]{1,3})?(?![0-9])"
# An atomic group, since CPython before 3.11.5 backtracks wrongly after a possessive one.
_DIGITS: Final = r"(?>[0-9]+(?:[.,'][0-9]+)*)"
# A number in an answer. A point or comma at a sentence's end is not part of it.
_NUMBER: Final = rf"[-+]?(?:{_DIGITS}|\.[0-9]+){_EXPONENT}"
_IN_PROSE: Final = re.compile(rf"(?<![\w.,])[$€£]?({_NUMBER})")
# A minus sign after a number subtracts: the last number of 5-3 is 3.
_SUBTRACTED: Final = re.compile(r"(?<=[0-9])\s*-(?=[0-9])")
_WHOLE: Final = re.compile(rf"([-+]?)({_DIGITS}|\.[0-9]+)({_EXPONENT})")
# Thousands in groups of three, or in groups of two as in India: 1,23,456.
_GROUPS: Final = r"[0-9]{1,3}(?:X[0-9]{3})+|[0-9]{1,2}(?:X[0-9]{2})+X[0-9]{3}"
_GROUPED: Final = {
    sign: re.compile(_GROUPS.replace("X", re.escape(sign))) for sign in (POINT, COMMA, "'")
}


def plain_number(text: str) -> str:
    """Writes digits of all scripts, signs and separators as ASCII; grouping signs as `'`."""
    if not text.isascii():
        digits = (str(unicodedata.decimal(char, char)) for char in text)
        text = "".join(digits).translate(_SAME)
    return _UNDERSCORE.sub("'", text) if "_" in text else text


def read_number(text: str, decimal_sign: str = POINT) -> Decimal | None:
    """Returns the number that a whole text writes; None for any other text.

    decimal_sign: decides 1,234 and 1.234, which have two readings.
    """
    found = _WHOLE.fullmatch(plain_number(text))
    if found is None:
        return None
    sign, digits, exponent = found.groups()
    plain = _plain_digits(digits, decimal_sign)
    if plain is None:
        return None
    try:
        return Decimal(sign + plain + exponent)
    except InvalidOperation:
        return None


def _plain_digits(digits: str, decimal_sign: str) -> str | None:
    """Returns the digits with a decimal point and without groups; None for no number."""
    marks = {sign: digits.count(sign) for sign in (POINT, COMMA)}
    present = [sign for sign, count in marks.items() if count]
    if not present:
        whole = digits
        decimals = ""
    elif len(present) == 2:
        last = max(present, key=digits.rfind)
        if marks[last] > 1:
            return None
        whole, _, decimals = digits.partition(last)
    else:
        (only,) = present
        groups = bool(_GROUPED[only].fullmatch(digits)) and not digits.startswith("0")
        if marks[only] > 1 and not groups:
            return None
        if groups and (marks[only] > 1 or only != decimal_sign):
            whole = digits
            decimals = ""
        else:
            whole, _, decimals = digits.partition(only)
    if "'" in decimals:
        return None
    grouped = {sign for sign in _GROUPED if sign in whole}
    if len(grouped) > 1 or any(not _GROUPED[sign].fullmatch(whole) for sign in grouped):
        return None
    for sign in grouped:
        whole = whole.replace(sign, "")
    return f"{whole or '0'}.{decimals}" if decimals else whole


def shown_decimal_sign(text: str) -> str:
    """Returns the decimal sign that a number shows; empty for a number that shows none."""
    found = _WHOLE.fullmatch(plain_number(text.strip()))
    marks = [char for char in found[2] if char in (POINT, COMMA)] if found else []
    if not marks:
        return ""
    if marks.count(marks[0]) > 1:
        return COMMA if marks[0] == POINT else POINT  # it groups thousands
    return "" if len(marks) == 1 and is_ambiguous(text) else marks[-1]


def is_ambiguous(text: str) -> bool:
    """Tells whether the number has two readings: 1,234 and 1.234."""
    return read_number(text.strip(), POINT) != read_number(text.strip(), COMMA)


def last_number(text: str, decimal_sign: str) -> Decimal | None:
    """Returns the last number in a text; None without one."""
    plain = _SUBTRACTED.sub(" - ", plain_number(text))
    found: list[str] = _IN_PROSE.findall(plain)
    return _read_last(found[-1], decimal_sign) if found else None


def first_number(text: str, decimal_sign: str) -> Decimal | None:
    """Returns the first number in a text; None without one."""
    found = _IN_PROSE.search(plain_number(text))
    return _read_last(found[1], decimal_sign) if found else None


def _read_last(digits: str, decimal_sign: str) -> Decimal | None:
    """Reads a number; of a list without spaces, such as 1,2,3, the last one."""
    whole = read_number(digits, decimal_sign)
    return whole if whole is not None else read_number(re.split("[,']", digits)[-1])
