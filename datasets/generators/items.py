"""What an item is, how items are collected, and how near-doubles are kept out.

A suite's author is a function of a seeded `random.Random` that writes one `Item`. `collect`
calls the authors in turn and takes what they write until the suite is full. It refuses equal
inputs, and a story whose `shape` (the text with numbers and names masked) came up
`SHAPE_LIMIT` times already.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

ITEMS_PER_SUITE = 480
SHAPE_LIMIT = 3
TRIES_PER_ITEM = 3000

NUMBER = re.compile(r"\d[\d.,:/'-]*")
NAME = re.compile(r"\b[A-Z][\w'’]*(?: [A-Z][\w'’]*)*")


@dataclass(frozen=True, slots=True)
class Item:
    """One task. `story` is the part of `input` that no other item shares as boilerplate.

    difficulty: 0 (easy) to 1 (hard), counted from what makes the item hard.
    distractors: plausible wrong answers of the target's type, at least two.
    """

    input: str
    story: str
    target: Any
    difficulty: float
    tags: tuple[str, ...]
    distractors: tuple[Any, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    def record(self, identity: str) -> dict[str, Any]:
        """The JSON line of this item."""
        return {
            "id": identity,
            "input": self.input,
            "target": self.target,
            "metadata": {
                "difficulty": self.difficulty,
                "tags": list(self.tags),
                "distractors": list(self.distractors),
                **self.extra,
            },
        }


Author = Callable[[Random], Item | None]


def shape(text: str) -> str:
    """The text with every number as `#` and every run of capitalised words as `N`."""
    return NAME.sub("N", NUMBER.sub("#", text))


def graded(points: float) -> float:
    """A difficulty in [0.05, 1] with two decimals."""
    return round(min(1.0, max(0.05, points)), 2)


def collect(name: str, authors: Sequence[Author], rng: Random) -> list[dict[str, Any]]:
    """`ITEMS_PER_SUITE` records in shuffled order, the same number from each author (±1).

    An author answers None for a draw that does not work out (a remainder, say); it is asked
    again. Raises RuntimeError when an author has nothing new to say.
    """
    shapes: Counter[str] = Counter()
    inputs: set[str] = set()
    items: list[Item] = []
    for turn in range(ITEMS_PER_SUITE):
        author = authors[turn % len(authors)]
        for _ in range(TRIES_PER_ITEM):
            item = author(rng)
            if item is None or item.input in inputs:
                continue
            if shapes[shape(item.story)] < SHAPE_LIMIT:
                break
        else:
            raise RuntimeError(f"{name}: author {turn % len(authors)} repeats itself")
        shapes[shape(item.story)] += 1
        inputs.add(item.input)
        items.append(item)
    rng.shuffle(items)
    return [item.record(f"{name}-{n:04}") for n, item in enumerate(items, start=1)]
