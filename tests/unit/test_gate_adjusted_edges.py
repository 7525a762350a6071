"""The adjusted rule at its edges: few items, rare differences, noise that hardly matters, the
chance that is left, and rows of a batch that ended at another analysis.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.adjusted import (
    AnswerNoise,
    Covariates,
    judge_adjusted,
    judge_adjusted_batch,
)
from harness.gate.offline.design import Design, interim_items, interim_levels
from harness.gate.offline.futility import FUTILE
from harness.gate.offline.sequential import judge_differences
from tests.unit.test_gate_adjusted_reference import draw, reference

pytestmark = pytest.mark.req("F2")

NORMAL = NormalDist()
SUPERIOR = Design(Claim.SUPERIOR, 0.05, 200)


def check(d: Sequence[float], known: Covariates | None, design: Design) -> None:
    evidence = judge_adjusted(d, replace(design, early=False), known)
    expected = reference(d, known, design)

    assert evidence.n_used == len(d)
    assert evidence.p_final == pytest.approx(expected.p, rel=1e-6)
    half = float(stats.t.ppf(0.975, expected.df)) * expected.error
    assert evidence.ci_high == pytest.approx(min(1.0, expected.mean + half))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_fewer_items_than_columns_leave_one_degree_of_freedom(n: int) -> None:
    for claim in (Claim.SUPERIOR, Claim.NON_INFERIOR):
        for seed in range(4):
            for graded in (False, True):
                d, known = draw(seed, n, n + 9, graded=graded)
                check(d, known, Design(claim, 0.2, n))


def test_two_items_may_be_an_analysis() -> None:
    design = Design(Claim.NON_INFERIOR, 0.9, 2, alpha=0.2, early=False)
    evidence = judge_adjusted([0.0, 0.0], design)

    assert evidence.p_final is not None
    assert evidence.p_final <= 0.2
    assert (evidence.outcome, evidence.how, evidence.n_used) == ("promote", "final", 2)


@pytest.mark.parametrize("lost", [0, 1, 2, 4])
@pytest.mark.parametrize("margin", [0.05, 0.1, 0.3])
def test_rare_losses_have_at_least_the_variance_of_the_null(lost: int, margin: float) -> None:
    """A loss of the whole margin, all of it in rare items, varies by m(1 - m)."""
    n, rng = 100, np.random.default_rng(lost)
    d = [-1.0 if k in range(0, 20 * lost, 20) else 0.0 for k in range(n)]
    known = Covariates((rng.random(160) < 0.8).astype(float))
    design = Design(Claim.NON_INFERIOR, margin, n)

    check(d, known, design)
    check(d, None, design)
    z = (math.fsum(d) / n + margin) / math.sqrt(margin * (1 - margin) / n)
    plain = judge_adjusted(d, replace(design, early=False))
    assert plain.p_final is not None
    assert plain.p_final >= 1 - NORMAL.cdf(z) - 1e-12


@pytest.mark.parametrize(("ours", "theirs"), [(0.001, 0.24), (0.2, 0.24), (0.0, 0.0)])
def test_a_candidate_noisier_than_what_is_left_counts_as_what_is_left(
    ours: float, theirs: float
) -> None:
    """Nearly all of the differences is foreseen, so that the noise has room below it."""
    rng = np.random.default_rng(6)
    incumbent = (rng.random(300) < 0.5).astype(float)
    d = (0.7 * (1.0 - incumbent) - 0.6 * incumbent + rng.normal(0, 0.05, 300)).tolist()
    noise = AnswerNoise(np.full(300, ours), np.full(150, theirs))
    known = Covariates(incumbent, noise)

    check(d[:150], known, Design(Claim.NON_INFERIOR, 0.05, 150))


def test_the_chance_that_is_left_is_the_one_of_the_formula() -> None:
    d, known = draw(3, 200, 200, graded=True)
    design = Design(Claim.NON_INFERIOR, 0.05, 200)
    levels = interim_levels(interim_items(200), 0.05)
    lower = [max(-1.0, x - 0.06) for x in d[:60]]
    found = reference(lower, known, design)
    now, share = (found.mean + 0.05) / found.error, 60 / 200
    ahead = now * share**0.5 + (now + 2) * (1 - share) / share**0.5 + NORMAL.inv_cdf(levels[-1])
    chance = NORMAL.cdf(ahead / (1 - share) ** 0.5)
    assert 0.05 < chance < 0.95

    just, nearly = (
        judge_adjusted(lower, design, known, futility=chance * factor)
        for factor in (1.001, 0.999)
    )
    assert (just.how, nearly.how) == (FUTILE, None)


def test_a_row_of_a_batch_stays_as_it_ended_whatever_comes_later() -> None:
    won, even, lost = [1.0, 1.0, 0.0], [0.5, -0.5], [-0.2, 0.1, 0.1, -0.1]
    rows = [
        won * 20 + [-0.1, 0.05, 0.0, -0.05] * 35,  # shown at once, hopeless later
        lost * 15 + won * 46 + [1.0, 0.0],  # hopeless at once, better later
        even * 96 + [-1.0] * 8,  # rejected at the last item, at most
        [0.0] * 192 + [-1.0] * 8,  # rejected at exactly the last item
        won * 66 + [0.0, 0.0],
        [-1.0] * 8 + won * 64,
    ]
    for futility in (0.0, 0.05):
        found = judge_adjusted_batch(rows, SUPERIOR, futility=futility)
        for row, promoted, rejected, used in zip(
            rows, found.promoted, found.rejected, found.n_used, strict=True
        ):
            alone = judge_adjusted(row, SUPERIOR, futility=futility)
            assert (promoted, rejected, used) == (
                alone.outcome == "promote",
                alone.outcome == "reject",
                alone.n_used,
            )
    last = judge_adjusted(rows[3], SUPERIOR)
    assert (last.outcome, last.n_used) == ("reject", 200)


def test_minus_zero_is_zero_in_whatever_is_stored() -> None:
    nothing = [-0.0] * 4
    for judge in (judge_adjusted, judge_differences):
        evidence = judge(nothing, Design(Claim.SUPERIOR, 0.05, 4))
        for value in (evidence.delta, evidence.log_e, evidence.log_e_bad, evidence.log_e_max):
            assert math.copysign(1.0, value) == 1.0
