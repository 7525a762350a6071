"""Segments are the closed list of parts of a canary's traffic in which errors are counted apart
(statistics.md §2.13): whether a request streams, offers tools, how long it is, which key made
it, and a guess at the language of its prompt.

A unit's segments are those of its first request alone, never of an answer. Nothing of a request
is kept but that it was counted in one of these.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

# Of each kind of segment a request is in one.
KINDS: Final = 5
# Up to so many characters a request is short, and medium.
SHORT, MEDIUM = 2_000, 20_000
KEY_CLASSES: Final = 8


class Segment(StrEnum):
    STREAM = "stream"
    WHOLE = "whole"
    TOOLS = "tools"
    NO_TOOLS = "no_tools"
    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"
    KEY_0 = "key_0"  # key_0 to key_7: by the last character of the API key's id
    KEY_1 = "key_1"
    KEY_2 = "key_2"
    KEY_3 = "key_3"
    KEY_4 = "key_4"
    KEY_5 = "key_5"
    KEY_6 = "key_6"
    KEY_7 = "key_7"
    ENGLISH = "english"
    GERMAN = "german"
    FRENCH = "french"
    SPANISH = "spanish"
    PORTUGUESE = "portuguese"
    ITALIAN = "italian"
    CYRILLIC = "cyrillic"
    CHINESE = "chinese"
    JAPANESE = "japanese"
    KOREAN = "korean"
    ARABIC = "arabic"
    OTHER_LANGUAGE = "other_language"

    @property
    def text(self) -> str:
        """Names the requests of the segment, after a preposition."""
        return _TEXTS.get(self) or f"requests whose prompt is in {self.value.title()}"


def key_class(key_id: str) -> int:
    """Returns the class of an API key, from 0: keys whose ids end alike are one."""
    return ord(key_id[-1:] or "0") % KEY_CLASSES


KEY_SEGMENTS: Final = tuple(Segment(f"key_{number}") for number in range(KEY_CLASSES))


def _ends(number: int) -> str:
    *first, last = (c for c in "0123456789abcdef" if key_class(c) == number)
    return f"{', '.join(first)} or {last}" if first else last


_TEXTS: Final[Mapping[Segment, str]] = {
    Segment.STREAM: "requests that stream",
    Segment.WHOLE: "requests that do not stream",
    Segment.TOOLS: "requests with tools",
    Segment.NO_TOOLS: "requests without tools",
    Segment.SHORT: f"requests of up to {SHORT:,} characters",
    Segment.MEDIUM: f"requests of {SHORT:,} to {MEDIUM:,} characters",
    Segment.LONG: f"requests of more than {MEDIUM:,} characters",
    **{
        key: f"requests with an API key whose id ends in {_ends(number)}"
        for number, key in enumerate(KEY_SEGMENTS)
    },
    Segment.CYRILLIC: "requests whose prompt is in Cyrillic letters",
    Segment.OTHER_LANGUAGE: "requests whose prompt is in another language, or in none",
}
SEGMENTS: Final = tuple(Segment)
