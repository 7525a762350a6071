"""The evidence of people's labels: what the labels so far show about these pairs (statistics.md
§1.23). Pure.

Each label pays the bets that its label step fixed before. So anyone may read the evidence after
every label, and labelling may stop at any label: the e-value of a wrong claim reaches 1/alpha
with a probability of at most alpha. A drawn pair without a label counts against both verdicts.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import InputError
from harness.gate.arrays import ArrayLike, Floats, geometric_grid, log_mean, np, ordered_sum
from harness.gate.offline.design import REJECT_LOG_E
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
    """The weights of all pairs, with the sum 1: of the mechanically equal pairs together, and
    of the open pairs by judge's preference (0, ½, 1).
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
class DrawnPair:
    """A pair that was drawn for a label, in the order of the draws.

    judged: index of the judge's preference in `JUDGE_LEVELS`. low and high: bounds of the
    label, equal once it is complete; 0 and 1 without a label. unacceptable: the candidate's
    answer counts 1, the incumbent's −1 (their difference), None without a label.
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
    other draws count for the candidate. least, most: bounds of the difference of both rates.
    """

    log_e_labelled: float
    log_e_most: float
    least: float
    most: float

    @property
    def is_shown(self) -> bool:
        return self.log_e_most >= REJECT_LOG_E or self.least > _SLACK

    @property
    def is_suspected(self) -> bool:
        """Whether the evidence of harm is strong, and further labels may show it.

        A pair that is shown, but not labelled, does not weaken it.
        """
        return self.log_e_labelled >= _STRONG_LOG_E and self.most > _SLACK


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """What the labels show. outcome: promote | reject | inconclusive | running.

    low and high: the win share of these pairs, if all missing labels count against the
    candidate, or for it. estimate: the win share with predictions for missing labels, for
    display. predicted: the predictions by the judge's preference, 0 if no pair is open. The
    log e-values are the largest so far.
    """

    outcome: str
    labels: int  # complete
    drawn: int
    estimate: float
    predicted: tuple[float, ...]
    low: float
    high: float
    log_e_passing: float
    log_e_failing: float
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


class _Known:
    """What is known about the pairs before a draw. Sums have the unit weight times label."""

    def __init__(self, weights: PairWeights) -> None:
        self.open_weight = np.array(weights.open)
        self.drawn_weight = 0.0
        self.low = TIE * weights.ties
        self.high = TIE * weights.ties
        self.unacceptable = 0.0  # at least this much
        self.most_unacceptable = 0.0
        self.counts = LabelCounts.empty()

    def add(self, pair: DrawnPair) -> None:
        left = self.open_weight[pair.judged] - pair.weight
        # A level without pairs must not keep the sum's rounding error as its weight.
        self.open_weight[pair.judged] = left if left > _SLACK else 0.0
        self.drawn_weight += pair.weight
        self.low += pair.weight * pair.low
        self.high += pair.weight * pair.high
        self.unacceptable += pair.weight * pair.least_unacceptable
        most = 1.0 if pair.unacceptable is None else pair.unacceptable
        self.most_unacceptable += pair.weight * most
        if pair.is_labelled:
            self.counts.labels[pair.judged] += 1.0
            self.counts.total[pair.judged] += pair.low
            self.counts.squares[pair.judged] += pair.low**2

    def plan(self, design: LabelDesign) -> LabelStep:
        bounds = (np.asarray(self.low), np.asarray(self.high))
        return plan_label(self.open_weight, bounds, self.counts, design)

    def share_with(self, pair: DrawnPair, label: float, known: float) -> float:
        """Estimates the win share by a pair's label, with `known` about ties and draws."""
        judged = np.asarray(pair.judged)
        found = estimate_share(
            pair.step,
            self.open_weight,
            np.asarray(known),
            judged,
            np.asarray(label),
        )
        return float(found)


class _Capital:
    """The capital of one bet per stake, as logarithms. It starts at 1."""

    def __init__(self) -> None:
        self._logs: Floats = np.zeros(1)
        self.log_now = 0.0
        self.log_most = 0.0  # the largest so far

    def pay(self, stakes: Floats, excess: float) -> None:
        self._logs = self._logs + log_payoffs(stakes, np.asarray(excess))
        self.log_now = log_mean(self._logs.tolist())
        self.log_most = max(self.log_most, self.log_now)


def plan_next_label(
    weights: PairWeights,
    drawn: Sequence[DrawnPair],
    design: LabelDesign,
) -> LabelStep:
    """Plans the next draw from everything that is known now. At least one pair must be open."""
    known = _Known(weights)
    for pair in drawn:
        known.add(pair)
    return known.plan(design)


