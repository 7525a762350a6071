"""Judges a claim about these items with the help of what was known before the candidate's first
score: the incumbent's score of every item of the pool (statistics.md §1.14).

Items on which the incumbent scored 0 can only be won, and easy ones mostly are: differences
that could be foreseen are no evidence, and what they add to the spread is taken out
(`adjust_difference`). The comparison is tested at the registered interim analyses alone
(`analyse`); the rejection is the betting one of every rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.gate.arrays import Bools, Floats, np, special
from harness.gate.offline.design import (
    Design,
    interim_items,
    interim_levels,
    with_unseen_loss,
)
from harness.gate.offline.futility import FIRST_LOOK, FUTILE, chance_of_last
from harness.gate.offline.intervals import CONFIDENCE, VARIANCE_GUARD
from harness.gate.offline.pairs import MOST_NOISE
from harness.gate.offline.sequential import (
    ComparisonEvidence,
    build_evidence,
    check_differences,
    evidence_path,
)

_NOTHING: Final = 1e-12
# Of what the fit leaves, this share counts at the pool's last item too, however calm the models
# seem: one item more that is right shows nothing.
_LEAST_LEFT: Final = 0.5
ADJUSTED_METHOD: Final = "adjusted"


@dataclass(frozen=True, slots=True)
class AnswerNoise:
    """How much each item's mean score varies when the item is asked anew (statistics.md §1.15).

    Variances over epochs, in the registered order.
    """

    incumbent: Floats  # (…, pool)
    candidate: Floats  # (…, items)

    def means(self, n: int) -> tuple[Floats, Floats]:
        """The mean variances of both arms after n items."""
        return _mean_noise(self.incumbent), _mean_noise(self.candidate[..., :n])


def _mean_noise(variances: Floats) -> Floats:
    """Adds one more item, as noisy as can be: alike answers prove no calm."""
    return np.asarray((_sum(variances) + MOST_NOISE) / (variances.shape[-1] + 1))


@dataclass(frozen=True, slots=True)
class Covariates:
    """What is known of every item of the pool, in the registered order.

    An array (…, pool); the comparison's items are the first ones.
    """

    incumbent: Floats  # its scores; no items: nothing is known, and nothing is adjusted
    noise: AnswerNoise | None = None  # None: the claim is about items like these

    @property
    def pool(self) -> int:
        return int(self.incumbent.shape[-1])

    def rows(self, count: int) -> Floats:
        """Stacks the columns that differences are adjusted by, for `count` comparisons."""
        return np.broadcast_to(self.incumbent, (count, self.pool))[None]


@dataclass(frozen=True, slots=True)
class AdjustedDifference:
    """Holds the adjusted mean difference of comparisons, one entry per row."""

    mean: Floats
    squares: Floats  # sum of squares that is left
    all_squares: Floats  # the same before the adjustment
    extra: Floats  # variance of the adjustment itself, in units of the one that is left
    columns: int  # that were fitted

    def with_loss(self, n: int, lost: Floats) -> "AdjustedDifference":
        """The same after one more item with the difference `lost`."""
        gap = (self.mean - lost) ** 2 * n / (n + 1)
        return replace(
            self,
            mean=(n * self.mean + lost) / (n + 1),
            squares=self.squares + gap,
            all_squares=self.all_squares + gap,
        )


def adjust_difference(differences: Floats, columns: Floats | None) -> AdjustedDifference:
    """The mean difference if the items had been those of the whole pool.

    differences: (rows, items). columns: (columns, rows, pool), taken out one after the other;
    None for nothing. Each begins with one item of the pool's own spread, so that few items
    adjust little. Sums are added in order: the same bits everywhere.
    """
    n = differences.shape[-1]
    mean = _sum(differences) / n
    left = differences - mean[:, None]
    all_squares, extra = _sum(left * left), np.zeros_like(mean)
    used: list[tuple[Floats, Floats]] = []
    for column in () if columns is None else columns:
        pooled = column.shape[-1]
        spread = column - (_sum(column) / pooled)[:, None]
        prior = _sum(spread * spread) / pooled
        column_left = column - (_sum(column[:, :n]) / n)[:, None]
        for earlier, size in used:
            share = _divide(_sum(column_left[:, :n] * earlier[:, :n]), size)
            column_left = column_left - share[:, None] * earlier
        size = _sum(column_left[:, :n] ** 2) + prior
        if not (size > _NOTHING).any():
            continue
        slope = _divide(_sum(column_left[:, :n] * left), size)
        ahead = _sum(column_left) / pooled
        mean = mean + slope * ahead
        left = left - slope[:, None] * column_left[:, :n]
        extra = extra + _divide(ahead * ahead, size)
        used.append((column_left, size))
    return AdjustedDifference(mean, _sum(left * left), all_squares, extra, len(used))


def _sum(values: Floats) -> Floats:
    """Adds up the last axis strictly in order."""
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])


def _divide(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.where(below > _NOTHING, above / np.maximum(below, _NOTHING), 0.0))


# Mean variances of incumbent and candidate; None where the claim is about items like these.
_MeanNoise = tuple[Floats, Floats] | None


@dataclass(frozen=True, slots=True)
class AnalysisTest:
    """Holds the test at one analysis, one entry per row."""

    p: Floats
    mean: Floats  # adjusted difference
    error: Floats  # its standard error
    df: int
    explained: Floats  # share of the differences' variance that could be foreseen


def analyse(
    differences: Floats,
    columns: Floats | None,
    whole: Bools,
    design: Design,
    noise: AnswerNoise | None = None,
) -> AnalysisTest:
    """Tests the items so far, two or more (statistics.md §1.14).

    What is left varies from item to item of those used; what could be foreseen varies from pool
    to pool, unless noise says what asking anew would change (§1.15). whole: rows in which every
    difference is -1, 0 or 1.
    """
    n = differences.shape[-1]
    pool = n if columns is None else columns.shape[-1]
    anew = None if noise is None or columns is None else noise.means(n)
    plain = adjust_difference(differences, columns)
    theta0, floor = design.theta0, -design.theta0 * (1.0 + design.theta0)
    moved = n * (plain.mean - theta0) ** 2
    scored = _variance(
        np.maximum((plain.squares + moved) / max(n - plain.columns, 1), floor),
        np.maximum((plain.all_squares + moved) / n, floor),
        1.0 / n + plain.extra,
        pool,
        anew,
    )
    p_scored = special.ndtr(-(plain.mean - theta0) / np.sqrt(np.maximum(scored, _NOTHING)))
    p_plain, error, df = _student(plain, n, pool, design, anew)
    unseen = plain.with_loss(n, with_unseen_loss(differences)[..., -1])
    graded = _student(unseen, n + 1, pool, design, anew)[0]
    return AnalysisTest(
        p=np.where(whole, np.maximum(p_plain, p_scored), graded),
        mean=plain.mean,
        error=error,
        df=df,
        explained=1.0 - _divide(plain.squares, plain.all_squares),
    )


def _student(
    adjusted: AdjustedDifference, n: int, pool: int, design: Design, noise: _MeanNoise
) -> tuple[Floats, Floats, int]:
    """Returns the p-value, the difference's error and the degrees of freedom."""
    df = max(n - 1 - adjusted.columns, 1)
    variance = _variance(
        (adjusted.squares + VARIANCE_GUARD) / df,
        (adjusted.all_squares + VARIANCE_GUARD) / (n - 1),
        1.0 / n + adjusted.extra,
        pool,
        noise,
    )
    error = np.sqrt(variance)
    t = (adjusted.mean - design.theta0) / error
    return np.asarray(special.stdtr(df, -t)), error, df


