"""The sequential test reads paired differences item by item and may stop early
(statistics.md §1.3 to §1.5): it promotes at a planned analysis, and rejects or gives up at any
item.

`judge_batch` decides on many comparisons at once, `judge_differences` on one, with its figures.
Sums are added strictly in order, so that results do not depend on how many there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from harness.domain.errors import InputError
from harness.gate.arrays import (
    ArrayLike,
    Bools,
    Floats,
    Ints,
    geometric_grid,
    log_mean_rows,
    np,
    special,
)
from harness.gate.offline.design import (
    FUTILE,
    FUTILE_FROM,
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
from harness.gate.offline.noise import AnswerNoise, asked_anew, p_about_these, share_left


def final_p(differences: ArrayLike, theta0: float) -> Floats:
    """Computes p_final of statistics.md §1.5 for (…, n) differences of items or clusters,
    n >= 2: how well they fit a mean of theta0 or less.

    Where every difference is -1, 0 or 1, only wins and losses count, and how often a loss stays
    unseen is known.
    """
    d = np.asarray(differences, dtype=np.float64)
    n, whole = d.shape[-1], (d == np.round(d)).all(axis=-1)
    graded = _graded_p(with_unseen_loss(d), theta0)
    if not whole.any():
        return graded
    won, lost = (d > 0.0).sum(axis=-1), (d < 0.0).sum(axis=-1)
    few = n <= MOST_EXACT
    counted = _exact_p(n, theta0)[won, lost] if few else _whole_p(won, lost, n, theta0)
    return np.asarray(np.where(whole, counted, graded), dtype=np.float64)


def guarded_t(differences: ArrayLike, theta0: float) -> Floats:
    """Student's t with a guard added to the sum of squares, so that it is always defined."""
    d = np.asarray(differences, dtype=np.float64)
    return _t_of_sums(d.shape[-1], _sum(d), _sum(d * d), theta0)


def t_tail(n: int, t: ArrayLike) -> Floats:
    """Computes the upper tail of Student's t with n - 1 degrees of freedom, n >= 2."""
    return np.asarray(special.stdtr(n - 1.0, -np.asarray(t)), dtype=np.float64)


# Of so many pass/fail items, the sum's steps are wide against its spread.
MOST_EXACT: Final = 200
_SHARES: Final = 60  # of items that differ, from the fewest to all
_TIE_DIGITS: Final = 9
_NEVER: Final = 1e-300


@lru_cache(maxsize=128)
def _exact_p(n: int, theta0: float) -> Floats:
    """By wins and losses: the chance that `_whole_p` is as small as it is, at the null and with
    the share of differing items for which that chance is largest.

    Source: Barnard 1947, Biometrika 34:123; Lloyd 2008, Aust. N. Z. J. Stat. 50:329.
    """
    won, lost = np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n)
    ranks = np.log(np.maximum(_whole_p(won, lost, n, theta0), _NEVER)).round(_TIE_DIGITS)
    order = np.argsort(ranks, kind="stable")
    ranks, won, lost = ranks[order], won[order], lost[order]
    last = np.searchsorted(ranks, ranks, side="right") - 1
    counts = won, lost, n - won - lost
    ways = special.gammaln(n + 1.0) - sum(special.gammaln(count + 1.0) for count in counts)
    p = np.zeros(len(ranks))
    for share in np.sin(np.linspace(0.0, np.pi / 2.0, _SHARES)) ** 2:
        differ = share - theta0 * (1.0 - share)
        chances = (differ + theta0) / 2.0, (differ - theta0) / 2.0, 1.0 - differ
        logs = np.log(np.maximum(chances, _NEVER))
        logs = ways + counts[0] * logs[0] + counts[1] * logs[1] + counts[2] * logs[2]
        p = np.maximum(p, np.cumsum(np.exp(logs))[last])
    table = np.ones((n + 1, n + 1))
    table[won, lost] = np.minimum(p, 1.0)
    return table


def _whole_p(won: Ints, lost: Ints, n: int, theta0: float) -> Floats:
    """The larger p of Student's t and of the score test, from wins and losses."""
    total, squares = (np.asarray(x, dtype=np.float64) for x in (won - lost, won + lost))
    if theta0 < 0.0:
        plain = t_tail(n, _t_of_sums(n, total, squares, theta0))
    else:
        mean = total / n
        cubes = total - 3.0 * mean * squares + 2.0 * n * mean * mean * mean
        plain = _lean_p(n, total, squares, cubes, theta0)
    return np.asarray(np.maximum(plain, tango_p(won, lost, n, theta0)), dtype=np.float64)


