"""Brings texts into one form before a comparison, so that canonically equal texts become equal.

`ü` as one character and `u` with a combining mark are the same text. Programs and people write
either form, so ids, labels, answers and names are compared in Unicode's form NFC (UAX #15).
"""

import unicodedata
from typing import Any


def canonical(text: str) -> str:
    """Returns the text in Unicode's form NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def single_spaced(value: Any) -> Any:
    """Returns a JSON value in which each run of spaces in a text is one space."""
    match value:
        case str():
            return " ".join(value.split())
        case list():
            return [single_spaced(part) for part in value]
        case dict():
            return {key: single_spaced(part) for key, part in value.items()}
        case _:
            return value


def canonical_value(value: Any) -> Any:
    """Returns a JSON value with all its texts and keys in the form NFC."""
    match value:
        case str():
            return canonical(value)
        case list():
            return [canonical_value(part) for part in value]
        case dict():
            return {canonical_value(key): canonical_value(part) for key, part in value.items()}
        case _:
            return value
