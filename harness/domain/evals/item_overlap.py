"""Item overlap measures which items two suites share, by their normalized texts, so that a
renamed or copied suite counts as the same one. Pure.

A suite's texts are kept as one short text (`texts_fingerprint`): the sorted hashes of its
items, 40 bits each, so that 10,000 items take 67 KB. `overlap_share` compares two of them.
"""

import re
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final

from harness.domain.content_hash import short_hash
from harness.domain.operations.principals import INVISIBLE_CHARACTERS

HASH_BYTES: Final = 5
# What is neither letter nor digit; some that show nothing are letters to Unicode.
SEPARATORS: Final = re.compile(rf"[\W_{''.join(sorted(INVISIBLE_CHARACTERS))}]+")
# The same of a text in ASCII, which has no marks: most have no others, and there are many.
ASCII_SEPARATORS: Final = {code: None for code in range(128) if not chr(code).isalnum()}
# From this share of the smaller suite's items on they are asked the same thing.
SAME_ITEMS_SHARE: Final = 0.1


def normalize_text(text: str) -> str:
    """Returns the text's letters and digits, without case and marks: `Crème, brûlée?` is
    `cremebrulee`.

    Texts that differ in nothing else are the same item; that a few more are taken for one (12 +
    3 and 1 + 23) can only count a look too much.
    """
    if text.isascii():
        return text.lower().translate(ASCII_SEPARATORS)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return SEPARATORS.sub("", folded)


def texts_fingerprint(texts: Iterable[str]) -> str:
    """Returns a fingerprint of a suite's items, in any order and each once."""
    hashes = {short_hash(normalize_text(text) or text, HASH_BYTES) for text in texts}
    return b64encode(b"".join(sorted(hashes))).decode()


def overlap_share(one: str, other: str) -> float:
    """Share of the smaller suite's items that the other has too; 0 where one has none."""
    ours, theirs = _hashes(one), _hashes(other)
    smaller = min(len(ours), len(theirs))
    return len(ours & theirs) / smaller if smaller else 0.0


def _hashes(stored: str) -> frozenset[bytes]:
    raw = b64decode(stored)
    return frozenset(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))
