"""The sequential test reads paired differences item by item and may stop early
(statistics.md §1.3 to §1.5): it promotes, rejects, goes on, or tests once more at the last
item.

A judgement stops on its path (`judge_differences`), a benchmark runs many paths at once
(`judge_batch`). Sums are added strictly in order, so that both agree to the last bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.domain.errors import InputError
from harness.gate.arrays import (
    ArrayLike,
    Bools,
    Floats,
    Ints,
    geometric_grid,
    log_mean_rows,
    np,
    running_sum,
    special,
)
from harness.gate.offline.design import (
    REJECT_LOG_E,
    Design,
    chance_of_passing,
    with_unseen_loss,
)
from harness.gate.offline.intervals import (
    VARIANCE_GUARD,
    squared_deviations,
    t_interval,
    tango_interval,
    tango_p,
)


def final_p(differences: ArrayLike, theta0: float) -> Floats:
    """Computes p_final of statistics.md §1.5 for (…, n) differences of items or clusters,
    n >= 2: how well they fit a mean of theta0 or less.

    Where every difference is -1, 0 or 1, the score test knows how often a loss stays unseen.
    """
    d = np.asarray(differences, dtype=np.float64)
    n, whole = d.shape[-1], (d == np.round(d)).all(axis=-1)
    won, lost = (d > 0.0).sum(axis=-1), (d < 0.0).sum(axis=-1)
    plain = t_tail(n, guarded_t(d, theta0)) if theta0 < 0.0 else _lean_p(d, theta0)
    scored = np.maximum(plain, tango_p(won, lost, n, theta0))
    graded = _lean_p(with_unseen_loss(d), theta0)
    return np.asarray(np.where(whole, scored, graded), dtype=np.float64)


def guarded_t(differences: Floats, theta0: float) -> Floats:
    """Student's t with a guard added to the sum of squares, so that it is always defined."""
    n, total = differences.shape[-1], _sum(differences)
    noise = np.sqrt(_squares_left(differences) + VARIANCE_GUARD)
    return np.asarray((total / n - theta0) * n / noise, dtype=np.float64)


def t_tail(n: int, t: ArrayLike) -> Floats:
    """Computes the upper tail of Student's t with n - 1 degrees of freedom, n >= 2."""
    return np.asarray(special.stdtr(n - 1.0, -np.asarray(t)), dtype=np.float64)


def _lean_p(d: Floats, theta0: float) -> Floats:
    """Corrects t where rare losses stand against common wins: there a sample with few losses
    has a high mean and a small spread.

    It is Johnson's correction (1978, JASA 73:536) in a form that rises with t: Hall 1992,
    J. R. Stat. Soc. B 54:221.
    """
    n, t = d.shape[-1], guarded_t(d, theta0)
    gaps, variance = d - _sum(d)[..., None] / n, (_squares_left(d) + VARIANCE_GUARD) / n
    skew = np.minimum(_sum(gaps * gaps * gaps) / n / (variance * np.sqrt(variance)), 0.0)
    a = skew / (3.0 * np.sqrt(n))
    return t_tail(n, t + a / 2.0 + a * t * t + a * a * t * t * t / 3.0)


def _squares_left(d: Floats) -> Floats:
    return squared_deviations(d.shape[-1], _sum(d), _sum(d * d))


def _sum(values: Floats) -> Floats:
    """Adds up the last axis strictly in order."""
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])


BET_GRID = geometric_grid(0.02, 0.9, 15)
_CAP = 0.75
_SLACK = 1e-12
_PRIOR = 0.25
# The chance of passing at the last item below which the margin is out of reach.
OUT_OF_REACH = 0.01


@dataclass(frozen=True, slots=True)
class EvidencePath:
    """Holds the evidence after each item along the last axis, going on past any stop."""

    bet: Floats
    log_e: Floats
    log_e_bad: Floats
    rejects: Bools  # worse than the incumbent, and the margin is out of reach


@dataclass(frozen=True, slots=True)
class ComparisonEvidence:
    """Holds every figure of a comparison, on the items used. Shares of 1."""

    outcome: str  # promote | reject | inconclusive | running
    how: str | None  # early | final | None
    n_used: int
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e: float
    log_e_max: float
    log_e_bad: float
    t: float | None
    # p_t, p_final: over the items used, at every moment, and None below two; p_final decides
    # only at n_max. ci: None below two items; not adjusted for early stopping; method tango
    # when every difference is -1, 0 or 1, else t.
    p_t: float | None
    p_final: float | None
    wins: int
    ties: int
    losses: int
    sd: float | None
    # Share of the differences' variance that could be foreseen, at planned analyses.
    explained: float | None = None
    # How much an item's score varies when it is asked anew, of incumbent and candidate: where
    # the claim is about these items.
    noise: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class BatchDecisions:
    """Holds the decisions on many comparisons at once: one entry per row. Rows that still run
    are in neither mask.
    """

    promoted: Bools
    rejected: Bools
    n_used: Ints


