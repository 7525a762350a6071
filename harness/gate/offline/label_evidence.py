"""The evidence of people's labels: what the labels so far show about the traffic behind these
pairs (statistics.md §1.23). Pure.

Each block of callers pays the bets that its label step fixed before. So anyone may read the
evidence after every label, and labelling may stop at any label: the e-value of a wrong claim
reaches 1/alpha with a probability of at most alpha. When each block has its label, a test of
all blocks has the rest of alpha. A drawn pair without a label counts against both verdicts.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import InputError
from harness.gate.arrays import ArrayLike, Floats, geometric_grid, log_mean, np, ordered_sum
from harness.gate.offline.design import REJECT_LOG_E
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.label_plan import (
    TIE,
    LabelCounts,
    LabelDesign,
    LabelStep,
    plan_label,
)

_SLACK: Final = 1e-9
_STRONG_LOG_E: Final = math.log(10.0)
# Stakes of the guard of unacceptable answers, in shares of the largest possible loss.
_GUARD_STAKES: Final = geometric_grid(0.02, 0.9, 15)


@dataclass(frozen=True, slots=True)
class PairWeights:
    """The weights of pairs, with the sum 1: of the mechanically equal pairs together, and of
    the open pairs by judge's preference (0, ½, 1).
    """

    ties: float
    open: tuple[float, float, float]

    def __post_init__(self) -> None:
        weights = (self.ties, *self.open)
        if min(weights) < 0.0 or abs(math.fsum(weights) - 1.0) > _SLACK:
            raise InputError(
                f"the weights of the pairs are 0 or more and have the sum 1, not {weights}"
            )


@dataclass(frozen=True, slots=True)
class PairBlock:
    """A block of callers, with equal weights. A person labels one of its open pairs, drawn in
    proportion to the weights of its pairs.
    """

    callers: int
    pairs: PairWeights

    @property
    def open_share(self) -> float:
        """The weight of the open pairs; 0 if the block needs no label."""
        return math.fsum(self.pairs.open)

    def value(self, step: LabelStep, judged: int, label: float) -> float:
        """Estimates the win share without bias, by a label of one pair."""
        levels = np.asarray(self.pairs.open)
        found = estimate_share(
            step,
            np.asarray(self.pairs.ties),
            levels,
            np.asarray(judged),
            np.asarray(label),
        )
        return float(found)


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """A pair that was drawn for a label: one of each block with open pairs, in their order.

    judged: index of the judge's preference in `JUDGE_LEVELS`. weight: among all pairs. low and
    high: bounds of the label, equal once it is complete; 0 and 1 without a label.
    unacceptable: the candidate's answer counts 1, the incumbent's −1 (their difference), None
    without a label.
    """

    judged: int
    weight: float
    step: LabelStep
    low: float = 0.0
    high: float = 1.0
    unacceptable: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise InputError(f"a label is from 0 to 1, not {self.low:g} to {self.high:g}")
        if self.unacceptable is not None and not -1.0 <= self.unacceptable <= 1.0:
            raise InputError(f"unacceptable is from -1 to 1, not {self.unacceptable:g}")

    @property
    def is_labelled(self) -> bool:
        return self.low == self.high

    @property
    def least_unacceptable(self) -> float:
        """The lower bound of `unacceptable`: without a label, only the incumbent's may be."""
        return -1.0 if self.unacceptable is None else self.unacceptable


@dataclass(frozen=True, slots=True)
class HarmEvidence:
    """Evidence that people call more of the candidate's answers unacceptable than of the
    incumbent's.

    log_e_labelled: now, by the draws with a label alone. log_e_most: the largest so far, if the
    other draws count for the candidate. may_grow: whether labels are left that may show it.
    """

    log_e_labelled: float
    log_e_most: float
    may_grow: bool

    @property
    def is_shown(self) -> bool:
        return self.log_e_most >= REJECT_LOG_E

    @property
    def is_suspected(self) -> bool:
        """Whether the evidence of harm is strong, and further labels may show it.

        A pair that is shown, but not labelled, does not weaken it.
        """
        return self.log_e_labelled >= _STRONG_LOG_E and self.may_grow


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """What the labels show. outcome: promote | reject | inconclusive | running.

    estimate: the win share of all pairs, with predictions for missing labels, for display.
    predicted: the predictions by the judge's preference. The log e-values are the largest so
    far. p_passing: of the e-value and the last test together.
    """

    outcome: str
    labels: int  # complete
    drawn: int
    estimate: float
    predicted: tuple[float, ...]
    log_e_passing: float
    log_e_failing: float
    p_passing: float
    harm: HarmEvidence

    @property
    def is_decided(self) -> bool:
        """Whether labelling may end: more labels would not change the verdict.

        A shown claim waits while there is strong evidence of unacceptable answers.
        """
        if self.harm.is_shown or self.outcome in ("reject", "inconclusive"):
            return True
        return self.outcome == "promote" and not self.harm.is_suspected

    @property
    def passes(self) -> bool:
        return self.is_decided and self.outcome == "promote" and not self.harm.is_shown


