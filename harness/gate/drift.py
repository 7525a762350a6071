"""A drift watch sends the same items to an incumbent at intervals, and tests whether the model
has changed behind its name. The watch begins with a baseline run; each later run is a check.
Once the watch finds drift, it stops until a person accepts a new baseline or swaps the model.

Null hypothesis: the scores of all runs of an item are exchangeable, and items err independently
of each other. (An unchanged model may answer a question differently each time, without drift.)
Then, given all scores of an item, each choice of m scores is equally likely to be the newest m.
With w = exp(eta * score), an item's factor

    product of w over its newest m scores / mean of that product over all choices of m

has expectation 1. So the product over items is an e-value for each eta and each window m. Let j
be the number of runs since the baseline. e_j is the mean of these e-values over the grid of eta
(both signs) and the windows 1, 2, 4, 8, 16 up to j; it is an e-value too. For pass/fail scores
the factor is the likelihood ratio of Fisher's noncentral hypergeometric distribution
(statistics.md §2.2) with odds ratio exp(eta). The evidence after j comparisons is

    S_j = sum over i <= j of e_i / (i (i + 1))

S_j never falls, and its expectation never exceeds 1, because the weights sum to 1. By Markov's
inequality, S_j ever reaches 1 / alpha with probability alpha at most, even though the e_i share
their runs.

The test does not compare each run with the baseline and multiply the results. After a lucky or
unlucky baseline, the expected difference is not 0, so such a product grows without drift.

Sources: Turner, Ly & Gruenwald 2024 (e-values by conditioning, 2x2 tables); Vovk & Wang 2021
(means of e-values are e-values under any dependence).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError
from harness.frame.formatting import format_percent, format_points, format_points_interval
from harness.frame.people.access import SYSTEM
from harness.gate.arrays import Floats, log_mean, np
from harness.gate.offline.intervals import t_interval, tango_interval
from harness.gate.offline.pairs import ROUNDING

RETRY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """Registers a watch's items and settings; a different plan needs a new baseline."""

    suite_digest: str
    items: int
    epochs: int
    alpha: float


class DriftCheckState(StrEnum):
    RUNNING = "running"
    COUNTED = "counted"
    NOT_MEASURED = "not_measured"  # an infrastructure error, not evidence about the model


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """The comparison of a run with the runs before it. Scores are shares of 1."""

    check: int  # number of comparisons with the baseline, from 1
    # Number of newest runs that form the window with the most evidence; the figures below
    # describe this window.
    window: int
    items: int
    # Newer mean minus earlier mean, over `items`. The 95 % interval is for reading only: it is
    # not adjusted for repeated checks.
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e: float  # the watch finds drift at log_e_limit
    log_e_limit: float
    direction: str  # worse | better, by the sign of delta
    drifted: bool
    worse: int
    same: int
    better: int

    @property
    def share_of_limit(self) -> float:
        """The evidence as a share of the alarm level, from 0 to 1."""
        return min(max(self.log_e / self.log_e_limit, 0.0), 1.0)

    @property
    def change_text(self) -> str:
        ends = format_points_interval(self.ci_low, self.ci_high, missing="")
        return f"{format_points(self.delta)} points" + (f" ({ends})" if ends else "")

    @property
    def share_text(self) -> str:
        return f"{format_percent(self.share_of_limit, 0)} of the alarm level"


