"""Folds the typography of texts: dashes, quotes and spaces that some models write by habit.

Typography is form: a strict score needs the target's own characters, a lenient score does not.
Canonically equal texts (NFC) are equal in both.
"""

import re
from collections.abc import Iterable
from typing import Final

from harness.frame.canonical_text import canonical

LONG_DASHES: Final = "—―⸺⸻"
_DASHES: Final = f"{LONG_DASHES}‐‑‒–−⁃﹘﹣－"
_SINGLE_QUOTES: Final = "‘’‚‛′‵ʹʻʼʽ´＇"
_DOUBLE_QUOTES: Final = "“”„‟″‶«»＂"
_SPACES: Final = (*map(chr, range(0x2000, 0x200B)), *"\u00a0\u1680\u202f\u205f\u3000")
# Soft hyphens, zero-width spaces and joiners, and byte order marks have no shape.
_UNSEEN: Final = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_PLAIN: Final = {
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, _SINGLE_QUOTES), "'"),
    **dict.fromkeys(map(ord, _DOUBLE_QUOTES), '"'),
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _UNSEEN), ""),
}


def plain_typography(text: str) -> str:
    """Returns the text in NFC, with plain hyphens, quotes and spaces, without unseen signs."""
    return text if text.isascii() else canonical(text).translate(_PLAIN)


def fold_case(text: str) -> str:
    """Folds typography, case and runs of spaces."""
    # Case folding may leave NFC.
    return canonical(" ".join(plain_typography(text).casefold().split()))


def fold_label(label: str) -> str:
    """Folds like `fold_case`; spaces, hyphens and underscores inside become one space."""
    return _SEPARATORS.sub(" ", fold_case(label))


# A sign before a label belongs to it: -1 and 1 are two labels.
_SEPARATORS: Final = re.compile(r"(?<=\w)[\s_-]+(?=\w)")
# Signs that make one word of two: non-refundable, can't, R&D.
_JOINER: Final = r"['·@&+-]"
# Marks a hyphen that was a long dash. A private character, which no text uses.
_LONG: Final = "\ue000"
_BEFORE: Final = rf"(?<!\w)(?<!\w{_LONG}?{_JOINER}{{1,2}})"
_AFTER: Final = rf"(?!\w)(?!{_JOINER}{{1,2}}\w)"


def mentioned(text: str, labels: Iterable[str]) -> set[str]:
    """Finds labels as whole words, folded. Of overlapping labels the longest counts.

    A label inside a longer word is not found, whatever joins the word: `refundable` in
    `non-refundable`, 5 in 4.5. A long dash joins a word to the word before it, because `non—…`
    states the opposite; behind a label it begins another clause.
    """
    known = sorted({fold_label(label) for label in labels} - {""}, key=len, reverse=True)
    if not known:
        return set()
    for dash in LONG_DASHES:
        text = text.replace(dash, _LONG + dash)
    import regex  # noqa: PLC0415 - it takes 4 MiB, and a process that serves scores nothing

    # `re` has no lookbehind of several lengths.
    whole_words = "|".join(map(_word_pattern, known))
    return set(map(fold_label, regex.findall(whole_words, fold_case(text))))


def _word_pattern(label: str) -> str:
    """Returns the pattern of a folded label as whole words."""
    words = r"[\s_-]+".join(map(re.escape, label.split(" ")))
    before = _BEFORE
    after = _AFTER
    if label[:1].isdigit():
        before += r"(?<![-+])(?<!\d[.,:/])"
    if label[-1:].isdigit():
        after += r"(?![.,:/]\d)"
    return f"{before}{words}{after}"
