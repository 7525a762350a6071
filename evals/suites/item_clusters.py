"""Finds the items of a suite that depend on each other: near-duplicates, and the items of one
caller or one conversation. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from harness.frame.formatting import format_excerpt, format_percent, format_quantity
from harness.frame.plain_data import canonical_json, short_hash
from harness.gate.suite_plan import (
    EXCERPT,
    FOUND_CLUSTERS,
    LARGE_CLUSTER,
    NEGLIGIBLE_EFFECT,
    ItemGroups,
    design_effect,
)
from harness.routing.similar_texts import find_alike, find_near_duplicates, most_shared

# Two items with this similarity differ in few words; this share of them causes a remark.
NEAR_REPEAT: Final = 0.8
REPEATED_SHARE: Final = 0.1
MOST_COMPARED: Final = 2_000  # items; comparing all items of a large suite would take seconds
CALLER: Final = "caller"  # CALLER, CONVERSATION: keys of an item's provenance
CONVERSATION: Final = "conversation"
_NAME_BYTES: Final = 8


def cluster_items(
    items: Sequence[str],
    texts: Mapping[str, str],
    owners: Mapping[str, Sequence[str]],
    declared: ItemGroups,
) -> ItemGroups:
    """Returns the groups with the clusters that the items themselves show.

    Args:
        owners: names of an item's caller and conversation; items that share a name belong
            together, unless more than SHARED_PART of the items share one opening. The
            application wrote it then.
        declared: the suite's slices and, if it names a `cluster` field, its own clusters. Found
            clusters join declared ones, but never split one.
    """
    partition = _Partition(items)
    items_by_owner = _group_by_name(
        (item, name) for item, names in owners.items() for name in names
    )
    for members in (
        *_group_by_name(declared.clusters.items()).values(),
        *(
            members
            for name, members in items_by_owner.items()
            if not name.startswith(CONVERSATION) or len(members) <= most_shared(len(items))
        ),
        *find_alike(texts),
    ):
        partition.join(members)
    clusters = {item: partition.first(item) for item in items}
    sizes = [*Counter(clusters.values()).values()]
    if declared.clusters:
        # The first item's own name stays the cluster's name.
        clusters = {item: declared.clusters[first] for item, first in clusters.items()}
        return ItemGroups(tuple(items), clusters, declared.cluster_field, declared.slices)
    if design_effect(sizes, 1.0) <= NEGLIGIBLE_EFFECT:
        return declared
    return ItemGroups(tuple(items), clusters, FOUND_CLUSTERS, declared.slices)


def item_owners(
    metadata: Mapping[str, Mapping[str, Any]], turns: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[str]]:
    """Returns the names of the caller and of the conversations that an item came from.

    Args:
        metadata: by item.
        turns: by item, the texts of its turns; an item whose turns begin with all turns of
            another item continues its conversation.
    """
    conversations = {tuple(texts) for texts in turns.values()}
    beginnings = {
        tuple(texts[:end]) for texts in turns.values() for end in range(1, len(texts))
    }
    continued = conversations & beginnings
    return {
        item: (
            *_provenance_names(metadata[item]),
            *(
                f"{CONVERSATION}:{short_hash(canonical_json(texts[:end]), _NAME_BYTES).hex()}"
                for end in range(1, len(texts) + 1)
                if tuple(texts[:end]) in continued
            ),
        )
        for item, texts in turns.items()
    }


def _provenance_names(metadata: Mapping[str, Any]) -> Sequence[str]:
    """Returns the pseudonyms of a captured item's caller and conversation."""
    provenance = metadata.get("provenance")
    if not isinstance(provenance, Mapping):
        return ()
    return tuple(
        f"{kind}:{provenance[kind]}" for kind in (CALLER, CONVERSATION) if provenance.get(kind)
    )


def describe_template(texts: Mapping[str, str]) -> str:
    """Describes items that differ in few words from many others; empty unless REPEATED_SHARE of
    the items do. From a text alone, Swapproof cannot tell a template from a question that many
    people asked.
    """
    compared = dict(islice(texts.items(), MOST_COMPARED))
    similar = find_near_duplicates(compared, threshold=NEAR_REPEAT)
    if len(similar) < REPEATED_SHARE * len(compared):
        return ""
    repeat, first = next(iter(similar.items()))
    return (
        f"{len(similar)} of {len(compared)} items differ in few words from another item, "
        f"such as {repeat} and {first}; unless they come from one template, name a `cluster` "
        "field (`swapproof docs open suites`)"
    )


def describe_dependence(groups: ItemGroups, repeats: Mapping[str, str]) -> str:
    """Describes equal items, the clusters that Swapproof found, and a cluster that is large;
    empty without any.

    Args:
        repeats: an item to the earlier item that it repeats.
    """
    remarks = []
    if repeats:
        repeat, first = next(iter(repeats.items()))
        remarks.append(
            f"{format_quantity(len(repeats), 'item')} repeat the question and the target of "
            f"another item, such as {repeat} and {first}, and count once"
        )
    if groups.cluster_field == FOUND_CLUSTERS:
        remarks.append(
            f"{len(groups.items):,} items form {groups.units:,} clusters of similar texts, or "
            "of the same caller or conversation: a cluster counts as one item"
        )
    name, size = groups.largest
    if size > max(1, LARGE_CLUSTER * len(groups.items)) and groups.units > 1:
        share = format_percent(size / len(groups.items))
        remarks.append(
            f"the cluster of {format_excerpt(name, EXCERPT)} has {size:,} items ({share}), "
            f"more than {format_percent(LARGE_CLUSTER)}: check if they belong together; items "
            "about other things would show more"
        )
    return "; ".join(remarks)


def _group_by_name(pairs: Iterable[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """Lists the items of each name, from pairs of item and name."""
    items_by_name: dict[str, list[str]] = defaultdict(list)
    for item, name in pairs:
        items_by_name[name].append(item)
    return items_by_name


class _Partition:
    """Joins items into disjoint groups."""

    def __init__(self, items: Iterable[str]) -> None:
        self._above = {item: item for item in items}
        self._place = {item: number for number, item in enumerate(self._above)}

    def first(self, item: str) -> str:
        """Returns the first item of an item's group, in the items' order."""
        while self._above[item] != item:
            self._above[item] = self._above[self._above[item]]
            item = self._above[item]
        return item

    def join(self, items: Sequence[str]) -> None:
        """Joins the groups of these items into one group."""
        firsts = {self.first(item) for item in items}
        top = min(firsts, key=self._place.__getitem__)
        self._above |= dict.fromkeys(firsts, top)
