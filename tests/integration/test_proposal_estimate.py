"""Before money is spent: what the suites can show, what it costs, and the cheapest design."""

from dataclasses import replace

import pytest

from harness.control.proposals import estimate
from harness.control.proposals.submission import ProposalRequest
from harness.domain.errors import InputError, NotFound
from harness.domain.evals.suite_plan import Claim
from tests.support.control.control_plane import ITEMS, SmallInstallation

pytestmark = pytest.mark.req("F2", "A3")


def test_without_a_former_run_cost_time_and_spread_are_guessed(
    world: SmallInstallation,
) -> None:
    (suite_estimate,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better")
    )

    assert suite_estimate.guessed
    assert suite_estimate.cost_usd is not None
    assert 0.0 < suite_estimate.cost_usd < 0.1
    assert suite_estimate.duration_s is not None
    assert suite_estimate.spread is None
    assert suite_estimate.sd == pytest.approx((0.2 - 0.05**2) ** 0.5)
    assert f"With {ITEMS} items you can only see differences of" in suite_estimate.warning


def test_recorded_answers_give_spread_cost_and_time(world: SmallInstallation) -> None:
    world.until_decided(world.propose("sim/better").id)

    (suite_estimate,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better")
    )

    assert suite_estimate.spread is not None
    assert suite_estimate.spread.pairs == ITEMS
    assert suite_estimate.incumbent is not None
    assert suite_estimate.candidate is not None
    assert not suite_estimate.estimated
    each = (suite_estimate.incumbent.cost_usd or 0.0) + (
        suite_estimate.candidate.cost_usd or 0.0
    )
    assert suite_estimate.cost_usd == pytest.approx(ITEMS * each)
    assert suite_estimate.duration_s is not None


def test_a_candidate_without_answers_is_priced_by_the_incumbents_tokens(
    world: SmallInstallation,
) -> None:
    world.until_decided(world.propose("sim/better").id)

    (known,) = estimate.estimate_proposal(world.context(), ProposalRequest("chat", "sim/good"))
    (unpriced,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/nobody")
    )

    assert known.estimated
    # The same price for all models of this world.
    assert known.cost_usd == pytest.approx(2 * ITEMS * (known.incumbent.cost_usd or 0.0))  # type: ignore[union-attr]
    assert unpriced.cost_usd is None


def test_the_cheapest_design_is_for_the_difference_that_matters(
    world: SmallInstallation,
) -> None:
    (small,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better"), effect=0.05
    )
    (large,) = estimate.estimate_proposal(
        world.context(), ProposalRequest("chat", "sim/better"), effect=0.3
    )

    assert small.advice.own.enough is None
    assert "too few to detect 5" in small.warning
    assert large.advice.own.enough is not None
    assert large.advice.own.enough.items <= ITEMS
    assert large.warning == ""


def test_for_non_inferiority_the_margin_is_the_distance(world: SmallInstallation) -> None:
    world.policy = replace(world.policy, gate=replace(world.policy.gate, margin_max=0.25))
    request = ProposalRequest("chat", "sim/equal", "cheaper", Claim.NON_INFERIOR, margin=0.25)
    (suite_estimate,) = estimate.estimate_proposal(world.context(), request)

    assert suite_estimate.effect == 0.25
    assert suite_estimate.advice.own.enough is not None


def test_a_wish_that_makes_no_sense_is_refused(world: SmallInstallation) -> None:
    with pytest.raises(NotFound):
        estimate.estimate_proposal(world.context(), ProposalRequest("nowhere", "sim/better"))
    with pytest.raises(InputError):
        estimate.estimate_proposal(
            world.context(), ProposalRequest("chat", "sim/better", margin=1.5)
        )
