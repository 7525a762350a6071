"""Planned analyses against the formulas of statistics.md §1.14 and §1.15, written once more for
one comparison at a time, with scipy's distributions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import NormalDist, fmean

import numpy as np
import pytest
from scipy import stats

from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.adjusted import (
    AnswerNoise,
    Covariates,
    adjust_difference,
    judge_adjusted,
)
from harness.gate.offline.design import (
    Design,
    interim_items,
    interim_levels,
    with_unseen_loss,
)
from harness.gate.offline.futility import FUTILE
from harness.gate.offline.sequential import judge_differences
from tests.support.gate.adjusted_batch import judge_adjusted_batch

pytestmark = pytest.mark.req("F2")

NORMAL = NormalDist()


@dataclass(frozen=True)
class Fit:
    """What least squares leave, one column after the other."""

    mean: float
    squares: float
    all_squares: float
    extra: float
    columns: int


def fit(d: Sequence[float], known: Covariates | None) -> Fit:
    n, mean = len(d), fmean(d)
    left = np.array(d) - mean
    all_squares, extra = float(left @ left), 0.0
    before: list[tuple[np.ndarray, float]] = []
    columns = [] if known is None else [known.incumbent]
    for column in map(np.asarray, columns):
        away = column - column[:n].mean()
        for earlier, earlier_size in before:
            away = away - (away[:n] @ earlier[:n]) / earlier_size * earlier
        size = float(away[:n] @ away[:n]) + float(column.var())
        if size < 1e-12:
            continue
        slope, ahead = float(away[:n] @ left) / size, float(away.mean())
        mean += slope * ahead
        left = left - slope * away[:n]
        extra += ahead**2 / size
        before.append((away, size))
    return Fit(mean, float(left @ left), all_squares, extra, len(before))


def lost_one_more(found: Fit, d: Sequence[float]) -> Fit:
    n, lost = len(d), float(with_unseen_loss(d)[-1])
    gap = (found.mean - lost) ** 2 * n / (n + 1)
    return replace(
        found,
        mean=(n * found.mean + lost) / (n + 1),
        squares=found.squares + gap,
        all_squares=found.all_squares + gap,
    )


def variance(
    left: float, whole: float, per_item: float, pool: int, noise: tuple[float, float] | None
) -> float:
    foreseen = max(whole - left, 0.0)
    if noise is not None:
        ours, theirs = noise
        foreseen = min(max(ours + min(theirs, left) - left, -left / 2), foreseen)
    return left * per_item + foreseen / pool


@dataclass(frozen=True)
class Reference:
    """What the formula gives; df: degrees of freedom, explained: the share foreseen."""

    p: float
    mean: float
    error: float
    df: int
    explained: float
    noise: tuple[float, float] | None


def reference(d: Sequence[float], known: Covariates | None, design: Design) -> Reference:
    n, found, theta0 = len(d), fit(d, known), design.theta0
    pool = n if known is None else known.pool
    noise = None
    if known is not None and known.noise is not None:
        ours, theirs = known.noise.incumbent, known.noise.candidate[:n]
        noise = (
            (math.fsum(ours) + 0.25) / (len(ours) + 1),
            (math.fsum(theirs) + 0.25) / (n + 1),
        )

    def student(one: Fit, count: int) -> tuple[float, float, int]:
        df = max(count - 1 - one.columns, 1)
        left, whole = (one.squares + 0.25) / df, (one.all_squares + 0.25) / (count - 1)
        v = variance(left, whole, 1 / count + one.extra, pool, noise)
        t = (one.mean - theta0) / math.sqrt(v)
        return float(stats.t.sf(t, df)), math.sqrt(v), df

    p, error, df = student(found, n)
    if all(x in (-1.0, 0.0, 1.0) for x in d):
        rare, moved = -theta0 * (1 + theta0), n * (found.mean - theta0) ** 2
        left = max((found.squares + moved) / max(n - found.columns, 1), rare)
        whole = max((found.all_squares + moved) / n, rare)
        v = variance(left, whole, 1 / n + found.extra, pool, noise)
        p = max(p, 1 - NORMAL.cdf((found.mean - theta0) / math.sqrt(max(v, 1e-12))))
    else:
        p = student(lost_one_more(found, d), n + 1)[0]
    share = 1 - found.squares / found.all_squares if found.all_squares > 1e-12 else 1.0
    return Reference(p, found.mean, error, df, share, noise)


def draw(
    seed: int, n: int, pool: int, *, graded: bool, noise: float | None = None
) -> tuple[list[float], Covariates]:
    rng = np.random.default_rng(seed)
    hard = rng.random(pool)
    ours = hard if graded else (rng.random(pool) < hard).astype(float)
    theirs = np.clip(hard + rng.normal(0.02, 0.3, pool), 0.0, 1.0)
    if not graded:
        theirs = (rng.random(pool) < hard + 0.03).astype(float)
    known = Covariates(ours)
    if noise is not None:
        calm = AnswerNoise(rng.random(pool) * noise, rng.random(n) * noise)
        known = replace(known, noise=calm)
    return (theirs - ours)[:n].tolist(), known


DESIGNS = [
    Design(Claim.SUPERIOR, 0.05, 150),
    Design(Claim.SUPERIOR, 0.05, 200),
    Design(Claim.NON_INFERIOR, 0.05, 90),
    Design(Claim.NON_INFERIOR, 0.05, 220, alpha=0.02),
]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("noise", [None, 0.002, 0.1, 0.25])
@pytest.mark.parametrize("more", [0, 70])
def test_the_figures_at_the_end_are_those_of_the_formula(
    design: Design, *, graded: bool, noise: float | None, more: int
) -> None:
    n = design.n_max
    d, known = draw(7, n, n + more, graded=graded, noise=noise)
    evidence = judge_adjusted(d, replace(design, early=False), known)
    expected = reference(d[: evidence.n_used], known, design)

    assert evidence.p_final == pytest.approx(expected.p, rel=1e-6)
    assert evidence.delta == pytest.approx(expected.mean, abs=1e-12)
    half = float(stats.t.ppf(0.975, expected.df)) * expected.error
    assert evidence.ci_low == pytest.approx(expected.mean - half)
    assert evidence.ci_high == pytest.approx(expected.mean + half)
    assert evidence.explained == pytest.approx(max(0.0, expected.explained), abs=1e-12)
    assert evidence.noise == (None if expected.noise is None else pytest.approx(expected.noise))
    assert evidence.ci_method == "adjusted"
    plain = judge_differences(d[: evidence.n_used], replace(design, early=False))
    assert (evidence.wins, evidence.losses, evidence.ties) == (
        plain.wins,
        plain.losses,
        plain.ties,
    )


@pytest.mark.parametrize("graded", [False, True])
def test_without_a_pool_the_test_is_that_of_the_differences_alone(*, graded: bool) -> None:
    for design in DESIGNS:
        d, _ = draw(11, design.n_max, design.n_max, graded=graded)
        evidence = judge_adjusted(d, replace(design, early=False))
        expected = reference(d[: evidence.n_used], None, design)

        assert evidence.p_final == pytest.approx(expected.p, rel=1e-6)
        assert (evidence.explained, evidence.noise) == (0.0, None)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("graded", [False, True])
def test_it_passes_at_the_first_analysis_whose_level_is_reached(
    design: Design, *, graded: bool
) -> None:
    rng, n, ends = Random(4), design.n_max, set()
    items = interim_items(n)
    levels = dict(zip(items, interim_levels(items, design.alpha), strict=True))
    rows, cases = [], []
    for seed in range(12):
        d, known = draw(seed, n, n, graded=graded)
        lift = rng.uniform(0.0, 0.3)
        d = [1.0 if rng.random() < lift and x <= 0 else x for x in d]
        rows.append(d)
        cases.append(known)
        evidence = judge_adjusted(d, design, known)
        lost = judge_differences(d, replace(design, early=False, alpha=1e-9))
        end = lost.n_used if lost.outcome == "reject" else n
        passed = [
            k for k in items if k <= end and reference(d[:k], known, design).p <= levels[k]
        ]
        if passed:
            how = "final" if passed[0] == n else "early"
            assert (evidence.outcome, evidence.how) == ("promote", how)
            assert evidence.n_used == passed[0]
        elif lost.outcome == "reject":
            assert (evidence.outcome, evidence.how) == ("reject", "early")
            assert evidence.n_used == end
        else:
            assert (evidence.outcome, evidence.how) == ("inconclusive", "final")
            assert evidence.n_used == n
        ends.add((evidence.outcome, evidence.n_used))
    together = judge_adjusted_batch(
        rows,
        design,
        Covariates(np.stack([known.incumbent for known in cases])),
    )
    for row, known, promoted, used in zip(
        rows, cases, together.promoted, together.n_used, strict=True
    ):
        alone = judge_adjusted(row, design, known)
        assert (promoted, used) == (alone.outcome == "promote", alone.n_used)
    assert len(ends) > 1


def test_columns_that_are_all_alike_are_left_out() -> None:
    d, known = draw(5, 80, 120, graded=False)
    none = adjust_difference(np.array([d]), Covariates(np.ones(120)).rows(1))

    assert none.columns == 0
    assert none.mean.tolist() == pytest.approx([fmean(d)])
    assert none.extra.tolist() == [0.0]
    assert none.squares.tolist() == none.all_squares.tolist()
    assert adjust_difference(np.array([d]), known.rows(1)).columns == 1


def test_a_loss_of_an_analysis_item_is_a_loss_and_not_hopeless() -> None:
    lost = [0.0] * 52 + [-1.0] * 8 + [0.0] * 140
    design = Design(Claim.SUPERIOR, 0.05, 200)

    evidence = judge_adjusted(lost, design, futility=0.05)
    assert (evidence.outcome, evidence.how, evidence.n_used) == ("reject", "early", 60)
    together = judge_adjusted_batch([lost, [*lost[1:], 0.0]], design, futility=0.05)
    assert together.rejected.tolist() == [True, True]
    assert together.n_used.tolist() == [60, 59]
    later = [0.0, *lost[:-1]]  # lost at item 61: hopeless before
    assert judge_adjusted(later, design, futility=0.05).how == FUTILE
    assert not judge_adjusted_batch([later], design, futility=0.05).rejected.any()
    assert judge_adjusted(later, design).outcome == "reject"


@pytest.mark.parametrize(("n_max", "first"), [(240, 60), (244, 73), (200, 60)])
def test_it_is_given_up_from_a_quarter_of_the_items_on(n_max: int, first: int) -> None:
    lost = [-0.2, 0.1, 0.1, -0.1] * 61
    design = Design(Claim.SUPERIOR, 0.05, n_max)
    evidence = judge_adjusted(lost[:n_max], design, futility=0.05)

    assert (evidence.how, evidence.n_used) == (FUTILE, first)
    assert evidence.outcome == "inconclusive"
    before = judge_adjusted(lost[: first - 1], design, futility=0.05)
    assert (before.outcome, before.n_used) == ("running", first - 1)
    last = judge_adjusted(lost[:n_max], replace(design, early=False), futility=0.05)
    assert (last.outcome, last.how) != ("inconclusive", FUTILE)


def test_one_item_is_no_comparison_and_none_is_nothing() -> None:
    for n_max, outcome in ((1, "inconclusive"), (5, "running")):
        one = judge_adjusted([1.0], Design(Claim.SUPERIOR, 0.05, n_max))
        assert (one.outcome, one.n_used, one.p_final) == (outcome, 1, None)
        assert (one.ci_method, one.explained) == ("tango", None)
    nothing = judge_adjusted([], Design(Claim.SUPERIOR, 0.05, 5))
    assert (nothing.outcome, nothing.n_used, nothing.delta) == ("running", 0, 0.0)
    two = judge_adjusted([1.0, 1.0], Design(Claim.SUPERIOR, 0.05, 2))
    assert (two.outcome, two.how, two.ci_method) == ("inconclusive", "final", "adjusted")
    assert two.ci_high == 1.0
    lost = judge_adjusted([-1.0, -1.0], Design(Claim.SUPERIOR, 0.05, 2))
    assert lost.ci_low == -1.0


def test_without_early_analyses_only_the_end_is_tested_at_the_whole_alpha() -> None:
    won = [1.0, 1.0, 0.0] * 40
    design = Design(Claim.SUPERIOR, 0.05, 120)
    late = judge_adjusted(won, replace(design, early=False))

    assert (late.outcome, late.how, late.n_used) == ("promote", "final", 120)
    assert judge_adjusted(won, design).n_used == 60
    assert judge_adjusted(won[:119], replace(design, early=False)).outcome == "running"
    d, _ = draw(2, 120, 120, graded=True)
    p = judge_adjusted(d, replace(design, early=False)).p_final
    assert p is not None
    for alpha, outcome in ((p, "promote"), (math.nextafter(p, 0.0), "inconclusive")):
        exact = replace(design, early=False, alpha=alpha)
        assert judge_adjusted(d, exact).outcome == outcome
        assert judge_adjusted_batch([d], exact).promoted.tolist() == [outcome == "promote"]


def test_what_may_not_promote_may_still_be_lost_and_is_open_at_its_end() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 80)

    better = judge_adjusted([1.0] * 80, design, may_promote=False)
    assert (better.outcome, better.how, better.n_used) == ("running", None, 80)
    worse = judge_adjusted([-1.0] * 80, design, may_promote=False)
    assert (worse.outcome, worse.how, worse.n_used) == ("reject", "early", 8)
