"""The sequential test reads paired differences item by item and may stop early
(statistics.md §1.3 to §1.5): it promotes, rejects, goes on, or tests once more at the last
item.

A judgement stops on its path (`judge_differences`), a benchmark runs many paths at once
(`judge_batch`). Sums are added strictly in order, so that both agree to the last bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import Claim
from harness.gate.arrays import (
    ArrayLike,
    Bools,
    Floats,
    Ints,
    geometric_grid,
    log_mean_rows,
    normalize_zeros,
    np,
    running_sum,
    special,
)
from harness.gate.offline.design import (
    REJECT_LOG_E,
    SMALL_SUITE_ITEMS,
    Design,
    mirrored_spread,
    unseen_loss,
)
from harness.gate.offline.intervals import (
    squared_deviations,
    t_interval,
    tango_interval,
    tango_p,
)

VARIANCE_GUARD = 0.25
# Below this, losses of whole clusters within the allowed loss may all be unseen.
FEW_CLUSTERS = 60


def guarded_t(
    n: ArrayLike,
    total: ArrayLike,
    squares: ArrayLike,
    theta0: float,
    guard: float = VARIANCE_GUARD,
) -> Floats:
    """Student's t with a guard added to the sum of squares, so that it is always defined."""
    count, sums = np.asarray(n, dtype=np.float64), np.asarray(total, dtype=np.float64)
    noise = np.sqrt(squared_deviations(count, sums, squares) + guard)
    return np.asarray((sums / count - theta0) * count / noise, dtype=np.float64)


def t_tail(n: ArrayLike, t: ArrayLike) -> Floats:
    """Computes the upper tail of Student's t with n - 1 degrees of freedom, n >= 2."""
    df = np.asarray(n, dtype=np.float64) - 1.0
    return np.asarray(special.stdtr(df, -np.asarray(t, dtype=np.float64)), dtype=np.float64)


def final_p(
    n: ArrayLike,
    total: ArrayLike,
    squares: ArrayLike,
    signs: tuple[ArrayLike, ArrayLike],
    whole: ArrayLike,
    design: Design,
    losses: tuple[ArrayLike, ArrayLike] = (0.0, 0.0),
) -> Floats:
    """Computes p_final of statistics.md §1.5, of clusters that of §1.12; n >= 2.

    signs: wins and losses. whole: every difference is -1, 0 or 1. Otherwise one pseudo-item of
    `unseen_loss` stands for unseen rare disasters (always in non_inferior, in superior below
    200 items).
    losses: the smallest difference, at most 0, which is asked of clusters alone; and
    `mirrored_spread`, 0 where nobody knows.
    """
    least, mirrored = losses
    theta0 = design.theta0
    plain = t_tail(n, guarded_t(n, total, squares, theta0))
    scored = np.maximum(plain, tango_p(*signs, n, theta0))
    if design.cluster_size is not None:
        p = _cluster_p(n, total, squares, np.asarray(least), design)
        return np.asarray(np.where(whole, np.maximum(p, scored), p), dtype=np.float64)
    graded = plain
    if design.claim is Claim.NON_INFERIOR or design.n_max < SMALL_SUITE_ITEMS:
        more = np.asarray(n) + 1
        unseen = unseen_loss(design.unseen, mirrored)
        sums, sums_sq = np.asarray(total) + unseen, np.asarray(squares) + unseen * unseen
        graded = t_tail(more, guarded_t(more, sums, sums_sq, theta0))
    return np.asarray(np.where(whole, scored, graded), dtype=np.float64)


def _cluster_p(
    n: ArrayLike, total: ArrayLike, squares: ArrayLike, least: Floats, design: Design
) -> Floats:
    """Computes p_final of cluster means: guard and pseudo-item are those of one item among the
    cluster's, but the pseudo-item is no better than the worst cluster seen.

    Too few clusters cannot show that none is lost whole: there the pseudo-item is such a one.
    """
    size = design.cluster_size or 1.0
    unseen = np.minimum(least, -1.0 / size)
    if design.claim is Claim.NON_INFERIOR and design.n_max < FEW_CLUSTERS:
        unseen = np.full_like(unseen, -1.0)
    more = np.asarray(n) + 1
    sums, sums_sq = np.asarray(total) + unseen, np.asarray(squares) + unseen * unseen
    t = guarded_t(more, sums, sums_sq, design.theta0, VARIANCE_GUARD / size)
    return t_tail(more, t)


