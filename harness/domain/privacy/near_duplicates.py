"""Near-duplicate texts are found by the exact Jaccard similarity of their word shingles. Pure.

Source: prefix filtering, Bayardo, Ma, Srikant 2007, "Scaling Up All Pairs Similarity Search":
two sets of similarity t or more share one of their rarest elements.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

SHINGLE_WORDS: Final = 3


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words, without regard to case; shorter texts are one run."""
    words = text.casefold().split()
    if len(words) <= SHINGLE_WORDS:
        return frozenset({tuple(words)})
    return frozenset(
        tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)
    )


def jaccard_similarity(
    one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]
) -> float:
    """The Jaccard similarity of two sets, 0 to 1. Neither is empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def find_near_duplicates(texts: Mapping[str, str], *, threshold: float) -> dict[str, str]:
    """Maps an id to the earlier, kept text that it nearly is; texts in their order. threshold:
    least similarity, above 0, at most 1.
    """
    sets = {id_: shingles(text) for id_, text in texts.items()}
    counted = Counter(shingle for of_text in sets.values() for shingle in of_text)
    kept_by: dict[tuple[str, ...], list[str]] = {}
    near: dict[str, str] = {}
    for id_, of_text in sets.items():
        rarest = sorted(of_text, key=lambda shingle: (counted[shingle], shingle))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest)) + 1]
        # Each kept id once, in the order in which they were kept.
        kept = dict.fromkeys(one for shingle in prefix for one in kept_by.get(shingle, ()))
        like = (one for one in kept if jaccard_similarity(of_text, sets[one]) >= threshold)
        if (first := next(like, None)) is not None:
            near[id_] = first
            continue
        for shingle in prefix:
            kept_by.setdefault(shingle, []).append(id_)
    return near
