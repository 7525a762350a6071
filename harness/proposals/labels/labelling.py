"""A labelling collects people's preferences between both models' answers to the requests of one
suite. Pure.

Its pairs, people and claim are fixed at its start. Each draw is fixed before its label: which
pair, for whom, and what Swapproof bets. A person sees two answers in random order, without the
models' names, scores or evidence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from itertools import accumulate
from typing import Any, Final

from harness.gate.offline.label_evidence import DrawnPair, PairBlock, PairWeights
from harness.gate.offline.label_plan import LabelDesign, LabelStep, judge_level, size_blocks
from harness.gate.offline.people_claims import Population, SuiteLabels
from harness.gate.suite_plan import SuitePlan

# The share of the draws that go to two people, if a labelling has several.
OVERLAP_SHARE: Final = 0.1


class LabelChoice(StrEnum):
    """A person's answer about a pair, by what the answer shows as A and B."""

    A = "a"
    B = "b"
    TIE = "tie"
    CANNOT_TELL = "cannot_tell"
    SKIP = "skip"  # no label: the pair counts against the candidate until it has one


class ShownAnswer(StrEnum):
    A = "a"
    B = "b"


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """A pair of a labelling. weight: a share of 1. judged: the judge's preference for the
    candidate, from 0 to 1; None if both answers are mechanically equal. unit: which caller,
    conversation or run of the draw it belongs to. All units have equal weight.
    """

    item: str
    weight: float
    judged: float | None
    unit: int


@dataclass(frozen=True, slots=True)
class LabelledBlock:
    """A block of units, in the random order of the draws. open: its pairs that are not
    mechanically equal.
    """

    pairs: PairBlock
    open: Sequence[LabelledItem]


@dataclass(frozen=True, slots=True)
class Labelling:
    """The start of a labelling. people: the principals to whom pairs go at random.

    seed: 128 random bits, in hex, which decide draws, people and the order of answers.
    """

    id: str
    proposal: str
    suite: str
    suite_digest: str
    candidate: str  # target id
    run: str  # the candidate's eval run, which has its answers
    people: tuple[str, ...]
    design: LabelDesign
    items: tuple[LabelledItem, ...]
    seed: str
    author: str  # principal
    created_at: datetime

    def list_blocks(self) -> Sequence[LabelledBlock]:
        """Lists the blocks of units. The seed orders the units, so the blocks are random, and
        depend on no answer.
        """
        units: dict[int, list[LabelledItem]] = {}
        for item in self.items:
            units.setdefault(item.unit, []).append(item)
        ordered = sorted(units, key=lambda unit: self.chance("unit", unit))
        blocks = []
        start = 0
        for size in size_blocks(len(ordered), self.design):
            chosen = ordered[start : start + size]
            start += size
            items = [item for unit in chosen for item in units[unit]]
            weights = sum_weights(items, [item.weight for item in items])
            open_items = [item for item in items if item.judged is not None]
            blocks.append(LabelledBlock(PairBlock(size, weights), open_items))
        return blocks

    @property
    def labels_each(self) -> float:
        """The mean number of labels of a draw."""
        return 1.0 + OVERLAP_SHARE if len(self.people) > 1 else 1.0

    def count_most_labels(self) -> int:
        """Counts the labels if each block needs its own."""
        open_blocks = sum(bool(block.open) for block in self.list_blocks())
        return sum(len(self.choose_people(number + 1)) for number in range(open_blocks))

    def chance(self, *parts: object) -> float:
        """Computes a number from 0 to below 1 from the random seed."""
        text = ":".join([self.seed, *map(str, parts)])
        return int.from_bytes(sha256(text.encode()).digest()[:7]) / 2**56

    def shows_candidate_first(self, number: int, person: str) -> bool:
        """Tells whether A is the candidate's answer in a draw, for a person."""
        return self.chance("order", number, person) < 0.5

    def choose_people(self, number: int) -> tuple[str, ...]:
        """Chooses who labels a draw: one person, or two in a share of the draws."""
        first = int(self.chance("person", number) * len(self.people))
        if len(self.people) < 2 or self.chance("overlap", number) >= OVERLAP_SHARE:
            return (self.people[first],)
        others = [*self.people[:first], *self.people[first + 1 :]]
        second = others[int(self.chance("second", number) * len(others))]
        return (self.people[first], second)


def sum_weights(items: Sequence[LabelledItem], weights: Sequence[float]) -> PairWeights:
    """Sums weights of pairs by the judge's preference, and divides them by their sum."""
    sums = [0.0, 0.0, 0.0]
    ties = 0.0
    for item, weight in zip(items, weights, strict=True):
        if item.judged is None:
            ties += weight
        else:
            sums[judge_level(item.judged)] += weight
    total = ties + sum(sums)
    return PairWeights(ties / total, (sums[0] / total, sums[1] / total, sums[2] / total))


@dataclass(frozen=True, slots=True)
class LabelDraw:
    """A drawn pair, stored before its label. number: from 1, of the block among those with
    open pairs. people: who label it.
    """

    labelling: str
    number: int
    item: str
    people: tuple[str, ...]
    step: Mapping[str, Any]  # the label step as JSON
    at: datetime


@dataclass(frozen=True, slots=True)
class PairLabel:
    """A person's answer about a draw. It never changes; only a skipped pair gets another.

    preference: the candidate's share of the win, None for a skipped pair. unacceptable: how
    much more the candidate's answer is unacceptable than the incumbent's (−1, 0 or 1).
    """

    id: str
    labelling: str
    number: int
    person: str  # principal
    choice: LabelChoice
    preference: float | None
    unacceptable: float | None
    at: datetime