BET_GRID = geometric_grid(0.02, 0.9, 15)
_CAP = 0.75
_SLACK = 1e-12
_PRIOR = 0.25
# Items read in one go: memory stays small however long the file, and a stop saves the rest.
_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class ComparisonProgress:
    """Holds the running state of a comparison: all that later items need of earlier ones."""

    n: int = 0
    total: float = 0.0  # total, squares: sums of d and d²
    squares: float = 0.0
    wins: int = 0
    losses: int = 0
    whole: bool = True
    least: float = 0.0  # the smallest d, at most 0
    log_e: float = 0.0
    log_e_max: float = 0.0
    log_e_bad: float = 0.0
    log_losing: tuple[float, ...] = (0.0,) * len(BET_GRID)


@dataclass(frozen=True, slots=True)
class EvidencePath:
    """Holds every figure after each item along the last axis, going on past any stop."""

    n: Ints
    total: Floats
    squares: Floats
    wins: Ints
    losses: Ints
    whole: Bools
    least: Floats
    bet: Floats
    log_e: Floats
    log_e_bad: Floats
    log_losing: Floats


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


def start_progress() -> ComparisonProgress:
    return ComparisonProgress()


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


def evidence_path(
    differences: ArrayLike, design: Design, since: ComparisonProgress | None = None
) -> EvidencePath:
    """The running figures after each of the differences (…, items), continuing `since`.

    Raises InputError for a value outside [-1, 1] and for more items than design.n_max.
    Source: Waudby-Smith & Ramdas 2024 (betting).
    """
    before = since or ComparisonProgress()
    d = check_differences(differences)
    items = np.arange(before.n, before.n + d.shape[-1] + 1)
    if items[-1] > design.n_max:
        raise InputError(f"{items[-1]} items, but the plan says at most {design.n_max}")
    total, squares = running_sum(before.total, d), running_sum(before.squares, d * d)
    variance = (_PRIOR + squared_deviations(items, total, squares)) / (items + 1.0)
    wish = np.sqrt(2.0 * design.bets_for / (variance[..., :-1] * design.n_max))
    theta0 = design.theta0
    bet = np.minimum(wish, _CAP / (1.0 + theta0))
    log_e = running_sum(before.log_e, np.log1p(bet * (d - theta0)))
    losing = [
        running_sum(log, np.log1p(-stake * d))[..., 1:]
        for log, stake in zip(before.log_losing, BET_GRID, strict=True)
    ]
    return EvidencePath(
        n=items[1:],
        total=total[..., 1:],
        squares=squares[..., 1:],
        wins=before.wins + np.cumsum(d > 0.0, axis=-1, dtype=np.int64),
        losses=before.losses + np.cumsum(d < 0.0, axis=-1, dtype=np.int64),
        whole=before.whole & np.logical_and.accumulate(d == np.round(d), axis=-1),
        least=np.minimum(before.least, np.minimum.accumulate(d, axis=-1)),
        bet=bet,
        log_e=log_e[..., 1:],
        log_e_bad=log_mean_rows(losing),
        log_losing=np.stack(losing, axis=-1),
    )


def judge_differences(differences: Sequence[float], design: Design) -> ComparisonEvidence:
    """The verdict on items in their registered order, consumed up to where it is decided."""
    d = check_differences(differences)
    if len(d) > design.n_max:
        raise InputError(f"{len(d)} items, but the plan says at most {design.n_max}")
    progress = ComparisonProgress()
    for start_at in range(0, len(d), _AT_ONCE):
        taken = evidence_path(d[start_at : start_at + _AT_ONCE], design, progress)
        stops = (taken.log_e >= design.promote_at) | (taken.log_e_bad >= REJECT_LOG_E)
        last = int(np.argmax(stops)) if stops.any() else len(taken.n) - 1
        progress = progress_at(taken, last, progress)
        if _crossed(progress, design):
            break
    return build_evidence(progress, design, mirrored_spread(d[: progress.n]))