def _graded_p(d: Floats, theta0: float) -> Floats:
    n, total = d.shape[-1], _sum(d)
    gaps = d - total[..., None] / n
    return _lean_p(n, total, _sum(d * d), _sum(gaps * gaps * gaps), theta0)


def _lean_p(n: int, total: Floats, squares: Floats, cubes: Floats, theta0: float) -> Floats:
    """Corrects t where rare losses stand against common wins: there a sample with few losses
    has a high mean and a small spread. cubes: the sum of the cubes of the gaps to the mean.

    It is Johnson's correction (1978, JASA 73:536) in a form that rises with t: Hall 1992,
    J. R. Stat. Soc. B 54:221.
    """
    t = _t_of_sums(n, total, squares, theta0)
    variance = (squared_deviations(n, total, squares) + VARIANCE_GUARD) / n
    skew = np.minimum(cubes / n / (variance * np.sqrt(variance)), 0.0)
    a = skew / (3.0 * np.sqrt(n))
    return t_tail(n, t + a / 2.0 + a * t * t + a * a * t * t * t / 3.0)


def _t_of_sums(n: int, total: Floats, squares: Floats, theta0: float) -> Floats:
    noise = np.sqrt(squared_deviations(n, total, squares) + VARIANCE_GUARD)
    return np.asarray((total / n - theta0) * n / noise, dtype=np.float64)


def _squares_left(d: Floats) -> Floats:
    return squared_deviations(d.shape[-1], _sum(d), _sum(d * d))


def _sum(values: Floats) -> Floats:
    """Adds up the last axis strictly in order."""
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])


BET_GRID = geometric_grid(0.02, 0.9, 15)
_SLACK = 1e-12
# The chance of passing at the last item below which the margin is out of reach.
OUT_OF_REACH = 0.01


@dataclass(frozen=True, slots=True)
class EvidencePath:
    """Holds the evidence after each item along the last axis, going on past any stop."""

    log_e_bad: Floats
    rejects: Bools  # worse than the incumbent, and the margin is out of reach
    hopeless: Bools  # it can hardly be shown any more


@dataclass(frozen=True, slots=True)
class ComparisonEvidence:
    """Holds every figure of a comparison, on the items used. Shares of 1."""

    outcome: str  # promote | reject | inconclusive | running
    how: str | None  # early | final | futile | None
    n_used: int
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e_bad: float
    t: float | None
    # p_t, p_final: over the items used, at every moment, and None below two; p_final decides
    # only at planned analyses. ci: None below two items; not adjusted for early stopping;
    # method these for a claim about these items, else tango when every difference is -1, 0 or
    # 1, else t.
    p_t: float | None
    p_final: float | None
    wins: int
    ties: int
    losses: int
    sd: float | None
    # How much an item's score varies when it is asked anew, of incumbent and candidate: where
    # the claim is about these items.
    noise: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class BatchDecisions:
    """Holds the decisions on many comparisons at once: one entry per row. Rows that still run,
    and those that showed nothing to the end, are in no mask.
    """

    promoted: Bools
    rejected: Bools
    futile: Bools
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
    items = np.arange(1, d.shape[-1] + 1)
    if d.shape[-1] > design.n_max:
        raise InputError(f"{d.shape[-1]} items, but the plan says at most {design.n_max}")
    losing = [np.cumsum(np.log1p(-stake * d), axis=-1) for stake in BET_GRID]
    log_e_bad = log_mean_rows(losing)
    rejects = log_e_bad >= REJECT_LOG_E
    total, squares = np.cumsum(d, axis=-1), np.cumsum(d * d, axis=-1)
    reach = chance_of_passing(items, total, squares, design)
    if design.theta0 < 0.0:
        rejects &= reach < OUT_OF_REACH
    between = (items >= FUTILE_FROM * design.n_max) & (items < design.n_max)
    return EvidencePath(log_e_bad, rejects, (reach < design.futility) & between)