def _variance(
    left: Floats, whole: Floats, per_item: Floats, pool: int, noise: _MeanNoise
) -> Floats:
    """Never more than without the noise, and the same where that is no number."""
    foreseen = np.maximum(whole - left, 0.0)
    if noise is not None:
        incumbent, candidate = noise
        anew = incumbent + np.minimum(candidate - left, 0.0)
        anew = np.clip(anew, (_LEAST_LEFT - 1.0) * left, foreseen)
        foreseen = np.where(np.isnan(anew), foreseen, anew)
    return np.asarray(left * per_item + foreseen / pool)


def judge_adjusted(
    differences: Sequence[float],
    design: Design,
    covariates: Covariates | None = None,
    *,
    may_promote: bool = True,
    futility: float = 0.0,
) -> ComparisonEvidence:
    """The verdict on items in their registered order, consumed up to where it is decided.

    covariates: None where the incumbent's pool is not to be had. may_promote: no while the
    pool is still awaited. futility: it is given up at an analysis that leaves less than this
    chance. Difference, interval and p_final are the adjusted ones.
    """
    d = check_differences(differences)
    path = evidence_path(d, design)
    bad = path.rejects
    rejected_at = int(np.argmax(bad)) + 1 if bad.any() else None
    promoted_at, futile_at, rows = None, None, d[None, :]
    columns, noise = _known(covariates, 1)
    for n, level in _analyses(design, rejected_at or len(d)) if may_promote else ():
        test = analyse(rows[:, :n], columns, _whole(rows[:, :n]), design, noise)
        if test.p[0] <= level:
            promoted_at = n
            break
        if n != rejected_at and _hopeless(test, n, design, futility)[0]:
            futile_at = n
            break
    used = promoted_at or futile_at or rejected_at or len(d)
    plain = build_evidence(d[:used], path, design)
    outcome, how = _outcome(promoted_at, rejected_at, used, design, may_promote=may_promote)
    if futile_at is not None:
        outcome, how = "inconclusive", FUTILE
    if used < 2:
        return replace(plain, outcome=outcome, how=how)
    test = analyse(rows[:, :used], columns, _whole(rows[:, :used]), design, noise)
    varies = None if noise is None else [float(mean) for mean in noise.means(used)]
    half = float(special.stdtrit(test.df, 0.5 + CONFIDENCE / 2)) * float(test.error[0])
    mean = float(test.mean[0]) + 0.0
    return replace(
        plain,
        outcome=outcome,
        how=how,
        delta=mean,
        ci_low=max(-1.0, mean - half),
        ci_high=min(1.0, mean + half),
        ci_method=ADJUSTED_METHOD,
        p_final=float(test.p[0]),
        explained=max(0.0, float(test.explained[0])),
        noise=None if varies is None else (varies[0], varies[1]),
    )


