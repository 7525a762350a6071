"""Planned analyses, their levels, and when a comparison is hopeless: statistics.md §1.14 and
§1.16, against normal probabilities of scipy and loops over single items.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole, plan_from_json
from harness.gate.offline.design import (
    Design,
    design_from_plan,
    interim_items,
    interim_levels,
    interim_power,
)
from harness.gate.offline.futility import (
    FUTILE,
    chance_of_last,
    give_up,
    hopeless_at,
    judge_or_give_up,
)
from harness.gate.offline.sequential import judge_differences
from harness.gate.planning.multiplicity import share_alpha

pytestmark = pytest.mark.req("F2", "F4")

NORMAL = NormalDist()


@pytest.mark.parametrize(
    ("n_max", "items"),
    [
        (1, (1,)),
        (60, (60,)),
        (65, (65,)),
        (66, (60, 66)),
        (80, (60, 70, 80)),
        (85, (60, 70, 85)),
        (86, (60, 70, 80, 86)),
        (200, (*range(60, 200, 10), 200)),
        (201, (*range(60, 193, 11), 201)),
        (500, (*range(60, 500, 25), 500)),
        (601, (*range(62, 570, 31), 601)),
        (2000, (*range(200, 2000, 100), 2000)),
    ],
)
def test_the_plan_of_analyses_is_the_registered_one(n_max: int, items: tuple[int, ...]) -> None:
    """From 60 items on, every 20th part or ten items; none is near the end."""
    assert interim_items(n_max) == items


def cross(shares: Sequence[float], limits: Sequence[float], drift: float = 0.0) -> float:
    """How often a normal walk is at or above one of the limits (of its z) by its last share."""
    covariance = [[math.sqrt(min(a, b) / max(a, b)) for b in shares] for a in shares]
    means = [drift * math.sqrt(share) for share in shares]
    below = stats.multivariate_normal(means, covariance, abseps=1e-7, releps=1e-7)
    return 1.0 - float(below.cdf(np.array(limits)))


@pytest.mark.parametrize("items", [(60, 70, 80), (60, 120), (100,), (50, 100, 400)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_up_to_each_analysis_its_part_of_alpha_is_spent(
    items: tuple[int, ...], alpha: float
) -> None:
    levels = interim_levels(items, alpha)
    limits = [-NORMAL.inv_cdf(level) for level in levels]

    for k, n in enumerate(items, start=1):
        shares = [m / items[-1] for m in items[:k]]
        due = 0.9 * alpha * (n / items[-1]) ** 2.5
        assert cross(shares, limits[:k]) == pytest.approx(due, rel=2e-3)
    assert levels[0] == pytest.approx(0.9 * alpha * (items[0] / items[-1]) ** 2.5, rel=1e-5)


@pytest.mark.parametrize("drift", [0.0, 1.5, 3.0])
def test_power_is_how_often_any_analysis_is_passed(drift: float) -> None:
    items = (60, 100, 160)
    limits = [-NORMAL.inv_cdf(level) for level in interim_levels(items, 0.05)]

    expected = cross([n / 160 for n in items], limits, drift)
    assert interim_power(items, 0.05, drift) == pytest.approx(expected, abs=2e-4)


def test_levels_are_kept_to_six_digits() -> None:
    for level in interim_levels((60, 85, 110), 0.05):
        assert level == float(f"{level:.6g}")
        assert level != float(f"{level:.5g}")


def first_hopeless(d: Sequence[float], design: Design, futility: float) -> int:
    z, n = -NORMAL.inv_cdf(design.alpha2), design.n_max
    for i in range(1, len(d) + 1):
        seen = d[:i]
        mean = fmean(seen)
        s = math.sqrt((math.fsum((x - mean) ** 2 for x in seen) + 0.25) / i)
        ahead = mean + 2.0 * s / math.sqrt(i)
        if n / 4 <= i < n:
            reached = i * mean + (n - i) * ahead - z * s * math.sqrt(n) - n * design.theta0
            if NORMAL.cdf(reached / (s * math.sqrt(n - i))) < futility:
                return i
    return n


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
@pytest.mark.parametrize("futility", [0.05, 0.3])
def test_a_comparison_is_given_up_at_the_first_item_with_too_little_chance(
    claim: Claim, futility: float
) -> None:
    design = Design(claim, 0.05, 121, alpha=0.02)
    rng, ends = Random(8), set()
    for _ in range(40):
        lift = rng.uniform(-0.15, 0.1)
        d = [max(-1.0, min(1.0, rng.gauss(lift, 0.35))) for _ in range(121)]
        at = int(hopeless_at(d, design, futility))
        assert at == first_hopeless(d, design, futility)
        ends.add(at)
    assert len(ends) > 5


def test_a_loss_from_the_start_is_given_up_at_the_first_item_that_may_end_it() -> None:
    lost = [-0.5, -0.4] * 100

    for n_max, first in ((120, 30), (121, 31), (122, 31), (124, 31)):
        design = Design(Claim.SUPERIOR, 0.05, n_max)
        assert int(hopeless_at(lost[:n_max], design, 0.05)) == first
        assert int(hopeless_at(lost[: first - 1], design, 0.05)) == n_max
        assert int(hopeless_at(lost[:first], design, 0.05)) == first


def test_the_last_item_is_never_given_up() -> None:
    """All others leave a chance, and what is in at the end is tested."""
    design = Design(Claim.SUPERIOR, 0.05, 8)
    for seed in range(30):
        rng = Random(seed)
        d = [rng.uniform(-0.6, 0.6) for _ in range(8)]
        assert int(hopeless_at(d, design, 0.2)) == first_hopeless(d, design, 0.2)


@given(now=st.floats(-4.0, 4.0), share=st.floats(0.05, 0.95), level=st.floats(0.001, 0.2))
def test_the_chance_of_the_last_analysis_is_the_one_of_the_formula(
    now: float, share: float, level: float
) -> None:
    ahead = now * math.sqrt(share) + (now + 2.0) * (1.0 - share) / math.sqrt(share)
    chance = NORMAL.cdf((ahead + NORMAL.inv_cdf(level)) / math.sqrt(1.0 - share))

    found = chance_of_last(np.array([now]), share, level)
    assert found.tolist() == pytest.approx([chance], abs=1e-9)


LOST = [0.3, -0.3, -0.1, 0.1, -0.3, 0.1] * 20
DESIGN = Design(Claim.SUPERIOR, 0.05, 120)


def test_what_was_given_up_holds_the_figures_of_its_own_items() -> None:
    at = int(hopeless_at(LOST, DESIGN, 0.05))
    assert 30 <= at < 120

    ended = judge_or_give_up(LOST, DESIGN, 0.05)
    assert ended == replace(
        judge_differences(LOST[:at], DESIGN), outcome="inconclusive", how=FUTILE
    )
    # The item that makes it hopeless is the last one that has to be in.
    assert judge_or_give_up(LOST[:at], DESIGN, 0.05) == ended
    before = judge_or_give_up(LOST[: at - 1], DESIGN, 0.05)
    assert (before.outcome, before.n_used) == ("running", at - 1)


def test_nothing_is_given_up_without_a_limit_or_without_items() -> None:
    whole, nothing = judge_differences(LOST, DESIGN), judge_differences([], DESIGN)

    assert give_up(whole, LOST, DESIGN, 0.0) is whole
    assert give_up(nothing, [], DESIGN, 0.05) is nothing
    assert judge_or_give_up([], DESIGN, 0.05) == nothing


def test_what_a_bet_decides_at_the_same_item_stands() -> None:
    """Rejected at the item at which it would have been given up as well."""
    for n_max in (9, 20, 28, 31, 32, 33, 40, 60):
        design = Design(Claim.SUPERIOR, 0.05, n_max)
        lost = [-1.0] * n_max
        evidence = judge_differences(lost, design)
        at = int(hopeless_at(lost, design, 0.05))
        assert evidence.n_used == 8
        ended = give_up(evidence, lost, design, 0.05)
        if at < 8:
            assert (ended.n_used, ended.how) == (at, FUTILE)
        else:
            assert ended is evidence


def test_a_comparison_that_always_has_a_chance_runs_to_its_end() -> None:
    better = [0.3, -0.1, 0.2, -0.2, 0.1, 0.1] * 20
    assert min(accumulate(better)) > 0
    assert int(hopeless_at(better, DESIGN, 0.05)) == 120

    evidence = judge_differences(better, DESIGN)
    assert give_up(evidence, better, DESIGN, 0.05) is evidence


PLAN = SuitePlan(
    suite="s",
    suite_digest="d",
    role=SuiteRole.PRIMARY,
    claim=Claim.SUPERIOR,
    margin=0.05,
    alpha=0.05,
    n_max=200,
    epochs=1,
    order_seed=1,
)


@pytest.mark.req("F4", "F5")
def test_the_part_of_alpha_and_what_is_given_up_are_registered() -> None:
    shared = share_alpha(PLAN, 4)

    assert plan_from_json(shared.as_json()) == shared
    assert shared.as_json()["candidates"] == 4
    assert design_from_plan(shared).alpha == pytest.approx(0.0125)


@pytest.mark.req("F4")
def test_a_guard_is_never_given_up() -> None:
    """It may still find that the candidate is worse."""
    assert share_alpha(replace(PLAN, role=SuiteRole.GUARD), 4).futility == 0.0