def judge_differences(
    differences: Sequence[float], design: Design, noise: AnswerNoise | None = None
) -> ComparisonEvidence:
    """The verdict on items in their registered order, consumed up to where it is decided.

    noise: of these items' scores, where the claim is about them; None is as noisy as can be.
    """
    d = check_differences(differences)
    taken = evidence_path(d, design)
    if not len(d):
        return build_evidence(d, taken, design)
    decided = judge_batch(d[None], design, noise)
    used = int(decided.n_used[0])
    outcome, how = "running", "early" if used < design.n_max else "final"
    if decided.promoted[0]:
        outcome = "promote"
    elif decided.rejected[0]:
        outcome = "reject"
    elif decided.futile[0]:
        outcome, how = "inconclusive", FUTILE
    elif used == design.n_max:
        outcome = "inconclusive"
    evidence = build_evidence(d[:used], taken, design, noise)
    return replace(evidence, outcome=outcome, how=None if outcome == "running" else how)


def judge_batch(
    matrix: ArrayLike, design: Design, noise: AnswerNoise | None = None
) -> BatchDecisions:
    """Judges every row of differences (comparisons, items), without display figures."""
    d = check_differences(matrix)
    taken, items = evidence_path(d, design), d.shape[-1]
    stops = taken.rejects | taken.hopeless
    used = np.where(stops.any(axis=-1), np.argmax(stops, axis=-1) + 1, items)
    promoted = np.zeros(len(d), dtype=np.bool_)
    for n, level in design.levels.items():
        # Promotion first: on the same item it stands.
        if 2 <= n <= items and (open_ := ~promoted & (used >= n)).any():
            now = open_ & (analysis_p(d[:, :n], design, noise) <= level)
            promoted, used = promoted | now, np.where(now, n, used)
    rejected = ~promoted & taken.rejects[np.arange(len(d)), used - 1]
    futile = ~promoted & ~rejected & taken.hopeless[np.arange(len(d)), used - 1]
    return BatchDecisions(promoted, rejected, futile, used)


def analysis_p(d: Floats, design: Design, noise: AnswerNoise | None = None) -> Floats:
    """The p-value that decides at an analysis of (…, n) differences, n >= 2."""
    p = final_p(d, design.theta0)
    if noise is not None:
        p = p_about_these(p, _left(d, design, noise))
    return np.minimum(p, _staked_p(d, design.theta0))


def _staked_p(d: Floats, theta0: float) -> Floats:
    """Bets all money on every graded item: it grows by a factor of 1/p with a chance of at most
    p at the null, whatever the differences are (statistics.md §1.5).
    """
    left = _sum(np.log(np.maximum((1.0 + d) / (1.0 + theta0), _NEVER)))
    graded = (d != np.round(d)).any(axis=-1)
    return np.asarray(np.where(graded, np.exp(np.minimum(-left, 0.0)), 1.0), dtype=np.float64)


def _left(d: Floats, design: Design, noise: AnswerNoise) -> Floats:
    """The share of the mean difference's variance that counts of a claim about these items."""
    n, anew = d.shape[-1], np.add(*noise.first(d.shape[-1]))
    variance = (_squares_left(d) + VARIANCE_GUARD) / (n - 1)
    return share_left(n / (design.suite_items or n), asked_anew(anew, variance))


def build_evidence(
    d: Floats, taken: EvidencePath, design: Design, noise: AnswerNoise | None = None
) -> ComparisonEvidence:
    """Computes every figure of the items so far, of a comparison that goes on. taken: of them,
    or of more.
    """
    used, few = len(d), len(d) < 2
    t = None if few else float(guarded_t(d, design.theta0))
    total, squares = (float(_sum(x)) if used else 0.0 for x in (d, d * d))
    wins, losses = int((d > 0.0).sum()), int((d < 0.0).sum())
    method = "tango" if (d == np.round(d)).all() else "t"
    low, high = None, None
    if noise is not None and not few:
        left = math.sqrt(float(_left(d, design, noise)))
        low, high = (
            total / used + left * (end - total / used)
            for end in t_interval(used, total, squares)
        )
        method = "these"
    elif not few:
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
        log_e_bad=float(taken.log_e_bad[used - 1]) + 0.0 if used else 0.0,
        t=t,
        p_t=None if t is None else float(t_tail(used, t)),
        p_final=None if few else float(analysis_p(d, design, noise)),
        wins=wins,
        ties=used - wins - losses,
        losses=losses,
        sd=None if few else math.sqrt(spread / (used - 1)),
        noise=_mean_noise(used, noise),
    )


def _mean_noise(used: int, noise: AnswerNoise | None) -> tuple[float, float] | None:
    if noise is None:
        return None
    ours, theirs = noise.first(used)
    return float(ours), float(theirs)
