"""The order in which a run asks its items: shuffled by a seed, the same for every target."""

from collections.abc import Iterable
from hashlib import sha256


def shuffle_items(item_ids: Iterable[str], order_seed: int) -> tuple[str, ...]:
    """A permutation of the ids that depends on the ids and the seed alone.

    Sorted by a hash and not by `random`: the same in every version of Python, and an item that
    leaves the suite moves no other past its neighbour.
    """
    return tuple(
        sorted(item_ids, key=lambda each: sha256(f"{order_seed}:{each}".encode()).digest())
    )


def plan_questions(
    item_ids: Iterable[str], *, order_seed: int, wanted: int, epochs: int
) -> tuple[tuple[int, str, int], ...]:
    """(position, item, epoch) of a run, in the order of asking.

    Positions and epochs are counted from 0 and 1. wanted: how many items of the order are
    asked; all of an item's epochs come together.
    """
    asked = shuffle_items(item_ids, order_seed)[:wanted]
    return tuple(
        (position, item, epoch)
        for position, item in enumerate(asked)
        for epoch in range(1, epochs + 1)
    )