def judge_batch(matrix: ArrayLike, design: Design) -> BatchDecisions:
    """Judges every row of differences (comparisons, items), without display figures."""
    taken = evidence_path(matrix, design)
    up, down = taken.log_e >= design.promote_at, taken.log_e_bad >= REJECT_LOG_E
    stops = up | down
    stopped = stops.any(axis=-1)
    last = np.where(stopped, np.argmax(stops, axis=-1), len(taken.n) - 1)
    rows = np.arange(len(last))
    p = final_p(
        taken.n[last],
        taken.total[rows, last],
        taken.squares[rows, last],
        (taken.wins[rows, last], taken.losses[rows, last]),
        taken.whole[rows, last],
        design,
        (taken.least[rows, last], mirrored_spread(matrix)),
    )
    at_end = ~stopped & (taken.n[last] == design.n_max)
    return BatchDecisions(
        promoted=(stopped & up[rows, last]) | (at_end & (p <= design.alpha2)),
        rejected=stopped & ~up[rows, last],
        n_used=taken.n[last],
    )


def progress_at(
    taken: EvidencePath, index: int, since: ComparisonProgress | None = None
) -> ComparisonProgress:
    """Returns the state after one item of a single path that continued `since`; past any stop
    too.
    """
    before = since or ComparisonProgress()
    upto = index + 1
    return ComparisonProgress(
        n=int(taken.n[index]),
        total=float(taken.total[index]) + 0.0,
        squares=float(taken.squares[index]),
        wins=int(taken.wins[index]),
        losses=int(taken.losses[index]),
        whole=bool(taken.whole[index]),
        least=float(taken.least[index]) + 0.0,
        log_e=float(taken.log_e[index]) + 0.0,
        log_e_max=max(before.log_e_max, float(taken.log_e[:upto].max())) + 0.0,
        log_e_bad=float(taken.log_e_bad[index]) + 0.0,
        log_losing=normalize_zeros(float(log) for log in taken.log_losing[index]),
    )


def build_evidence(
    progress: ComparisonProgress, design: Design, mirrored: ArrayLike = 0.0
) -> ComparisonEvidence:
    """Computes every figure of a comparison from its running state, which does not hold what
    wins and losses mirror: without that the unseen loss is a whole one.
    """
    n, few = progress.n, progress.n < 2
    t = None if few else _t(progress, design)
    p_final = None if few else _final_p(progress, design, mirrored)
    outcome, how = _outcome(progress, design, p_final)
    low, high, method = _interval(progress)
    squares = float(squared_deviations(n, progress.total, progress.squares))
    return ComparisonEvidence(
        outcome=outcome,
        how=how,
        n_used=n,
        delta=progress.total / n if n else 0.0,
        ci_low=low,
        ci_high=high,
        ci_method=method,
        log_e=progress.log_e,
        log_e_max=progress.log_e_max,
        log_e_bad=progress.log_e_bad,
        t=t,
        p_t=None if t is None else float(t_tail(n, t)),
        p_final=p_final,
        wins=progress.wins,
        ties=n - progress.wins - progress.losses,
        losses=progress.losses,
        sd=None if few else math.sqrt(squares / (n - 1)),
    )


def _crossed(progress: ComparisonProgress, design: Design) -> bool:
    return progress.log_e >= design.promote_at or progress.log_e_bad >= REJECT_LOG_E


def _outcome(
    progress: ComparisonProgress, design: Design, p_final: float | None
) -> tuple[str, str | None]:
    # Promotion first: on the same item it stands.
    if progress.log_e >= design.promote_at:
        return "promote", "early"
    if progress.log_e_bad >= REJECT_LOG_E:
        return "reject", "early"
    if progress.n < design.n_max:
        return "running", None
    if p_final is not None and p_final <= design.alpha2:
        return "promote", "final"
    return "inconclusive", "final"


def _t(progress: ComparisonProgress, design: Design) -> float:
    return float(guarded_t(progress.n, progress.total, progress.squares, design.theta0))


def _final_p(progress: ComparisonProgress, design: Design, mirrored: ArrayLike) -> float:
    return float(
        final_p(
            progress.n,
            progress.total,
            progress.squares,
            (progress.wins, progress.losses),
            progress.whole,
            design,
            (progress.least, mirrored),
        )
    )


def _interval(progress: ComparisonProgress) -> tuple[float | None, float | None, str]:
    method = "tango" if progress.whole else "t"
    if progress.n < 2:
        return None, None, method
    if progress.whole:
        return *tango_interval(progress.wins, progress.losses, progress.n), method
    return *t_interval(progress.n, progress.total, progress.squares), method