class _Capital:
    """The capital of one bet per stake, as logarithms. It starts at 1."""

    def __init__(self) -> None:
        self._logs: Floats = np.zeros(1)
        self.log_now = 0.0
        self.log_most = 0.0  # the largest so far

    def pay(self, stakes: ArrayLike, excess: float) -> None:
        self._logs = self._logs + log_payoffs(np.asarray(stakes), np.asarray(excess))
        self.log_now = log_mean(self._logs.tolist())
        self.log_most = max(self.log_most, self.log_now)


class _Reading:
    """The bets of the blocks in their order, and the first verdict."""

    def __init__(self, blocks: Sequence[PairBlock], design: LabelDesign) -> None:
        self.design = design
        self.early_share = design.early_share(sum(block.callers for block in blocks))
        self.outcome = "running"
        self.passing = _Capital()
        self.failing = _Capital()
        self.harm = _Capital()
        self.labelled_harm = _Capital()
        self.values: list[float] = []  # of the blocks so far, the lower bounds
        self._left = list(reversed(blocks))

    @property
    def open_blocks(self) -> int:
        """How many blocks still need a label."""
        return sum(block.open_share > 0.0 for block in self._left)

    @property
    def has_rest(self) -> bool:
        return bool(self._left)

    def read(self, pair: DrawnPair) -> None:
        """Pays the blocks up to the pair's: equal answers need no label."""
        while self._left[-1].open_share == 0.0:
            self._pay_equal(pair.step)
        block = self._left.pop()
        self._pay(
            pair.step,
            block.value(pair.step, pair.judged, pair.low),
            block.value(pair.step, pair.judged, pair.high),
        )
        share = block.open_share
        self.harm.pay(_GUARD_STAKES, share * pair.least_unacceptable)
        if pair.unacceptable is not None:
            self.labelled_harm.pay(_GUARD_STAKES, share * pair.unacceptable)

    def read_rest(self, step: LabelStep) -> None:
        """Pays the last blocks. All their pairs must be mechanically equal."""
        while self._left:
            self._pay_equal(step)

    def _pay_equal(self, step: LabelStep) -> None:
        self._left.pop()
        self._pay(step, TIE, TIE)

    def _pay(self, step: LabelStep, low: float, high: float) -> None:
        theta0 = self.design.theta0
        self.values.append(low)
        self.passing.pay(step.passing, low - theta0)
        self.failing.pay(step.failing, theta0 - high)
        if self.outcome != "running":
            return
        if self.passing.log_most >= -math.log(self.early_share * self.design.alpha):
            self.outcome = "promote"
        elif self.failing.log_most >= REJECT_LOG_E:
            self.outcome = "reject"


def plan_next_label(
    blocks: Sequence[PairBlock],
    drawn: Sequence[DrawnPair],
    design: LabelDesign,
) -> LabelStep:
    """Plans the next draw from everything that is known now. A block must be left."""
    counts = LabelCounts.empty()
    for pair in drawn:
        _count(counts, pair)
    return _plan_draw(blocks, len(drawn), counts, design)


def replan_labels(
    blocks: Sequence[PairBlock],
    completed: Iterable[Sequence[DrawnPair]],
    design: LabelDesign,
) -> Iterator[LabelStep]:
    """Plans each draw of a labelling again, as `plan_next_label` did at its time.

    Args:
        completed: for each draw, the earlier pairs whose labels are complete since the draw
            before.
    """
    counts = LabelCounts.empty()
    for number, pairs in enumerate(completed):
        for pair in pairs:
            _count(counts, pair)
        yield _plan_draw(blocks, number, counts, design)


def _count(counts: LabelCounts, pair: DrawnPair) -> None:
    if pair.is_labelled:
        counts.labels[pair.judged] += 1.0
        counts.total[pair.judged] += pair.low
        counts.squares[pair.judged] += pair.low**2


