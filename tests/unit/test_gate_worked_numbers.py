"""The worked numbers of the specification that golden.json does not repeat."""

import math

import numpy as np
import pytest

from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole
from harness.gate.offline.design import Design, design_from_plan
from harness.gate.offline.intervals import tango_interval, tango_p, tango_z
from harness.gate.offline.sequential import (
    evidence_path,
    judge_differences,
)
from harness.gate.planning.budget import items_needed, sd_epochs, sd_pass_fail
from harness.gate.text.sentences import comparison_reason, further_items

pytestmark = pytest.mark.req("F2")


def test_the_first_bets() -> None:
    taken = evidence_path([0.0, 0.0, 0.0], Design(Claim.SUPERIOR, 0.05, 500))
    assert taken.bet.tolist() == pytest.approx([0.271446, 0.383882, 0.470158], abs=1e-6)


def test_fewer_than_59_items_cannot_pass_as_non_inferior() -> None:
    for n in range(2, 59):
        assert (
            judge_differences([0.0] * n, Design(Claim.NON_INFERIOR, 0.05, n)).outcome
            != "promote"
        )
    assert (
        judge_differences([0.0] * 59, Design(Claim.NON_INFERIOR, 0.05, 59)).outcome == "promote"
    )


def test_no_discordant_pair_gives_one_half() -> None:
    assert tango_p(0, 0, 40, 0.0) == 0.5


def test_a_statistic_without_variance_is_infinite_in_its_direction() -> None:
    assert tango_z(5, 0, 5, np.array([1.0])).tolist() == [0.0]
    assert tango_interval(5, 0, 5)[1] == pytest.approx(1.0)
    assert tango_interval(0, 5, 5)[0] == pytest.approx(-1.0)


def test_planning_for_pass_fail_and_for_epochs() -> None:
    assert sd_pass_fail(0.2025) == pytest.approx(0.45)
    assert sd_pass_fail(0.2, 0.05) == pytest.approx(math.sqrt(0.1975))
    assert sd_epochs(0.04, 0.05, 5) == pytest.approx(math.sqrt(0.05))


def test_a_plan_becomes_its_design() -> None:
    plan = SuitePlan("s", "d", SuiteRole.PRIMARY, Claim.NON_INFERIOR, 0.03, 0.025, 80, 1, 7)
    assert design_from_plan(plan) == Design(Claim.NON_INFERIOR, 0.03, 80, 0.025)


def test_the_reason_names_the_allowed_loss_and_never_says_equal() -> None:
    design = Design(Claim.NON_INFERIOR, 0.05, 200)
    passed = comparison_reason(judge_differences([0.0] * 200, design), design)
    assert passed.startswith("The candidate is at most 5 points worse (the allowed loss)")
    assert "not adjusted for early stopping" in passed
    for d in ([0.0] * 200, [-1.0, 1.0] * 100, [-1.0] * 9):
        assert "equal" not in comparison_reason(judge_differences(d, design), design)


def test_inconclusive_says_how_many_more_items_would_decide() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 100)
    d = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0] * 9 + [1.0, 0.0] * 2 + [0.0] * 6
    evidence = judge_differences(d, design)
    assert evidence.outcome == "inconclusive"
    wanted = items_needed(evidence.sd or 0.0, evidence.delta) - 100
    assert further_items(evidence, design) == wanted
    assert f"about {wanted:,} more items would show it with 80 % power" in comparison_reason(
        evidence, design
    )


def test_a_draw_without_any_lean_names_no_number() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 50)
    evidence = judge_differences([0.0] * 50, design)
    assert further_items(evidence, design) is None
    assert "no number of further items can be named" in comparison_reason(evidence, design)


def test_a_lean_towards_worse_is_said() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 60)
    evidence = judge_differences([0.0] * 57 + [-1.0] * 2 + [1.0], design)
    assert evidence.outcome == "inconclusive"
    assert "more items would show a loss" in comparison_reason(evidence, design)


def test_running_says_how_far_it_is() -> None:
    design = Design(Claim.SUPERIOR, 0.05, 60)
    assert "1 of 60 items" in comparison_reason(judge_differences([1.0], design), design)
    assert "nothing is measured" in comparison_reason(judge_differences([], design), design)