def replan_labels(
    weights: PairWeights,
    histories: Iterable[tuple[Sequence[DrawnPair], Sequence[DrawnPair]]],
    design: LabelDesign,
) -> Iterator[LabelStep]:
    """Plans each draw of a labelling again, as `plan_next_label` did at its time.

    histories: for each draw, the earlier pairs whose labels were complete since the draw
    before, and the pairs whose labels were still missing then.
    """
    complete = _Known(weights)
    for newly_complete, missing in histories:
        for pair in newly_complete:
            complete.add(pair)
        known = deepcopy(complete)
        for pair in missing:
            known.add(pair)
        yield known.plan(design)


def judge_labels(
    weights: PairWeights,
    drawn: Sequence[DrawnPair],
    design: LabelDesign,
) -> LabelEvidence:
    """Computes the evidence of all draws so far, in the order of the draws.

    Uses the logged steps, so a late label changes no bet. The first verdict counts, and PASSED
    of two verdicts at one label.
    """
    known = _Known(weights)
    passing = _Capital()
    failing = _Capital()
    harm = _Capital()
    labelled_harm = _Capital()
    # Equal pairs are known, and may be enough without a label.
    outcome = _decide(known, passing, failing, design)
    for pair in drawn:
        low = known.share_with(pair, pair.low, known.low)
        high = known.share_with(pair, pair.high, known.high)
        passing.pay(pair.step.passing, low - design.theta0)
        failing.pay(pair.step.failing, design.rejected_below - high)
        _pay_harm(harm, pair, known, known.unacceptable, pair.least_unacceptable)
        if pair.unacceptable is not None:
            _pay_harm(labelled_harm, pair, known, known.most_unacceptable, pair.unacceptable)
        known.add(pair)
        if outcome == "running":
            outcome = _decide(known, passing, failing, design)
    if (
        outcome == "running"
        and known.high - known.low <= _SLACK
        and not known.open_weight.any()
    ):
        outcome = "inconclusive"
    open_weight = known.open_weight
    predicted = known.plan(design).predicted if open_weight.any() else np.zeros(3)
    return LabelEvidence(
        outcome,
        labels=sum(pair.is_labelled for pair in drawn),
        drawn=len(drawn),
        estimate=(known.low + known.high) / 2.0 + float((open_weight * predicted).sum()),
        predicted=tuple(predicted.tolist()),
        low=known.low,
        high=known.high + float(open_weight.sum()),
        log_e_passing=passing.log_most,
        log_e_failing=failing.log_most,
        harm=HarmEvidence(
            labelled_harm.log_now,
            harm.log_most,
            least=known.unacceptable - float(open_weight.sum()),
            most=known.most_unacceptable + float(open_weight.sum()),
        ),
    )


def _decide(
    known: _Known,
    passing: _Capital,
    failing: _Capital,
    design: LabelDesign,
) -> str:
    """Decides after a label, by the evidence, or because the open pairs cannot matter."""
    if passing.log_most >= design.enough_log_e or known.low > design.theta0 + _SLACK:
        return "promote"
    most = known.high + float(known.open_weight.sum())
    if failing.log_most >= design.reject_log_e or most < design.rejected_below - _SLACK:
        return "reject"
    return "running"


def _pay_harm(
    harm: _Capital,
    pair: DrawnPair,
    known: _Known,
    found: float,
    label: float,
) -> None:
    """Bets that people call more of the candidate's answers unacceptable. The stakes depend on
    the draws alone. found: the sum over earlier draws. label: this pair's `unacceptable`.
    """
    rates = pair.step.rates
    worst = known.drawn_weight + float((1.0 / rates[known.open_weight > 0.0]).max())
    value = found + label / float(rates[pair.judged])
    harm.pay(np.asarray(_GUARD_STAKES) / worst, value)


def log_payoffs(stakes: Floats, excess: Floats) -> Floats:
    """Computes the logarithm of each stake's factor (…, stakes). excess: the distance of the
    step's value from the null hypothesis, in the direction of the bet (…).
    """
    return np.asarray(np.log1p(stakes * excess[..., None]), dtype=np.float64)


def estimate_share(
    step: LabelStep,
    open_weight: Floats,
    known: Floats,
    judged: ArrayLike,
    label: Floats,
) -> Floats:
    """Computes the unbiased estimate Z of these pairs' win share by one drawn pair (…).

    open_weight: before the draw (…, 3). known: the sum over ties and earlier draws (…).
    judged: index of the judge's preference. label: the person's preference (…).
    """
    at = np.asarray(judged, dtype=np.int64)[..., None]
    predicted = np.take_along_axis(step.predicted, at, axis=-1)[..., 0]
    rate = np.take_along_axis(step.rates, at, axis=-1)[..., 0]
    expected = ordered_sum(open_weight * step.predicted)
    return np.asarray(known + expected + (label - predicted) / rate, dtype=np.float64)
