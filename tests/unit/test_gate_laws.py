import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate.offline.design import Design
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.sequential import (
    BET_GRID,
    check_differences,
    evidence_path,
    judge_differences,
)
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

pytestmark = pytest.mark.req("F2")

passfail = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=80)
graded = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=80)
claims = st.sampled_from(list(QUALITY_CLAIMS))
either = passfail | graded


@given(d=either, claim=claims)
def test_a_win_never_raises_the_evidence_against(d: list[float], claim: Claim) -> None:
    taken = evidence_path([*d, 1.0], Design(claim, 0.05, len(d) + 1))

    assert taken.log_e_bad[-1] <= taken.log_e_bad[-2]


@given(d=either, claim=claims, chance=st.randoms(use_true_random=False))
def test_the_evidence_against_and_the_final_test_do_not_depend_on_the_order(
    d: list[float],
    claim: Claim,
    chance: Random,
) -> None:
    shuffled = list(d)
    chance.shuffle(shuffled)
    design = Design(claim, 0.05, len(d))
    one = evidence_path(d, design)
    other = evidence_path(shuffled, design)

    assert one.log_e_bad[-1] == pytest.approx(other.log_e_bad[-1], rel=1e-9, abs=1e-9)
    if len(d) > 1:
        p = [float(final_p(x, design.theta0)) for x in (d, shuffled)]
        assert p[0] == pytest.approx(p[1], abs=1e-9)


@given(
    d=either,
    claim=claims,
    bad=st.sampled_from([math.nan, math.inf, 1.01, -1.01]),
)
def test_what_is_not_a_difference_is_refused(
    d: list[float],
    claim: Claim,
    bad: float,
) -> None:
    with pytest.raises(InputError, match=f"difference {len(d) + 1} "):
        judge_differences([*d, bad], Design(claim, 0.05, 100))


def test_more_items_than_planned_are_refused() -> None:
    with pytest.raises(InputError, match="3 items, but the plan allows at most 2"):
        judge_differences([0.0, 0.0, 0.0], Design(Claim.SUPERIOR, 0.05, 2))


def test_nothing_yet_is_running_and_one_item_has_no_interval() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 1)
    nothing = judge_differences([], design)
    assert (nothing.outcome, nothing.n_used, nothing.delta) == (
        "running",
        0,
        0.0,
    )
    one = judge_differences([1.0], design)
    assert (one.outcome, one.how) == ("inconclusive", "final")
    assert one.ci_low is one.ci_high is one.p_final is one.p_t is None


@pytest.mark.parametrize(
    ("margin", "n_max", "alpha"),
    [
        (0.0, 10, 0.05),
        (1.0, 10, 0.05),
        (math.nan, 10, 0.05),
        (0.05, 0, 0.05),
        (0.05, 10, 0.0),
        (0.05, 10, 1.0),
        (0.05, 10, math.nan),
    ],
)
def test_a_design_that_promises_nothing_is_refused(
    margin: float,
    n_max: int,
    alpha: float,
) -> None:
    with pytest.raises(InputError):
        Design(Claim.SUPERIOR, margin, n_max, alpha)


def test_the_grid_and_the_slack_are_the_registered_ones() -> None:
    assert len(BET_GRID) == 15
    assert list(BET_GRID[::14]) == pytest.approx([0.02, 0.9])
    assert check_differences([1.0 + 1e-13]).tolist() == [1.0 + 1e-13]