# (item, mean score over its epochs) in the run's order; None if not measured.
ItemScores = tuple[tuple[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One run of a watch: its registration, then its result.

    A check without `ended_at` is running. After its end, either `message` says why it gave no
    evidence, or `scores` has the items' scores.
    """

    run: str
    watch: str
    number: int  # 0 for the baseline
    target: str
    suite: str
    plan: DriftPlan
    started_at: datetime
    started_by: str
    reason: str = ""  # why a person or the schedule measures this baseline
    ended_at: datetime | None = None
    message: str = ""  # why the run measured no item; empty otherwise
    served: tuple[str, ...] = ()  # model names in the provider's responses
    scores: ItemScores = ()
    evidence: DriftEvidence | None = None  # None for the baseline and for a failed check
    closed_at: datetime | None = None  # baseline only: when its watch ended

    @property
    def is_scheduled(self) -> bool:
        """Tells whether the schedule started the run, and not a person."""
        return self.started_by == SYSTEM.name

    @property
    def state(self) -> DriftCheckState:
        if self.ended_at is None:
            return DriftCheckState.RUNNING
        return DriftCheckState.NOT_MEASURED if self.message else DriftCheckState.COUNTED


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """The checks since one baseline. A watch has no other state."""

    checks: tuple[DriftCheck, ...]  # the baseline first

    @property
    def baseline(self) -> DriftCheck:
        return self.checks[0]

    @property
    def id(self) -> str:
        return self.baseline.watch

    @property
    def plan(self) -> DriftPlan:
        return self.baseline.plan

    @property
    def running(self) -> DriftCheck | None:
        last = self.checks[-1]
        return last if last.state is DriftCheckState.RUNNING else None

    @property
    def ended(self) -> Sequence[DriftCheck]:
        """Lists checks that have ended, also those that measured nothing."""
        return [check for check in self.checks if check.ended_at is not None]

    @property
    def counted(self) -> Sequence[DriftCheck]:
        """Lists checks whose scores count, the baseline first if it was measured."""
        return [check for check in self.checks if check.state is DriftCheckState.COUNTED]

    @property
    def is_drifted(self) -> bool:
        """Tells whether the watch found drift: a person must accept it, or swap the model."""
        return any(check.evidence and check.evidence.drifted for check in self.checks)

    def find_next_due(self, every_s: float) -> datetime:
        """Returns when the next scheduled run is due: at most RETRY_S after a run that measured
        nothing. Runs that people start do not delay the schedule.
        """
        last = [check for check in self.checks if check.is_scheduled or not check.number][-1]
        measured = last.state is DriftCheckState.COUNTED
        return last.started_at + timedelta(
            seconds=every_s if measured else min(every_s, RETRY_S)
        )


def list_served(checks: Iterable[DriftCheck]) -> list[str]:
    """Lists the model names that the provider gave in these checks, each once."""
    return sorted({name for check in checks for name in check.served})


WINDOWS: Final = (1, 2, 4, 8, 16)

ODDS: Final = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)

ETAS: Final = tuple(sign * math.log(odd) for sign in (-1.0, 1.0) for odd in ODDS)


def compare_runs(
    history: Sequence[ItemScores],
    alpha: float,
    log_before: float,
) -> DriftEvidence:
    """Compares the newest run with all earlier runs.

    Args:
        history: the runs' scores, the baseline first.
        log_before: the evidence after the previous comparison; -inf before the first
            comparison.

    An item without a score in one run still counts in the other runs. Raises InputError below
    two runs, and for a score outside [0, 1].
    """
    check = len(history) - 1
    if check < 1:
        raise InputError(
            "a drift check needs at least one run besides the baseline; wait for the next check"
        )
    scores = _build_score_matrix(history)
    windows = [window for window in WINDOWS if window <= check]
    by_window = log_e_values(scores, windows)
    log_e_now = log_mean([log_mean([float(log) for log in logs]) for logs in by_window])
    best_window = int(np.argmax(by_window.max(axis=1)))
    log_e_total = log_mean([log_before, log_e_now], [0.0, -math.log(check * (check + 1.0))])
    is_lower = int(np.argmax(by_window[best_window])) < len(ODDS)
    return _build_evidence(
        check,
        windows[best_window],
        window_differences(scores, windows[best_window]),
        log_e_total,
        alpha,
        is_lower=is_lower,
    )


def _build_score_matrix(history: Sequence[ItemScores]) -> Floats:
    """Returns scores by run and item, in the baseline's item order; NaN if not measured."""
    by_item: list[Mapping[str, float | None]] = [dict(run) for run in history]
    rows = [[_check_score(item, run.get(item)) for item, _ in history[0]] for run in by_item]
    return np.asarray(rows, dtype=np.float64)


def _check_score(item: str, score: float | None) -> float:
    if score is None:
        return math.nan
    if not 0.0 <= score <= 1.0:
        raise InputError(f"item {item}: the score is {score}; scores are numbers from 0 to 1")
    return score


def log_e_values(scores: Floats, windows: Sequence[int]) -> Floats:
    """Computes log e by window and eta.

    Args:
        scores: by run and item, NaN if not measured.
    """
    bag = ScoreBag.empty(max(windows), scores.shape[1])
    for run in scores:
        bag = bag.with_run(run)
    rows = [
        [math.fsum(factor) for factor in bag.log_factors(scores[-size:])] for size in windows
    ]
    return np.asarray(rows, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ScoreBag:
    """Holds all scores that each item ever had, without their order.

    means [k, eta, item]: the mean, over all choices of k scores of an item, of the product of
    their weights. counts [item]: the number of scores.
    """

    means: Floats
    counts: Floats

    @classmethod
    def empty(cls, largest: int, items: int) -> "ScoreBag":
        """Returns a bag without scores.

        Args:
            largest: the most scores in one choice, the largest window.
        """
        means = np.zeros((largest + 1, len(ETAS), items))
        means[0] = 1.0
        return cls(means, np.zeros(items))

    def with_run(self, scores: Floats) -> "ScoreBag":
        """Adds a run's scores. A random choice of k of n scores has the n-th score with
        probability k / n.
        """
        known = ~np.isnan(scores)
        counts = self.counts + known
        weights = np.exp(_tilt(scores))
        chosen = np.arange(1, len(self.means))[:, None, None]
        share = np.minimum(chosen / np.maximum(counts, 1.0), 1.0)
        after = (1.0 - share) * self.means[1:] + share * weights * self.means[:-1]
        means = np.concatenate([self.means[:1], np.where(known, after, self.means[1:])])
        return ScoreBag(means, counts)

    def log_factors(self, newest: Floats) -> Floats:
        """Returns [eta, item]: the log of an item's factor for the bag's newest runs."""
        size = (~np.isnan(newest)).sum(axis=0)
        means = self.means[size, :, np.arange(newest.shape[1])].T
        return np.asarray(_tilt(newest).sum(axis=1) - np.log(means), dtype=np.float64)


def _tilt(scores: Floats) -> Floats:
    """Returns eta times score: the log of a score's weight. An unmeasured item has 0, which
    changes nothing.
    """
    etas = np.reshape(ETAS, (-1,) + (1,) * scores.ndim)
    return np.asarray(etas * np.where(np.isnan(scores), 0.0, scores), dtype=np.float64)


def window_differences(scores: Floats, size: int) -> Floats:
    """Returns the newest runs' means minus earlier means, for items measured in both."""
    new = _means(scores[-size:])
    before = _means(scores[:-size])
    in_both = ~(np.isnan(new) | np.isnan(before))
    d = new[in_both] - before[in_both]
    return np.where(np.abs(d) > ROUNDING, d, 0.0)


def _means(scores: Floats) -> Floats:
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _build_evidence(
    check: int,
    window: int,
    d: Floats,
    log_e: float,
    alpha: float,
    *,
    is_lower: bool,
) -> DriftEvidence:
    """Builds the evidence from one window's figures.

    Args:
        d: differences by item, newer minus earlier.
    """
    low, high, method = _interval(d)
    worse = int((d < 0.0).sum())
    better = int((d > 0.0).sum())
    return DriftEvidence(
        check=check,
        window=window,
        items=len(d),
        delta=math.fsum(d) / len(d) + 0.0 if len(d) else 0.0,
        ci_low=low,
        ci_high=high,
        ci_method=method,
        log_e=log_e,
        log_e_limit=-math.log(alpha),
        direction="worse" if is_lower else "better",
        drifted=bool(log_e >= -math.log(alpha)),
        worse=worse,
        same=len(d) - worse - better,
        better=better,
    )


def _interval(d: Floats) -> tuple[float | None, float | None, str]:
    """Returns a 95 % interval of the mean difference with its method; None below two items."""
    if len(d) < 2:
        return None, None, "t"
    if bool(np.all(d == np.round(d))):
        low, high = tango_interval(
            int((d > 0.0).sum()),
            int((d < 0.0).sum()),
            len(d),
        )
        return low, high, "tango"
    low, high = t_interval(
        len(d),
        float(d.sum()),
        float((d * d).sum()),
    )
    return low, high, "t"
