"""What a client got, judged by its words: the provider's letter and a running number. Pure."""

import re
from enum import StrEnum
from typing import Final

WORDS: Final = 12
_WORD: Final = re.compile(r"[a-z]\d+")


class Ending(StrEnum):
    """How a request ended for its client."""

    WHOLE = "whole"
    ERROR = "error"  # an exception that the client can act upon
    SPLICED = "spliced"  # words of two answers, or one twice, or one left out
    FALSE_END = "false_end"  # it looks complete, and is not the answer
    CANCELLED = "cancelled"  # the client left, and the provider knew within a second
    ORPHANED = "orphaned"  # the client left, and the provider went on


def words(letter: str) -> list[str]:
    """Of a whole answer."""
    return [f"{letter}{number}" for number in range(WORDS)]


def ending(text: str, *, failed: bool) -> Ending:
    """text: all content that came. failed: the client was given an error."""
    found = text.split()
    begun = words(found[0][0]) if found else []
    if found != begun[: len(found)] and all(_WORD.fullmatch(word) for word in found):
        return Ending.SPLICED
    if failed:
        return Ending.ERROR
    return Ending.WHOLE if found and found == begun else Ending.FALSE_END