def check_differences(differences: ArrayLike) -> Floats:
    """Returns the differences as an array. Raises InputError at the first that is not a number
    in [-1, 1].
    """
    d = np.asarray(differences, dtype=np.float64)
    good = np.abs(d) <= 1.0 + _SLACK
    if not good.all():
        at = int(np.argmin(good.reshape(-1)))
        raise InputError(
            f"difference {at + 1} is {d.reshape(-1)[at]}: it must be a number from -1 to 1"
        )
    return d


def evidence_path(differences: ArrayLike, design: Design) -> EvidencePath:
    """The running evidence after each of the differences (…, items).

    Raises InputError for a value outside [-1, 1] and for more items than design.n_max.
    Source: Waudby-Smith & Ramdas 2024 (betting).
    """
    d = check_differences(differences)
    items = np.arange(d.shape[-1] + 1)
    if items[-1] > design.n_max:
        raise InputError(f"{items[-1]} items, but the plan says at most {design.n_max}")
    total, squares = running_sum(0.0, d), running_sum(0.0, d * d)
    variance = (_PRIOR + squared_deviations(items, total, squares)) / (items + 1.0)
    wish = np.sqrt(2.0 * design.bets_for / (variance[..., :-1] * design.n_max))
    bet = np.minimum(wish, _CAP / (1.0 + design.theta0))
    losing = [np.cumsum(np.log1p(-stake * d), axis=-1) for stake in BET_GRID]
    log_e_bad = log_mean_rows(losing)
    rejects = log_e_bad >= REJECT_LOG_E
    if design.theta0 < 0.0:
        reach = chance_of_passing(items[1:], total[..., 1:], squares[..., 1:], design)
        rejects &= reach < OUT_OF_REACH
    return EvidencePath(
        bet=bet,
        log_e=np.cumsum(np.log1p(bet * (d - design.theta0)), axis=-1),
        log_e_bad=log_e_bad,
        rejects=rejects,
    )


def judge_differences(differences: Sequence[float], design: Design) -> ComparisonEvidence:
    """The verdict on items in their registered order, consumed up to where it is decided."""
    d = check_differences(differences)
    taken = evidence_path(d, design)
    stops = (taken.log_e >= design.promote_at) | taken.rejects
    used = int(np.argmax(stops)) + 1 if stops.any() else len(d)
    evidence = build_evidence(d[:used], taken, design)
    p, outcome, how = evidence.p_final, "running", None
    # Promotion first: on the same item it stands.
    if used and taken.log_e[used - 1] >= design.promote_at:
        outcome, how = "promote", "early"
    elif used == design.n_max and p is not None and p <= design.alpha2:
        outcome, how = "promote", "final"
    elif used and taken.rejects[used - 1]:
        outcome, how = "reject", "early" if used < design.n_max else "final"
    elif used == design.n_max:
        outcome, how = "inconclusive", "final"
    return replace(evidence, outcome=outcome, how=how)


def judge_batch(matrix: ArrayLike, design: Design) -> BatchDecisions:
    """Judges every row of differences (comparisons, items), without display figures."""
    d = check_differences(matrix)
    taken = evidence_path(d, design)
    up = taken.log_e >= design.promote_at
    stops = up | taken.rejects
    stopped, rows = stops.any(axis=-1), np.arange(len(d))
    last = np.where(stopped, np.argmax(stops, axis=-1), d.shape[-1] - 1)
    shown = up[rows, last]
    if d.shape[-1] == design.n_max > 1:
        shown |= (last == design.n_max - 1) & (final_p(d, design.theta0) <= design.alpha2)
    return BatchDecisions(shown, stopped & ~shown, last + 1)


def build_evidence(d: Floats, taken: EvidencePath, design: Design) -> ComparisonEvidence:
    """Computes every figure of the items so far, of a comparison that goes on. taken: of them,
    or of more.
    """
    used, few = len(d), len(d) < 2
    t = None if few else float(guarded_t(d, design.theta0))
    total, squares = (float(_sum(x)) if used else 0.0 for x in (d, d * d))
    wins, losses = int((d > 0.0).sum()), int((d < 0.0).sum())
    whole = bool((d == np.round(d)).all())
    low, high, method = None, None, "tango" if whole else "t"
    if not few:
        tango = tango_interval(wins, losses, used) if whole else None
        low, high = tango or t_interval(used, total, squares)
    log_e, log_e_bad = taken.log_e[:used], taken.log_e_bad[:used]
    spread = float(squared_deviations(used, total, squares))
    return ComparisonEvidence(
        outcome="running",
        how=None,
        n_used=used,
        delta=total / used + 0.0 if used else 0.0,
        ci_low=low,
        ci_high=high,
        ci_method=method,
        log_e=float(log_e[-1]) + 0.0 if used else 0.0,
        log_e_max=float(max(0.0, log_e.max(initial=0.0))),
        log_e_bad=float(log_e_bad[-1]) + 0.0 if used else 0.0,
        t=t,
        p_t=None if t is None else float(t_tail(used, t)),
        p_final=None if few else float(final_p(d, design.theta0)),
        wins=wins,
        ties=used - wins - losses,
        losses=losses,
        sd=None if few else math.sqrt(spread / (used - 1)),
    )