def _hopeless(test: AnalysisTest, n: int, design: Design, futility: float) -> Bools:
    """Where the last analysis is passed with less than the chance `futility`.

    The share of items stands for that of the information: what is foreseen is not known better
    at the end, so that the chance is rather too high.
    """
    if not futility or not FIRST_LOOK * design.n_max <= n < design.n_max:
        return np.zeros(len(test.p), dtype=np.bool_)
    (_, level), share = _analyses(design, design.n_max)[-1], n / design.n_max
    now = (test.mean - design.theta0) / test.error
    return np.asarray(chance_of_last(now, share, level) < futility)


def _known(
    covariates: Covariates | None, count: int
) -> tuple[Floats | None, AnswerNoise | None]:
    return (None, None) if covariates is None else (covariates.rows(count), covariates.noise)


def _analyses(design: Design, upto: int) -> Sequence[tuple[int, float]]:
    """After how many items, and at which level. Where nothing may pass early, at the end."""
    items = interim_items(design.n_max) if design.early else (design.n_max,)
    levels = interim_levels(items, design.alpha) if design.early else (design.alpha,)
    return [(n, level) for n, level in zip(items, levels, strict=True) if 2 <= n <= upto]


def _whole(rows: Floats) -> Bools:
    return np.asarray((rows == np.round(rows)).all(axis=-1))


def _outcome(
    promoted_at: int | None,
    rejected_at: int | None,
    used: int,
    design: Design,
    *,
    may_promote: bool,
) -> tuple[str, str | None]:
    if promoted_at is not None:
        return "promote", "final" if promoted_at == design.n_max else "early"
    if rejected_at is not None:
        return "reject", "early"
    if used < design.n_max or not may_promote:
        return "running", None
    return "inconclusive", "final"
