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

ALIKE_SIMILARITY: Final = (
    0.6  # HumanEval, IFEval and few-shot GSM8K keep 99 % of their items single
)
SHARED_PART: Final = 0.05  # of the texts; more of them share a template
LEAST_SHARED: Final = 10  # in small suites, up to 10 texts with a common part are a group
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
    """Returns the Jaccard similarity, 0 to 1, of two sets that are not empty."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def find_near_duplicates(texts: Mapping[str, str], *, threshold: float) -> dict[str, str]:
    """Maps the id of each near-duplicate to the id of the earlier text that is kept.

    Args:
        threshold: least similarity, above 0, at most 1.
    """
    sets = {text_id: shingles(text) for text_id, text in texts.items()}
    counted = Counter(shingle for runs in sets.values() for shingle in runs)
    kept_by: dict[tuple[str, ...], list[str]] = {}
    duplicates: dict[str, str] = {}
    for text_id, runs in sets.items():
        rarest = sorted(runs, key=lambda shingle: (counted[shingle], shingle))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest)) + 1]
        # dict.fromkeys drops double ids and keeps their order.
        kept = dict.fromkeys(name for shingle in prefix for name in kept_by.get(shingle, ()))
        similar = (name for name in kept if jaccard_similarity(runs, sets[name]) >= threshold)
        if (original := next(similar, None)) is not None:
            duplicates[text_id] = original
            continue
        for shingle in prefix:
            kept_by.setdefault(shingle, []).append(text_id)
    return duplicates


def find_alike(texts: Mapping[str, str]) -> Sequence[Sequence[str]]:
    """Lists the clusters of two and more near-duplicates, by complete linkage at
    ALIKE_SIMILARITY.
    """
    similarity = _similarities(texts)
    position = {item: number for number, item in enumerate(texts)}
    cluster = {item: item for pair in similarity for item in pair}
    members = {item: [item] for item in cluster}
    pairs_by_similarity = sorted(
        similarity, key=lambda pair: (-similarity[pair], position[pair[0]], position[pair[1]])
    )
    for first_item, second_item in pairs_by_similarity:
        kept_cluster, merged_cluster = sorted(
            (cluster[first_item], cluster[second_item]), key=position.__getitem__
        )
        if kept_cluster == merged_cluster:
            continue
        pairs = (
            tuple(sorted((left_item, right_item), key=position.__getitem__))
            for left_item in members[kept_cluster]
            for right_item in members[merged_cluster]
        )
        if all(pair in similarity for pair in pairs):
            members[kept_cluster] += members.pop(merged_cluster)
            cluster |= dict.fromkeys(members[kept_cluster], kept_cluster)
    return [group for group in members.values() if len(group) > 1]


def _similarities(texts: Mapping[str, str]) -> Mapping[tuple[str, ...], float]:
    """Returns the similarity of each pair of items that is ALIKE_SIMILARITY or more, in the
    items' order.

    Items without a run of their own are alike only if all their runs are equal.
    """
    all_runs = {item: shingles(_strip_edge_punctuation(text)) for item, text in texts.items()}
    counted = Counter(run for runs in all_runs.values() for run in runs)
    max_items = most_shared(len(all_runs))
    rare_runs = {
        item: frozenset(run for run in runs if counted[run] <= max_items)
        for item, runs in all_runs.items()
    }
    items_with_runs: dict[object, list[str]] = defaultdict(list)
    items_by_run: dict[tuple[str, ...], list[str]] = defaultdict(list)
    similarities: dict[tuple[str, ...], float] = {}
    for item, runs in rare_runs.items():
        common = Counter(other for run in runs for other in items_by_run[run])
        for other in common:
            similarity = jaccard_similarity(runs, rare_runs[other])
            if similarity >= ALIKE_SIMILARITY:
                similarities[other, item] = similarity
        for run in runs:
            items_by_run[run].append(item)
        similarities |= {(other, item): 1.0 for other in items_with_runs[all_runs[item]]}
        items_with_runs[all_runs[item]].append(item)
    return similarities


def most_shared(item_count: int) -> float:
    """Returns the largest number of items that may share a part which is not a template."""
    return max(LEAST_SHARED, SHARED_PART * item_count)


def _strip_edge_punctuation(text: str) -> str:
    """Returns the text without punctuation at the edges of words."""
    return _EDGES.sub("", canonical(text))
