"""Finds near-duplicates among texts: requests that a person need not label twice, and items
that depend on each other. Pure.

Two texts are alike by the exact Jaccard similarity of their runs of three words (shingles).

`find_near_duplicates` keeps the first of similar texts. Source: prefix filtering, Bayardo, Ma,
Srikant 2007, "Scaling Up All Pairs Similarity Search": two sets of similarity t or more share
one of their rarest elements.

`find_alike` omits the runs that more than SHARED_PART of the texts have: a template, or the
examples of a few-shot prompt. Clusters grow by complete linkage (Defays 1977, "An efficient
algorithm for a complete link method"): each text is like *every* other text of its cluster, so
a chain of similar texts does not join its two ends.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.canonical_text import canonical
from harness.frame.formatting import INVISIBLE_CHARACTERS

ALIKE: Final = 0.6  # HumanEval, IFEval and few-shot GSM8K keep 99 % of their items single
SHARED_PART: Final = 0.05  # of the texts; more of them share a template
LEAST_SHARED: Final = 10  # in small suites, up to so many texts are a group, not a template
_EDGES: Final = re.compile(r"(?<!\S)[\"'(\[“„«‘‚]+|[.,;:!?\"')\]”“»’…]+(?!\S)")
SHINGLE_WORDS: Final = 3
# Scripts without spaces between words; each of their characters counts as a word.
UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
)


def _words(text: str) -> Sequence[str]:
    """Returns a text's words in lower case, without their width and invisible characters."""
    if not text.isascii():
        visible = filter(_is_visible, unicodedata.normalize("NFKC", text))
        text = UNSPACED.sub(r" \g<0> ", "".join(visible))
    return text.casefold().split()


def _is_visible(character: str) -> bool:
    return character not in INVISIBLE_CHARACTERS and unicodedata.category(character) != "Cf"


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Returns the runs of three words, ignoring case; a shorter text is one run."""
    words = _words(text)
    if len(words) <= SHINGLE_WORDS:
        return frozenset({tuple(words)})
    return frozenset(
        tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)
    )


def jaccard_similarity(
    first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]
) -> float:
    """The Jaccard similarity, 0 to 1, of two sets that are not empty."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def find_near_duplicates(texts: Mapping[str, str], *, threshold: float) -> dict[str, str]:
    """Maps the id of each near-duplicate to the id of the earlier text that is kept.

    threshold: least similarity, above 0, at most 1.
    """
    sets = {id_: shingles(text) for id_, text in texts.items()}
    counted = Counter(shingle for of_text in sets.values() for shingle in of_text)
    kept_by: dict[tuple[str, ...], list[str]] = {}
    near: dict[str, str] = {}
    for id_, of_text in sets.items():
        rarest = sorted(of_text, key=lambda shingle: (counted[shingle], shingle))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest)) + 1]
        # dict.fromkeys drops double ids and keeps their order.
        kept = dict.fromkeys(name for shingle in prefix for name in kept_by.get(shingle, ()))
        like = (name for name in kept if jaccard_similarity(of_text, sets[name]) >= threshold)
        if (first := next(like, None)) is not None:
            near[id_] = first
            continue
        for shingle in prefix:
            kept_by.setdefault(shingle, []).append(id_)
    return near


def find_alike(texts: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """Lists the clusters of two and more near-duplicates, by complete linkage at ALIKE."""
    similarity = _similarities(texts)
    place = {item: number for number, item in enumerate(texts)}
    cluster = {item: item for pair in similarity for item in pair}
    members = {item: [item] for item in cluster}
    by_likeness = sorted(
        similarity, key=lambda pair: (-similarity[pair], place[pair[0]], place[pair[1]])
    )
    for one, other in by_likeness:
        into, gone = sorted((cluster[one], cluster[other]), key=place.__getitem__)
        if into == gone:
            continue
        pairs = (
            tuple(sorted((a, b), key=place.__getitem__))
            for a in members[into]
            for b in members[gone]
        )
        if all(pair in similarity for pair in pairs):
            members[into] += members.pop(gone)
            cluster |= dict.fromkeys(members[into], into)
    return [group for group in members.values() if len(group) > 1]


def _similarities(texts: Mapping[str, str]) -> Mapping[tuple[str, ...], float]:
    """Returns the similarity of each pair of items that is ALIKE or more, in the items' order.

    Items without a run of their own are alike only if all their runs are equal.
    """
    whole = {item: shingles(_plain(text)) for item, text in texts.items()}
    counted = Counter(run for runs in whole.values() for run in runs)
    most = most_shared(len(whole))
    own = {
        item: frozenset(run for run in runs if counted[run] <= most)
        for item, runs in whole.items()
    }
    same: dict[object, list[str]] = defaultdict(list)
    having: dict[tuple[str, ...], list[str]] = defaultdict(list)
    found: dict[tuple[str, ...], float] = {}
    for item, runs in own.items():
        common = Counter(other for run in runs for other in having[run])
        for other in common:
            alike = jaccard_similarity(runs, own[other])
            if alike >= ALIKE:
                found[other, item] = alike
        for run in runs:
            having[run].append(item)
        found |= {(other, item): 1.0 for other in same[whole[item]]}
        same[whole[item]].append(item)
    return found


def most_shared(items: int) -> float:
    """Returns how many items may share a part without its being a template."""
    return max(LEAST_SHARED, SHARED_PART * items)


def _plain(text: str) -> str:
    """Returns the text without punctuation at the edges of words."""
    return _EDGES.sub("", canonical(text))