def draw_item(labelling: Labelling, block: LabelledBlock, number: int) -> LabelledItem:
    """Draws one of a block's open pairs, in proportion to their weights.

    Args:
        number: of the draw.

    The draw depends on the seed alone, not on judge or labels.
    """
    sums = [*accumulate(item.weight for item in block.open)]
    point = labelling.chance("draw", number) * sums[-1]
    return next(item for item, upto in zip(block.open, sums, strict=True) if point < upto)


def read_label(
    labelling: Labelling,
    draw: LabelDraw,
    person: str,
    choice: LabelChoice,
    unacceptable: Iterable[ShownAnswer],
) -> tuple[float | None, float | None]:
    """Translates a person's answer about A and B into the candidate's preference and its
    unacceptable answers.
    """
    if choice is LabelChoice.SKIP:
        return None, None
    first = labelling.shows_candidate_first(draw.number, person)
    ours, theirs = (ShownAnswer.A, ShownAnswer.B) if first else (ShownAnswer.B, ShownAnswer.A)
    marked = set(unacceptable)
    harm = float(ours in marked) - float(theirs in marked)
    if choice.value == ours.value:
        return 1.0, harm
    return (0.0 if choice.value == theirs.value else 0.5), harm


def build_drawn_pairs(
    labelling: Labelling,
    draws: Sequence[LabelDraw],
    labels: Iterable[PairLabel],
) -> list[DrawnPair]:
    """Joins draws and labels for the evidence, in the order of the draws.

    A draw of two people has the mean of their labels. A label that is missing counts 0 for the
    lower bound, and 1 for the upper bound.
    """
    by_item = {item.item: item for item in labelling.items}
    given: dict[tuple[int, str], PairLabel] = {
        (label.number, label.person): label for label in labels if label.preference is not None
    }
    pairs = []
    for draw in draws:
        item = by_item[draw.item]
        found = [given.get((draw.number, person)) for person in draw.people]
        low = [label.preference or 0.0 if label else 0.0 for label in found]
        high = [label.preference or 0.0 if label else 1.0 for label in found]
        harms = [label.unacceptable for label in found if label]
        whole = len(harms) == len(found)
        pairs.append(
            DrawnPair(
                judge_level(item.judged or 0.0),
                item.weight,
                LabelStep.from_json(draw.step),
                sum(low) / len(found),
                sum(high) / len(found),
                sum(harm or 0.0 for harm in harms) / len(found) if whole else None,
            )
        )
    return pairs


def build_suite_labels(
    labelling: Labelling,
    draws: Sequence[LabelDraw],
    labels: Sequence[PairLabel],
    plan: SuitePlan,
    names: Sequence[str],
    proposer: str,
) -> SuiteLabels:
    """Builds what the gate reads of a labelling.

    Args:
        names: of its people, in their order.
        proposer: the principal who proposed the candidate.
    """
    given = [label for label in labels if label.preference is not None]
    shares = _weigh_by_requests(plan, len(labelling.items))
    by_item = dict(zip((item.item for item in labelling.items), shares, strict=bool(shares)))
    return SuiteLabels(
        labelling=labelling.id,
        people=tuple(names),
        labels=len(given),
        labellers=len({label.person for label in given}),
        design=labelling.design,
        blocks=tuple(block.pairs for block in labelling.list_blocks()),
        drawn=tuple(build_drawn_pairs(labelling, draws, labels)),
        requests=sum_weights(labelling.items, shares) if shares else None,
        by_requests=tuple(by_item[draw.item] for draw in draws) if shares else (),
        cannot_tell=sum(label.choice is LabelChoice.CANNOT_TELL for label in given),
        sides=tuple(_count_sides(given, person) for person in labelling.people),
        ties=tuple(_count_ties(given, person) for person in labelling.people),
        by_proposer={label.person for label in given} == {proposer},
        population=_find_population(plan),
    )


def _find_population(plan: SuitePlan) -> Population:
    if plan.about_these:
        return Population.THESE
    return Population.TRAFFIC if plan.unit_requests else Population.KIND


def _count_sides(labels: Iterable[PairLabel], person: str) -> tuple[int, int]:
    """Counts a person's labels that prefer A, and those that prefer B."""
    counts = Counter(label.choice for label in labels if label.person == person)
    return counts[LabelChoice.A], counts[LabelChoice.B]


def _count_ties(labels: Iterable[PairLabel], person: str) -> int:
    """Counts a person's labels that prefer neither answer."""
    equal = (LabelChoice.TIE, LabelChoice.CANNOT_TELL)
    return sum(label.person == person and label.choice in equal for label in labels)


def _weigh_by_requests(plan: SuitePlan, items: int) -> list[float]:
    """Gives a unit's items equal shares of its requests in the log; empty without counts."""
    if not sum(plan.unit_requests) or items != plan.planned_items:
        return []
    sizes: Sequence[int] = plan.cluster_sizes or (1,) * items
    raw = [
        requests / size
        for requests, size in zip(plan.unit_requests, sizes, strict=False)
        for _ in range(size)
    ][:items]
    total = sum(raw)
    return [share / total for share in raw]


def count_agreement(labels: Iterable[PairLabel]) -> tuple[int, int]:
    """Counts the draws that two people labelled, and those in which both prefer the same."""
    by_draw: dict[int, list[float]] = {}
    for label in labels:
        if label.preference is not None:
            by_draw.setdefault(label.number, []).append(label.preference)
    both = [given for given in by_draw.values() if len(given) > 1]
    return len(both), sum(len(set(given)) == 1 for given in both)
