"""Planned analyses and their levels (statistics.md §1.3, §1.16) against scipy."""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from harness.frame.plain_data import from_plain
from harness.gate.budget import share_alpha
from harness.gate.offline.design import (
    FUTILE,
    Design,
    chance_of_passing,
    design_from_plan,
    interim_items,
    interim_levels,
    interim_power,
)
from harness.gate.offline.sequential import (
    analysis_p,
    evidence_path,
    judge_batch,
    judge_differences,
)
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole

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


def cross(
    shares: Sequence[float],
    limits: Sequence[float],
    drift: float = 0.0,
) -> float:
    """How often a normal walk is at or above one of the limits (of its z) by its last share."""
    covariance = [[math.sqrt(min(a, b) / max(a, b)) for b in shares] for a in shares]
    means = [drift * math.sqrt(share) for share in shares]
    below = stats.multivariate_normal(
        means,
        covariance,
        abseps=1e-7,
        releps=1e-7,
    )
    return 1.0 - float(below.cdf(np.array(limits)))


@pytest.mark.parametrize(
    "items",
    [
        (60, 70, 80),
        (60, 120),
        (100,),
        (50, 100, 400),
    ],
)
@pytest.mark.parametrize(("alpha", "whole"), [(0.05, 0.9), (0.01, 0.9 * 0.2**0.1)])
def test_up_to_each_analysis_its_part_of_alpha_is_spent(
    items: tuple[int, ...],
    alpha: float,
    whole: float,
) -> None:
    levels = interim_levels(items, alpha)
    limits = [-NORMAL.inv_cdf(level) for level in levels]

    for k, n in enumerate(items, start=1):
        shares = [m / items[-1] for m in items[:k]]
        due = whole * alpha * (n / items[-1]) ** 2.0
        assert cross(shares, limits[:k]) == pytest.approx(due, rel=2e-3)
    assert levels[0] == pytest.approx(whole * alpha * (items[0] / items[-1]) ** 2.0, rel=1e-5)


@pytest.mark.parametrize("drift", [0.0, 1.5, 3.0])
def test_power_is_how_often_any_analysis_is_passed(drift: float) -> None:
    items = (60, 100, 160)
    limits = [-NORMAL.inv_cdf(level) for level in interim_levels(items, 0.05)]

    expected = cross([n / 160 for n in items], limits, drift)
    assert interim_power(items, 0.05, drift) == pytest.approx(expected, abs=2e-4)


@pytest.mark.req("F4")
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_a_comparison_ends_at_the_first_analysis_that_promotes_or_item_that_is_hopeless(
    claim: Claim,
) -> None:
    design = Design(
        claim,
        0.05,
        300,
        alpha=0.02,
        futility=0.05,
    )
    rng = Random(8)
    ends = set()
    rows = []
    for _ in range(40):
        lift = rng.uniform(-0.05, 0.15)
        rows.append([max(-1.0, min(1.0, rng.gauss(lift, 0.5))) for _ in range(300)])
    together = judge_batch(rows, design)
    for row, d in enumerate(rows):
        n, outcome, how = first_end(d, design)
        found = judge_differences(d, design)
        assert (found.n_used, found.outcome, found.how) == (n, outcome, how)
        assert together.promoted[row] == (outcome == "promote")
        assert together.rejected[row] == (outcome == "reject")
        assert together.futile[row] == (how == FUTILE)
        assert together.n_used[row] == n
        assert judge_differences(d[: n - 1], design).outcome == "running"
        ends.add((how, outcome))
    assert {("early", "promote"), (FUTILE, "inconclusive")} <= ends


def first_end(d: Sequence[float], design: Design) -> tuple[int, str, str]:
    path = evidence_path(d, design)
    last = design.n_max
    for n in range(1, last + 1):
        how = "final" if n == last else "early"
        level = design.levels.get(n)
        if level is not None and float(analysis_p(np.array(d[:n]), design)) <= level:
            return n, "promote", how
        if path.rejects[n - 1]:
            return n, "reject", how
        sums = (
            np.array(math.fsum(d[:n])),
            np.array(math.fsum(x * x for x in d[:n])),
        )
        if last / 4 <= n < last and chance_of_passing(n, *sums, design) < design.futility:
            return n, "inconclusive", FUTILE
    return last, "inconclusive", "final"


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

    assert from_plain(SuitePlan, shared.as_json()) == shared
    assert shared.as_json()["candidates"] == 4
    assert design_from_plan(shared).alpha == pytest.approx(0.0125)


@pytest.mark.req("F4")
def test_a_guard_is_never_given_up() -> None:
    """It may still find that the candidate is worse."""
    assert share_alpha(replace(PLAN, role=SuiteRole.GUARD), 4).futility == 0.0
