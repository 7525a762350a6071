"""Item groups say which items of a suite belong together (statistics.md §1.12), and fix the
order in which a run asks them. Pure.

The items of one cluster (paraphrases, turns of one conversation, questions on one document) are
one unit of the gate: they stand together in the order, and the order is drawn over clusters.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from harness.domain.content_hash import hash_content
from harness.domain.errors import InputError
from harness.domain.formatting import format_excerpt

MAX_VALUE_LENGTH: Final = 200  # characters of a cluster's name
EXCERPT: Final = 40


@dataclass(frozen=True, slots=True)
class ItemGroups:
    """Holds a suite's items and what they have in common."""

    items: tuple[str, ...]  # ids
    # Item → name of its cluster; empty for a suite that names no cluster field.
    clusters: Mapping[str, str] = field(default_factory=dict)
    cluster_field: str = ""  # of the metadata, that names it

    @property
    def units(self) -> int:
        """Counts what the gate counts: clusters, or items where there are none."""
        return len(set(self.clusters.values())) if self.clusters else len(self.items)

    def order(self, order_seed: int) -> tuple[str, ...]:
        """Draws the order in which a run asks the items."""
        return shuffle_items(self.items, order_seed, self.clusters)

    def cluster_sizes(self, order_seed: int) -> tuple[int, ...]:
        """Counts the items of each cluster, in the order; empty without clusters."""
        if not self.clusters:
            return ()
        ordered = map(self.clusters.__getitem__, self.order(order_seed))
        return tuple(len(list(members)) for _, members in groupby(ordered))


def shuffle_items(
    item_ids: Collection[str], order_seed: int, clusters: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """A permutation of the ids that depends on the ids, their clusters and the seed alone.

    Sorted by a hash and not by `random`: the same in every version of Python, and an item that
    leaves the suite moves no other past its neighbour.
    """

    def place(item: str) -> tuple[str, str, str]:
        own = hash_content(f"{order_seed}:{item}")
        if not clusters:
            return own, "", ""
        cluster = clusters[item]
        # The name decides where two hashes are equal: no cluster may be split.
        return hash_content(f"{order_seed}:cluster:{cluster}"), cluster, own

    return tuple(sorted(item_ids, key=place))


def read_group(metadata: Mapping[str, object], name: str, place: str) -> str:
    """Reads the value of one metadata field that groups items.

    Raises InputError where it is missing, or neither a text nor a whole number.
    """
    value = metadata.get(name)
    if value is None:
        raise InputError(
            f"{place}: field 'metadata.{name}': missing; the suite groups its items by it. An "
            "item that belongs to no other gets a value of its own"
        )
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"{place}: field 'metadata.{name}': must be a text or a whole number, not "
            f"{format_excerpt(repr(value), EXCERPT)}"
        )
    text = str(value).strip()
    if not text or len(text) > MAX_VALUE_LENGTH or not text.isprintable():
        raise InputError(
            f"{place}: field 'metadata.{name}': must have 1 to {MAX_VALUE_LENGTH} characters "
            "that can be printed"
        )
    return text