def _plan_draw(
    blocks: Sequence[PairBlock], earlier: int, counts: LabelCounts, design: LabelDesign
) -> LabelStep:
    """Plans a draw from the blocks up to the one of the draw before."""
    composition = np.zeros(4)
    at = 0
    for _ in range(earlier):
        is_open = False
        while not is_open:
            block = blocks[at]
            composition = composition + block.callers * np.asarray(
                [block.pairs.ties, *block.pairs.open]
            )
            is_open = block.open_share > 0.0
            at += 1
    return plan_label(composition, counts, blocks[at].callers, design)


def judge_labels(
    blocks: Sequence[PairBlock],
    drawn: Sequence[DrawnPair],
    design: LabelDesign,
) -> LabelEvidence:
    """Computes the evidence of all draws so far, in the order of the draws.

    Uses the logged steps, so a late label changes no bet. The first verdict counts, and PASSED
    of two verdicts at one label.
    """
    reading = _Reading(blocks, design)
    for pair in drawn:
        reading.read(pair)
    labels = sum(pair.is_labelled for pair in drawn)
    counts = LabelCounts.empty()
    for pair in drawn:
        _count(counts, pair)
    is_whole = labels == len(drawn) and not reading.open_blocks
    if is_whole and reading.has_rest:
        reading.read_rest(_plan_draw(blocks, len(drawn), counts, design))
    early = min(1.0, math.exp(-reading.passing.log_most) / reading.early_share)
    outcome = reading.outcome
    p_passing = early
    if is_whole:
        late = min(1.0, _test_blocks(reading) / (1.0 - reading.early_share))
        p_passing = min(early, late)
        if outcome == "running":
            outcome = "promote" if late <= design.alpha else "inconclusive"
    predicted = plan_label(np.zeros(4), counts, 1, design).predicted
    return LabelEvidence(
        outcome,
        labels,
        len(drawn),
        _estimate_pairs(blocks, drawn, predicted),
        tuple(predicted.tolist()),
        reading.passing.log_most,
        reading.failing.log_most,
        p_passing,
        HarmEvidence(
            reading.labelled_harm.log_now, reading.harm.log_most, may_grow=not is_whole
        ),
    )


def _test_blocks(reading: _Reading) -> float:
    """Tests the values of all blocks by p_final of statistics.md §1.5. Their mean is the win
    share. As differences of scores, a win is 1 and a loss −1.
    """
    differences = 2.0 * np.asarray(reading.values) - 1.0
    if len(differences) < 2:
        return 1.0
    return float(final_p(differences, 2.0 * reading.design.theta0 - 1.0))


def _estimate_pairs(
    blocks: Sequence[PairBlock], drawn: Sequence[DrawnPair], predicted: Floats
) -> float:
    callers = sum(block.callers for block in blocks)
    known = TIE * math.fsum(block.callers * block.pairs.ties for block in blocks) / callers
    left = [
        math.fsum(block.callers * block.pairs.open[level] for block in blocks) / callers
        for level in range(len(predicted))
    ]
    for pair in drawn:
        left[pair.judged] -= pair.weight
        known += pair.weight * (pair.low + pair.high) / 2.0
    return known + math.fsum(
        max(0.0, weight) * float(share) for weight, share in zip(left, predicted, strict=True)
    )


def log_payoffs(stakes: Floats, excess: Floats) -> Floats:
    """Computes the logarithm of each stake's factor (…, stakes).

    Args:
        excess: the distance of the step's value from the null hypothesis, in the direction of
            the bet (…).
    """
    return np.asarray(np.log1p(stakes * excess[..., None]), dtype=np.float64)


def estimate_share(
    step: LabelStep,
    ties: Floats,
    levels: Floats,
    judged: ArrayLike,
    label: Floats,
) -> Floats:
    """Computes the unbiased estimate Z of the win share by one labelled pair of a block (…).

    Args:
        ties: the weight of the block's equal pairs.
        levels: the weights of its open pairs by the judge's preference (…, 3); the sum with
            `ties` is 1.
        judged: index of the judge's preference.
        label: the person's preference (…).
    """
    at = np.asarray(judged, dtype=np.int64)[..., None]
    predicted = np.take_along_axis(step.predicted, at, axis=-1)[..., 0]
    expected = TIE * ties + ordered_sum(levels * step.predicted)
    return np.asarray(expected + ordered_sum(levels) * (label - predicted), dtype=np.float64)
