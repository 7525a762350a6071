"""A claim about these items from its registration to the verdict and its replay."""

from dataclasses import replace

import pytest

from dashboard.text import comparison_text
from evals.suites.items import Item
from harness.control.evals.recomputation import recompute_stored
from harness.control.evals.verdict_replay import replay_verdict
from harness.control.proposals import comparison, estimate, evaluation
from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.run import RunState
from harness.domain.evals.suite_plan import ClaimPopulation
from harness.domain.evals.verdict import Inconclusive, Passed
from harness.domain.routing.target import Target
from tests.support.control.control_plane import ITEMS, SmallInstallation

pytestmark = pytest.mark.req("F2", "A7", "F5")


def adjust(world: SmallInstallation, n_max: int | None = None) -> None:
    gate = replace(world.policy.gate, population=ClaimPopulation.THESE, epochs=2, n_max=n_max)
    world.policy = replace(world.policy, gate=gate)


def test_the_claim_is_registered_decides_and_is_replayed(world: SmallInstallation) -> None:
    adjust(world)

    decided = world.until_decided(world.propose("sim/better").id)

    (plan,) = decided.plans
    assert (plan.population, plan.pool) == (ClaimPopulation.THESE, ITEMS)
    with world.store.read() as tx:
        verdict = tx.verdicts.get(decided.verdict or "")
    assert isinstance(verdict, Passed)
    assert replay_verdict(world.context(), verdict.id).agrees
    with world.store.read() as tx:
        assert recompute_stored(world.context(), tx, verdict, decided).agrees


def test_the_candidate_is_asked_once_the_incumbent_has_answered(
    world: SmallInstallation,
) -> None:
    adjust(world)
    script, asked = world.script, list[str]()

    def noted(target: Target, item: Item, epoch: int) -> str:
        asked.append(target.model)
        return script(target, item, epoch)

    world.script = noted
    world.until_decided(world.propose("sim/better").id)

    assert asked[: 2 * ITEMS] == ["base"] * 2 * ITEMS
    assert set(asked[2 * ITEMS :]) == {"better"}


def test_the_incumbent_answers_more_than_the_candidate_and_the_estimate_counts_it(
    world: SmallInstallation,
) -> None:
    adjust(world, n_max=20)

    decided = world.until_decided(world.propose("sim/equal").id)

    (plan,) = decided.plans
    assert (plan.n_max, plan.pool) == (20, 50)
    with world.store.read() as tx:
        runs = decided.runs["colours"]
        assert tx.runs.get(runs.incumbent).wanted == 50
        assert tx.runs.get(runs.candidate).wanted == 20
        verdict = tx.verdicts.get(decided.verdict or "")
    assert isinstance(verdict, Inconclusive)
    assert replay_verdict(world.context(), verdict.id).agrees
    (found,) = estimate.estimate_proposal(world.context(), ProposalRequest("chat", "sim/good"))
    assert found.incumbent is not None
    assert found.cost_usd == pytest.approx(140 * (found.incumbent.cost_usd or 0.0))
    assert "is shown in" in found.warning


def test_what_the_gate_saved_counts_the_whole_pool(world: SmallInstallation) -> None:
    adjust(world, n_max=40)

    decided = world.until_decided(world.propose("sim/worse").id)

    whole = comparison.load_comparison(world.context(), decided.id)
    (side,) = whole.suites
    assert (len(side.incumbent), len(side.pool_rest)) == (80, 40)
    assert whole.savings is None
    early = replace(whole, suites=[replace(side, candidate=side.candidate[:30])])
    assert early.savings is not None
    assert (early.savings.answers, early.savings.planned) == (120 + 30, 120 + 80)


def test_the_estimate_is_of_the_claim_that_is_planned(world: SmallInstallation) -> None:
    request = ProposalRequest("chat", "sim/good")
    adjust(world)
    (unknown,) = estimate.estimate_proposal(world.context(), request)
    assert "what can be foreseen is not known yet" in unknown.pool_text
    world.until_decided(world.propose("sim/worse").id)

    adjust(world, n_max=40)
    (adjusted,) = estimate.estimate_proposal(world.context(), request)
    world.policy = replace(
        world.policy, gate=replace(world.policy.gate, population=ClaimPopulation.LIKE_THESE)
    )
    (paired,) = estimate.estimate_proposal(world.context(), request)

    assert adjusted.spread is not None
    assert paired.spread == adjusted.spread
    assert adjusted.spread.foreseen > 0.1
    assert adjusted.mde < paired.mde
    assert paired.pool_text == ""
    assert "the incumbent answers 60 items before the candidate is asked" in adjusted.pool_text
    assert adjusted.pool_text in adjusted.texts


