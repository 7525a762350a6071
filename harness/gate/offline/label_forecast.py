"""Forecasts how many labels a verdict needs, by simulated people whose preferences agree with
the judge as often as the expected correlation says (statistics.md §1.23). Pure: the seed is
fixed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.gate.arrays import Bools, Floats, Ints, log_mean_rows, np
from harness.gate.offline.label_evidence import estimate_share, log_payoffs
from harness.gate.offline.label_plan import (
    JUDGE_LEVELS,
    TIE,
    LabelCounts,
    LabelDesign,
    plan_label,
)
from harness.gate.suite_plan import Claim

if TYPE_CHECKING:
    from numpy.random import Generator

MOST_LABELS: Final = 1_500  # simulated
_RUNS: Final = 200
_SEED: Final = 81
# Assumed share of the open pairs that people call a tie.
PEOPLE_TIES: Final = 0.2
_SUPERIOR_GAIN: Final = 0.05  # over the incumbent, for the claim `superior`


@dataclass(frozen=True, slots=True)
class LabelForecast:
    """Labels until PASSED, if the candidate is as good as the plan assumes: median and 80 %
    quantile. None: more than `MOST_LABELS`, or more than the pairs.
    """

    median: int | None
    quantile_80: int | None


@dataclass(frozen=True, slots=True)
class SimulatedLabels:
    """Simulated runs until their verdict (runs). passed: with PASSED. labels: used."""

    passed: Bools
    failed: Bools
    labels: Ints


class LabelRuns:
    """Simulated runs over pairs of equal weight. left: open pairs by the judge's preference and
    the person's (runs, 3, 3).
    """

    def __init__(self, pairs: Ints, ties: int, runs: int) -> None:
        self.size = int(pairs.sum()) + ties
        self.left = np.repeat(np.asarray(pairs, dtype=np.float64)[None], runs, axis=0)
        self.known = np.full(runs, TIE * ties / self.size)
        self.counts = LabelCounts.empty(runs)
        self._runs = np.arange(runs)

    @property
    def win_share(self) -> float:
        """The true win share of the pairs, the same in every run, before and after labels."""
        open_wins = self.left[0].sum(axis=0) @ np.asarray(JUDGE_LEVELS)
        return float(self.known[0] + open_wins / self.size)

    @property
    def open_weight(self) -> Floats:
        return np.asarray(self.left.sum(axis=-1) / self.size)

    def draw(self, rates: Floats, rng: "Generator") -> tuple[Ints, Ints]:
        """Draws a pair for each run: the levels of the judge's and the person's preference."""
        judged = _draw_level(self.open_weight * rates, rng)
        return judged, _draw_level(self.left[self._runs, judged], rng)

    def add(self, judged: Ints, preferred: Ints) -> None:
        label = np.asarray(JUDGE_LEVELS)[preferred]
        self.left[self._runs, judged, preferred] -= 1.0
        self.known = self.known + label / self.size
        self.counts.labels[self._runs, judged] += 1.0
        self.counts.total[self._runs, judged] += label
        self.counts.squares[self._runs, judged] += label**2


def simulate_labels(
    runs: LabelRuns, design: LabelDesign, seed: int, most: int
) -> SimulatedLabels:
    """Labels pairs until every run has a verdict, or for at most `most` labels each."""
    rng = np.random.default_rng(seed)
    passing = np.zeros((len(runs.known), len(design.gains)))
    failing = np.zeros_like(passing)
    passed = np.zeros(len(runs.known), dtype=np.bool_)
    failed = np.zeros_like(passed)
    used = np.full(len(passed), most)
    for count in range(1, most + 1):
        open_weight = runs.open_weight
        known = runs.known
        step = plan_label(open_weight, (known, known), runs.counts, design)
        judged, preferred = runs.draw(step.rates, rng)
        label = np.asarray(JUDGE_LEVELS)[preferred]
        value = estimate_share(step, open_weight, known, judged, label)
        passing += log_payoffs(step.passing, value - design.theta0)
        failing += log_payoffs(step.failing, design.rejected_below - value)
        runs.add(judged, preferred)
        is_open = ~passed & ~failed
        passed |= is_open & (_log_mean(passing) >= design.enough_log_e)
        failed |= is_open & ~passed & (_log_mean(failing) >= design.reject_log_e)
        used[is_open & (passed | failed)] = count
        if (passed | failed).all():
            break
    return SimulatedLabels(passed, failed, used)


def forecast_labels(
    pairs: int,
    ties: int,
    design: LabelDesign,
    *,
    correlation: float | None = None,
) -> LabelForecast:
    """Forecasts the labels until PASSED for a candidate that is as good as the incumbent, and 5
    points better for `superior`.

    pairs: all pairs. ties: the mechanically equal pairs among them. correlation: between the
    simulated people and the judge; None for the design's. The plan keeps the design's.
    """
    gain = 0.0 if design.claim is Claim.NON_INFERIOR else _SUPERIOR_GAIN
    people = design.correlation if correlation is None else correlation
    joint = joint_pairs(pairs - ties, TIE + gain, people)
    most = min(MOST_LABELS, pairs - ties)
    found = simulate_labels(LabelRuns(joint, ties, _RUNS), design, _SEED, most)
    used = np.where(found.passed, found.labels, most + 1)
    median, late = (int(np.quantile(used, share, method="higher")) for share in (0.5, 0.8))
    return LabelForecast(
        median if median <= most else None,
        late if late <= most else None,
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


def _draw_level(weights: Floats, rng: "Generator") -> Ints:
    """Draws an index of the last axis with probabilities in proportion to the weights."""
    upto = np.cumsum(weights, axis=-1)
    chance = rng.random(len(weights)) * upto[:, -1]
    return np.asarray((chance[:, None] >= upto).sum(axis=-1))


def _log_mean(logs: Floats) -> Floats:
    return log_mean_rows([logs[:, stake] for stake in range(logs.shape[1])])
