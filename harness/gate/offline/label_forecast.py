"""Forecasts how many labels a verdict needs, by simulated people whose preferences agree with
the judge as often as the expected correlation says (statistics.md §1.23). Pure: the seed is
fixed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from harness.gate.arrays import Bools, Floats, Ints, log_mean_rows, np
from harness.gate.offline.design import REJECT_LOG_E
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.label_evidence import estimate_share, log_payoffs
from harness.gate.offline.label_plan import (
    JUDGE_LEVELS,
    TIE,
    LabelCounts,
    LabelDesign,
    LabelStep,
    plan_label,
    size_blocks,
)
from harness.gate.suite_plan import Claim

if TYPE_CHECKING:
    from numpy.random import Generator

EQUAL: Final = 9  # the kind of a mechanically equal pair
_RUNS: Final = 200
_SEED: Final = 81
# Assumed share of the open pairs that people call a tie.
PEOPLE_TIES: Final = 0.2
_SUPERIOR_GAIN: Final = 0.05  # over the incumbent, for the claim `superior`


@dataclass(frozen=True, slots=True)
class LabelForecast:
    """Blocks until PASSED, if the candidate is as good as the plan assumes: median and 80 %
    quantile. Each block has one label, or two of two people. None: fewer labellings pass.
    passed: the share of labellings that pass.
    """

    median: int | None
    quantile_80: int | None
    passed: float


@dataclass(frozen=True, slots=True)
class SimulatedLabels:
    """Simulated runs until their verdict (runs). passed: with PASSED. labels: used. tested:
    with PASSED by the last test, when each block had its label.
    """

    passed: Bools
    failed: Bools
    labels: Ints
    tested: Bools


class LabelRuns:
    """Simulated runs over drawn callers with one pair each, in random order. kinds (runs,
    callers): 3·(the judge's level) + (the person's level), or EQUAL.
    """

    def __init__(self, kinds: Ints) -> None:
        self.kinds = kinds
        self.counts = LabelCounts.empty(len(kinds))
        self.composition = np.zeros((len(kinds), 1 + len(JUDGE_LEVELS)))
        self._runs = np.arange(len(kinds))

    @classmethod
    def draw(
        cls,
        shares: Floats,
        callers: int,
        runs: int,
        rng: "Generator",
        *,
        ties: float = 0.0,
    ) -> Self:
        """Draws other callers for each run.

        Args:
            shares: of the traffic's open pairs, by the judge's preference and the person's (3,
                3).
            ties: the share of mechanically equal pairs.
        """
        every = np.append((1.0 - ties) * shares.reshape(-1), ties)
        drawn = rng.choice(every.size, size=(runs, callers), p=every / every.sum())
        return cls(drawn.astype(np.int8))

    def label_block(self, start: int, callers: int, rng: "Generator") -> "SimulatedBlock":
        """Draws a pair of the next block for each run. `count` must follow."""
        kinds = self.kinds[:, start : start + callers]
        levels = kinds // len(JUDGE_LEVELS)
        shares = np.stack([(levels == at).mean(axis=1) for at in (3, 0, 1, 2)], axis=1)
        upto = np.cumsum(kinds != EQUAL, axis=1)
        chosen = (rng.random(len(kinds))[:, None] * upto[:, -1:] >= upto).sum(axis=1)
        kind = kinds[self._runs, np.minimum(chosen, callers - 1)]
        is_open = upto[:, -1] > 0
        judged = np.where(is_open, kind // len(JUDGE_LEVELS), 0)
        label = np.asarray(JUDGE_LEVELS)[kind % len(JUDGE_LEVELS)]
        return SimulatedBlock(callers, shares[:, 0], shares[:, 1:], is_open, judged, label)

    def count(self, block: "SimulatedBlock") -> None:
        """Counts a block and its label for the later plans."""
        self.composition[:, 0] += block.callers * block.ties
        self.composition[:, 1:] += block.callers * block.levels
        at = (self._runs, block.judged)
        self.counts.labels[at] += block.is_open
        self.counts.total[at] += block.is_open * block.label
        self.counts.squares[at] += block.is_open * block.label**2


@dataclass(frozen=True, slots=True)
class SimulatedBlock:
    """A block of each run (runs). levels: (runs, 3). is_open: whether it needs a label."""

    callers: int
    ties: Floats
    levels: Floats
    is_open: Bools
    judged: Ints
    label: Floats

    def value(self, step: LabelStep) -> Floats:
        return estimate_share(step, self.ties, self.levels, self.judged, self.label)


def simulate_labels(
    runs: LabelRuns, design: LabelDesign, seed: int, most: int | None = None
) -> SimulatedLabels:
    """Labels the blocks of callers until every run has a verdict, or for at most `most` blocks.
    The last test needs all blocks.
    """
    rng = np.random.default_rng(seed)
    size, callers = runs.kinds.shape
    enough = -np.log(design.early_share(callers) * design.alpha)
    passing = np.zeros((size, len(design.gains)))
    failing = np.zeros_like(passing)
    passed = np.zeros(size, dtype=np.bool_)
    failed = np.zeros_like(passed)
    used = np.zeros(size, dtype=np.int64)
    values = []
    start = 0
    blocks = size_blocks(callers, design)
    for block_callers in blocks[:most]:
        step = plan_label(runs.composition, runs.counts, block_callers, design)
        block = runs.label_block(start, block_callers, rng)
        start += block_callers
        value = block.value(step)
        values.append(value)
        is_going = ~passed & ~failed
        used += is_going & block.is_open
        passing += log_payoffs(step.passing, value - design.theta0)
        failing += log_payoffs(step.failing, design.theta0 - value)
        runs.count(block)
        passed |= is_going & (log_mean_stakes(passing) >= enough)
        failed |= is_going & ~passed & (log_mean_stakes(failing) >= REJECT_LOG_E)
        if (passed | failed).all():
            break
    tested = np.zeros_like(passed)
    if len(values) == len(blocks):
        tested = ~passed & ~failed & decide_late(np.stack(values, axis=1), design, callers)
    return SimulatedLabels(passed | tested, failed, used, tested)


def decide_late(values: Floats, design: LabelDesign, callers: int) -> Bools:
    """Tests the values of all blocks (runs, blocks), as `judge_labels` does."""
    p = final_p(2.0 * values - 1.0, 2.0 * design.theta0 - 1.0)
    return np.asarray(p <= (1.0 - design.early_share(callers)) * design.alpha)


def forecast_labels(
    callers: int,
    ties: int,
    design: LabelDesign,
    *,
    correlation: float | None = None,
) -> LabelForecast:
    """Forecasts the labels until PASSED for a candidate that is as good as the incumbent, and 5
    points better for `superior`.

    Args:
        callers: drawn, with one pair each, because a block of callers needs one label however
            many pairs it has.
        ties: how many of them have mechanically equal answers.
        correlation: between the simulated people and the judge; None for the design's. The plan
            keeps the design's.
    """
    gain = 0.0 if design.claim is Claim.NON_INFERIOR else _SUPERIOR_GAIN
    people = design.correlation if correlation is None else correlation
    unequal = callers - ties
    shares = joint_pairs(unequal, TIE + gain, people) / max(1, unequal)
    rng = np.random.default_rng(_SEED)
    runs = LabelRuns.draw(shares, callers, _RUNS, rng, ties=ties / callers)
    found = simulate_labels(runs, design, _SEED)
    used = np.where(found.passed, found.labels, callers + 1)
    median, late = (int(np.quantile(used, share, method="higher")) for share in (0.5, 0.8))
    return LabelForecast(
        median if median <= callers else None,
        late if late <= callers else None,
        float(found.passed.mean()),
    )


def joint_pairs(
    pairs: int,
    win_share: float,
    correlation: float,
) -> Ints:
    """Counts pairs by the judge's preference and the person's (3, 3). Judge and person agree in
    a share `correlation` of the pairs, and are independent in the others.
    """
    wins = win_share - PEOPLE_TIES / 2.0
    shares = np.array([1.0 - PEOPLE_TIES - wins, PEOPLE_TIES, wins])
    joint = correlation * np.diag(shares) + (1.0 - correlation) * np.outer(shares, shares)
    return round_shares(joint, pairs)


def round_shares(shares: Floats, pairs: int) -> Ints:
    """Rounds shares with the sum 1 to whole pairs, the largest remainders up."""
    exact = (shares * pairs).reshape(-1)
    counts = np.floor(exact).astype(np.int64)
    missing = pairs - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return np.asarray(counts.reshape(shares.shape))


def log_mean_stakes(logs: Floats) -> Floats:
    """Computes the log of the mean capital over the stakes (…, stakes)."""
    return log_mean_rows([logs[:, stake] for stake in range(logs.shape[1])])