def test_a_run_budget_that_is_too_small_for_the_pool_is_said_beforehand(
    world: SmallInstallation,
) -> None:
    adjust(world, n_max=20)
    world.until_decided(world.propose("sim/equal").id)
    request = ProposalRequest("chat", "sim/good")
    (free,) = estimate.estimate_proposal(world.context(), request)
    assert free.incumbent is not None
    assert free.incumbent.cost_usd is not None
    enough_for_30 = 60 * free.incumbent.cost_usd

    gate = replace(world.policy.gate, max_cost_usd=enough_for_30)
    world.policy = replace(world.policy, gate=gate)
    (capped,) = estimate.estimate_proposal(world.context(), request)

    assert "max_cost_usd" not in free.warning
    assert "The incumbent's run of 100 answers costs about" in capped.warning
    assert "Without the whole pool nothing is adjusted." in capped.warning
    assert "The candidate's run" not in capped.warning
    tokens = replace(world.policy.gate, max_cost_usd=None, max_tokens=100)
    world.policy = replace(world.policy, gate=tokens)
    (few,) = estimate.estimate_proposal(world.context(), request)
    assert "`max_tokens` ends it at 100" in few.warning


def test_what_passed_without_a_pool_that_money_ended_is_proof_while_the_run_stays_ended(
    world: SmallInstallation,
) -> None:
    adjust(world, n_max=20)
    world.until_decided(world.propose("sim/equal").id)
    (known,) = estimate.estimate_proposal(world.context(), ProposalRequest("chat", "sim/good"))
    assert known.incumbent is not None
    # The run of the proposal before it is too old to be shared.
    world.clock.advance(2 * world.policy.gate.run_max_age_s)
    gate = replace(
        world.policy.gate, max_cost_usd=60 * (known.incumbent.cost_usd or 0.0), max_tokens=None
    )
    world.policy = replace(world.policy, gate=gate)

    decided = world.until_decided(world.propose("sim/better").id)

    with world.store.read() as tx:
        incumbent = tx.runs.get(decided.runs["colours"].incumbent)
        verdict = tx.verdicts.get(decided.verdict or "")
        found = recompute_stored(world.context(), tx, verdict, decided)
    assert incumbent.state is RunState.OVER_BUDGET
    assert isinstance(verdict, Passed)
    assert verdict.inputs["pool"] == {"colours": []}
    assert found.agrees, found.text
    with world.store.write() as tx:
        tx.runs.set_state(incumbent.id, RunState.STOPPED)
    with world.store.read() as tx:
        found = recompute_stored(world.context(), tx, verdict, decided)
    assert "no run has ended early" in found.text


def test_who_waits_is_told_that_the_incumbent_is_asked_first(world: SmallInstallation) -> None:
    adjust(world, n_max=20)
    proposal = world.propose("sim/better")
    ctx = replace(world.context(), workers=None)
    world.run_once(ctx)

    with world.store.read() as tx:
        asked = evaluation.count_answers(tx, world.get(proposal.id))
    assert asked == (0, 140, "the incumbent is asked first")
    shown = comparison.load_comparison(ctx, proposal.id)
    assert comparison_text.progress(shown) == [
        ("colours", 0, 50, "by the incumbent, which is asked first")
    ]
    (side,) = shown.suites
    assert side.asks_incumbent_first
    assert not side.figures.incumbent_answers
    with world.store.write() as tx:
        tx.runs.set_state(world.get(proposal.id).runs["colours"].incumbent, RunState.DONE)
    with world.store.read() as tx:
        assert evaluation.count_answers(tx, world.get(proposal.id))[2] == ""
    both = comparison.load_comparison(ctx, proposal.id)
    assert comparison_text.progress(both) == [("colours", 0, 20, "on both sides")]
