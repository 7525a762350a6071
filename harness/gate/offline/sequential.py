"""The sequential test reads paired differences item by item and may stop early (statistics.md
§1.3 to §1.5). It promotes at a planned analysis; it rejects or stops for futility at any item.
Under a margin, a rejection means worse by more than the margin.
It judges the rows of a file together, in one analysis (§1.19). It adds sums strictly in order,
so batched and stepwise results agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.frame.errors import InputError
from harness.gate.arrays import (
    ArrayLike,
    Bools,
    Floats,
    Ints,
    geometric_grid,
    log_mean_rows,
    np,
    ordered_sum,
)
from harness.gate.offline.design import (
    FUTILE,
    FUTILE_FROM_SHARE,
    REJECT_LOG_E,
    Design,
    LostMargin,
    chance_of_passing,
)
from harness.gate.offline.intervals import (
    VARIANCE_GUARD,
    squared_deviations,
    t_interval,
    tango_interval,
)
from harness.gate.offline.item_tests import (
    SMALLEST_P,
    AnswerNoise,
    asked_anew,
    days_interval,
    final_p,
    guarded_t,
    p_about_these,
    p_over_days,
    share_left,
    t_tail,
)
from harness.gate.suite_plan import Looks

BET_GRID = geometric_grid(0.02, 0.9, 15)
_SLACK = 1e-12
# If the chance of passing at the last item is lower than this, the margin is out of reach.
_OUT_OF_REACH = 0.01


@dataclass(frozen=True, slots=True)
class EvidencePath:
    """The evidence after each item, along the last axis; it continues after a stop."""

    log_e_bad: Floats  # against a mean difference of the design's theta0 or more
    rejects: Bools  # shown to be worse than the claim allows
    hopeless: Bools  # the comparison stops here, because it would hardly pass at n_max


@dataclass(frozen=True, slots=True)
class ComparisonEvidence:
    """All figures of a comparison, for the used items. Scores are shares of 1."""

    outcome: str  # promote | reject | inconclusive | running
    how: str | None  # early | final | futile | None
    n_used: int
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e_bad: float
    t: float | None
    # p_t, p_final and ci are None below two items. p_final decides only at planned analyses. ci
    # is not adjusted for early stopping. ci_method: `these` for a claim about these items,
    # `days` if the incumbent's scores are means over days, `tango` for differences of -1, 0
    # and 1, else `t`.
    p_t: float | None
    p_final: float | None
    wins: int
    ties: int
    losses: int
    sd: float | None
    # Variances of an item's score over epochs, of incumbent and candidate; set for a claim
    # about these items.
    noise: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class BatchDecisions:
    """The decisions on many comparisons, one entry for each row. All masks of a row without a
    decision are False.
    """

    promoted: Bools
    rejected: Bools
    futile: Bools
    n_used: Ints


def check_differences(differences: ArrayLike) -> Floats:
    """Returns differences as an array. Raises InputError for a value outside [-1, 1]."""
    d = np.asarray(differences, dtype=np.float64)
    good = np.abs(d) <= 1.0 + _SLACK
    if not good.all():
        at = int(np.argmin(good.reshape(-1)))
        raise InputError(
            f"difference {at + 1} is {d.reshape(-1)[at]}: it must be a number from -1 to 1"
        )
    return d


def evidence_path(differences: ArrayLike, design: Design) -> EvidencePath:
    """Computes the running evidence after each of the differences (…, items).

    Raises InputError for a value outside [-1, 1] and for more items than design.n_max.
    Source: Waudby-Smith & Ramdas 2024 (betting).
    """
    d = check_differences(differences)
    items = np.arange(1, d.shape[-1] + 1)
    if d.shape[-1] > design.n_max:
        raise InputError(f"{d.shape[-1]} items, but the plan allows at most {design.n_max}")
    log_e_bad = log_e_below(d, design.rejected_below)
    total = np.cumsum(d, axis=-1)
    squares = np.cumsum(d * d, axis=-1)
    reach = chance_of_passing(items, total, squares, design)
    rejects = log_e_bad >= REJECT_LOG_E
    between = (items >= FUTILE_FROM_SHARE * design.n_max) & (items < design.n_max)
    hopeless = (reach < design.futility) & between
    if design.theta0 < 0.0:
        hopeless = _margin_lost(d, design, reach, log_e_bad) | hopeless
    if design.looks is not Looks.PLANNED:
        last = items == d.shape[-1]  # the only look is at all items
        rejects = rejects & last
        hopeless = hopeless & last
    return EvidencePath(log_e_bad, rejects, hopeless)


def log_e_below(d: Floats, theta0: float) -> Floats:
    """Bets against a mean of theta0 or more. A stake of 1 would lose the whole capital at a
    difference of 1.
    """
    excess = (d - theta0) / (1.0 - theta0)
    losing = [np.cumsum(np.log1p(-stake * excess), axis=-1) for stake in BET_GRID]
    return log_mean_rows(losing)


def _margin_lost(
    d: Floats,
    design: Design,
    reach: Floats,
    log_e_bad: Floats,
) -> Bools:
    """Tells after which items the comparison stops because the margin is out of reach: the
    candidate is shown to be worse than the incumbent.

    `design.lost_margin` may let it continue, for example while the loss may exceed the margin.
    """
    items = np.arange(1, d.shape[-1] + 1)
    lost = (log_e_below(d, 0.0) >= REJECT_LOG_E) & (reach < _OUT_OF_REACH)
    lost &= items < design.n_max
    match design.lost_margin:
        case LostMargin.STOPS:
            return lost
        case LostMargin.STOPS_UNLESS_WORSE:
            return lost & (log_e_bad <= 0.0)
        case LostMargin.GOES_ON:
            return np.zeros_like(lost)


def judge_differences(
    differences: Sequence[float],
    design: Design,
    noise: AnswerNoise | None = None,
) -> ComparisonEvidence:
    """Decides on items in their registered order, and uses the items up to the decision.

    Args:
        noise: noise of the items' scores, for a claim about these items; None assumes the
            maximum.
    """
    d = check_differences(differences)
    path = evidence_path(d, design)
    if not len(d):
        return build_evidence(d, path, design)
    decisions = judge_batch(d[None], design, noise)
    used = int(decisions.n_used[0])
    outcome = "running"
    how = "early" if used < design.n_max else "final"
    if decisions.promoted[0]:
        outcome = "promote"
    elif decisions.rejected[0]:
        outcome = "reject"
    elif decisions.futile[0]:
        outcome = "inconclusive"
        how = FUTILE
    elif used == design.n_max:
        outcome = "inconclusive"
    evidence = build_evidence(d[:used], path, design, noise)
    return replace(evidence, outcome=outcome, how=None if outcome == "running" else how)


def judge_batch(
    matrix: ArrayLike,
    design: Design,
    noise: AnswerNoise | None = None,
) -> BatchDecisions:
    """Judges every row of differences (comparisons, items), without display figures."""
    d = check_differences(matrix)
    path = evidence_path(d, design)
    items = d.shape[-1]
    stops = path.rejects | path.hopeless
    used = np.where(stops.any(axis=-1), np.argmax(stops, axis=-1) + 1, items)
    promoted = np.zeros(len(d), dtype=np.bool_)
    for n, level in design.levels_of(items).items():
        # A promotion takes precedence over a stop at the same item.
        if n >= 2 and (open_ := ~promoted & (used >= n)).any():
            promoted_now = open_ & (analysis_p(d[:, :n], design, noise, most=level) <= level)
            promoted = promoted | promoted_now
            used = np.where(promoted_now, n, used)
    rejected = ~promoted & path.rejects[np.arange(len(d)), used - 1]
    futile = ~promoted & ~rejected & path.hopeless[np.arange(len(d)), used - 1]
    return BatchDecisions(promoted, rejected, futile, used)


def analysis_p(
    d: Floats,
    design: Design,
    noise: AnswerNoise | None = None,
    *,
    theta0: float | None = None,
    most: float = 1.0,
) -> Floats:
    """Computes the p-value of (…, n) differences, n >= 2. Above `most` it is approximate.

    Args:
        theta0: the mean of the null hypothesis; None for the design's.
    """
    null_mean = design.theta0 if theta0 is None else theta0
    p = final_p(d, null_mean, most if noise is None else 1.0)
    if noise is not None:
        p = p_about_these(p, _compute_share_left(d, design, noise))
    if design.days is not None:
        return p_over_days(p, d.shape[-1], _variance(d), design.days)
    return np.minimum(p, _staked_p(d, null_mean))


def _variance(d: Floats) -> Floats:
    """Computes the guarded variance of (…, n) differences, n >= 2."""
    n = d.shape[-1]
    squares = squared_deviations(n, ordered_sum(d), ordered_sum(d * d))
    return np.asarray((squares + VARIANCE_GUARD) / (n - 1), dtype=np.float64)


def _staked_p(d: Floats, theta0: float) -> Floats:
    """Bets the whole capital on every graded item. Under the null, the capital grows by a
    factor of 1/p with probability p at most, for any differences (statistics.md §1.5).
    """
    left = ordered_sum(np.log(np.maximum((1.0 + d) / (1.0 + theta0), SMALLEST_P)))
    graded = (d != np.round(d)).any(axis=-1)
    return np.asarray(
        np.where(graded, np.exp(np.minimum(-left, 0.0)), 1.0),
        dtype=np.float64,
    )


def _compute_share_left(
    d: Floats,
    design: Design,
    noise: AnswerNoise,
) -> Floats:
    """Returns the share of the variance that counts for these items."""
    n = d.shape[-1]
    anew = np.add(*noise.first(d.shape[-1]))
    return share_left(n / (design.suite_items or n), asked_anew(anew, _variance(d)))


def build_evidence(
    d: Floats,
    path: EvidencePath,
    design: Design,
    noise: AnswerNoise | None = None,
) -> ComparisonEvidence:
    """Computes every figure for the items `d`.

    Args:
        path: of these items, or of more.
    """
    used = len(d)
    is_too_short = len(d) < 2
    t = None if is_too_short else float(guarded_t(d, design.theta0))
    total, squares = (float(ordered_sum(x)) if used else 0.0 for x in (d, d * d))
    wins = int((d > 0.0).sum())
    losses = int((d < 0.0).sum())
    method = "tango" if (d == np.round(d)).all() else "t"
    low = None
    high = None
    if noise is not None and not is_too_short:
        left = math.sqrt(float(_compute_share_left(d, design, noise)))
        low, high = (
            total / used + left * (end - total / used)
            for end in t_interval(used, total, squares)
        )
        method = "these"
    elif design.days is not None and not is_too_short:
        low, high = days_interval(used, total / used, float(_variance(d)), design.days)
        method = "days"
    elif not is_too_short:
        tango = tango_interval(wins, losses, used) if method == "tango" else None
        low, high = tango or t_interval(used, total, squares)
    spread = float(squared_deviations(used, total, squares))
    return ComparisonEvidence(
        outcome="running",
        how=None,
        n_used=used,
        delta=total / used + 0.0 if used else 0.0,
        ci_low=low,
        ci_high=high,
        ci_method=method,
        log_e_bad=float(path.log_e_bad[used - 1]) + 0.0 if used else 0.0,
        t=t,
        p_t=None if t is None else float(t_tail(used, t)),
        p_final=None if is_too_short else float(analysis_p(d, design, noise)),
        wins=wins,
        ties=used - wins - losses,
        losses=losses,
        sd=None if is_too_short else math.sqrt(spread / (used - 1)),
        noise=_mean_noise(used, noise),
    )


def _mean_noise(used: int, noise: AnswerNoise | None) -> tuple[float, float] | None:
    if noise is None:
        return None
    ours, theirs = noise.first(used)
    return float(ours), float(theirs)
