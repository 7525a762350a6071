"""Near-duplicate texts are found by the exact Jaccard similarity of their word shingles. Pure.

Source: prefix filtering, Bayardo, Ma, Srikant 2007, "Scaling Up All Pairs Similarity Search":
two sets of similarity t or more share one of their rarest elements.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
        like = _first_like(of_text, _candidates(prefix, kept_by), sets, threshold)
        if like is not None:
            near[id_] = like
            continue
        for shingle in prefix:
            kept_by.setdefault(shingle, []).append(id_)
    return near


def _candidates(
    prefix: Sequence[tuple[str, ...]], kept_by: Mapping[tuple[str, ...], Sequence[str]]
) -> Sequence[str]:
    """Returns each kept id once, in the order in which they were kept."""
    return list(dict.fromkeys(id_ for shingle in prefix for id_ in kept_by.get(shingle, ())))


def _first_like(
    found: frozenset[tuple[str, ...]],
    candidates: Sequence[str],
    sets: Mapping[str, frozenset[tuple[str, ...]]],
    threshold: float,
) -> str | None:
    return next(
        (
            candidate
            for candidate in candidates
            if jaccard_similarity(found, sets[candidate]) >= threshold
        ),
        None,
    )
