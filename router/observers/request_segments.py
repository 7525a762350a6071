"""Detects the segments of a request (`harness.domain.canary.segments`): from what is parsed
already, and from the first words of its last message. Pure, and the same in every process.

Asked only for requests that a live rollout scores.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from harness.domain.canary.segments import (
    KEY_SEGMENTS,
    MEDIUM,
    SEGMENTS,
    SHORT,
    Segment,
    key_class,
)
from router.request.body import ClientRequest

# As many characters as a guess takes: a prompt may be a book.
_READ: Final = 300
# Messages from the end, and parts of a message: there may be thousands.
_LOOKED_AT: Final = 8
# So many of a language's commonest words make a guess.
_ENOUGH: Final = 2
_BITS: Final[Mapping[Segment, int]] = {segment: 1 << n for n, segment in enumerate(SEGMENTS)}
# As plain numbers: to look up a member of an enumeration costs more than all the rest.
_STREAM, _WHOLE = _BITS[Segment.STREAM], _BITS[Segment.WHOLE]
_TOOLS, _NO_TOOLS = _BITS[Segment.TOOLS], _BITS[Segment.NO_TOOLS]
_SHORT, _MEDIUM, _LONG = _BITS[Segment.SHORT], _BITS[Segment.MEDIUM], _BITS[Segment.LONG]
_OTHER_LANGUAGE: Final = Segment.OTHER_LANGUAGE
_WORDS: Final = re.compile(r"[^\W\d_]+").findall
# In this order: Japanese has Chinese characters as well.
_SCRIPTS: Final[tuple[tuple[Segment, Callable[[str], list[Any]]], ...]] = (
    (Segment.JAPANESE, re.compile("[\u3040-\u30ff]").findall),
    (Segment.KOREAN, re.compile("[\uac00-\ud7af\u1100-\u11ff]").findall),
    (Segment.CHINESE, re.compile("[\u4e00-\u9fff]").findall),
    (Segment.CYRILLIC, re.compile("[\u0400-\u04ff]").findall),
    (Segment.ARABIC, re.compile("[\u0600-\u06ff]").findall),
)
_COMMON: Final[tuple[tuple[Segment, frozenset[str]], ...]] = tuple(
    (language, frozenset(words.split()))
    for language, words in (
        (
            Segment.ENGLISH,
            "the and of is are what how to for with you this that my please write a i it can",
        ),
        (
            Segment.GERMAN,
            "der die das und ist nicht ein eine mit wie für ich den zu auf bitte von es im was",
        ),
        (
            Segment.FRENCH,
            "le les des est et une dans pour que qui je vous pas du sur avec ce il au mon",
        ),
        (
            Segment.SPANISH,
            "el los las es y una por para con cómo del qué en mi al lo su se más este",
        ),
        (
            Segment.PORTUGUESE,
            "o os um uma não para com como é do da em meu por mais você dos isso ao na",
        ),
        (
            Segment.ITALIAN,
            "il lo gli che è una per con come di sono non mi della nel del si più ho questo",
        ),
    )
)


def detect_segments(request: ClientRequest, key_id: str) -> int:
    """Finds the segments of a request, as bits in the order of `SEGMENTS`; one of each kind."""
    size = len(request.text)
    return (
        (_STREAM if request.stream else _WHOLE)
        | (_TOOLS if request.members.get("tools") else _NO_TOOLS)
        | (_SHORT if size <= SHORT else _MEDIUM if size <= MEDIUM else _LONG)
        | _key_segment(key_id)
        | _BITS[guess_language(_last_words(request))]
    )


@lru_cache(maxsize=1024)
def _key_segment(key_id: str) -> int:
    return _BITS[KEY_SEGMENTS[key_class(key_id)]]


def guess_language(text: str) -> Segment:
    """Guesses the language of a prompt by its script, or by the commonest words in it."""
    text = text[:_READ]
    if not text.isascii():
        for language, letters in _SCRIPTS:
            # A word of another script in a sentence says nothing; a tenth of it does.
            if 10 * len(letters(text)) >= len(text):
                return language
    words = set(_WORDS(text.lower()))
    guess, most = _OTHER_LANGUAGE, _ENOUGH - 1
    for language, common in _COMMON:
        count = len(words & common)
        if count > most:
            guess, most = language, count
        elif count == most:
            guess = _OTHER_LANGUAGE
    return guess


def _last_words(request: ClientRequest) -> str:
    """What the user said last, or the last input, as far as it is text."""
    get = request.members.get
    value = get("messages") or get("input")
    if isinstance(value, list):
        last, value = value[: -_LOOKED_AT - 1 : -1], None
        for item in last:
            if isinstance(item, str) or (isinstance(item, dict) and item.get("role") == "user"):
                value = item
                break
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, list):
        for part in value[:_LOOKED_AT]:
            if isinstance(part, dict) and isinstance(text := part.get("text"), str):
                return text
    return value if isinstance(value, str) else ""
