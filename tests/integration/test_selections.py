from dataclasses import replace

import pytest

from evals.suites.items import Item
from harness.frame.errors import InputError, SwapproofError
from harness.frame.signing.audit_log import AuditLog
from harness.gate.verdict import Passed
from harness.operations.route_queries import load_status
from harness.proposals import decisions, review, submission
from harness.proposals.report import comparison
from harness.proposals.submission import MAX_CANDIDATES, ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.verdicts import Verdicts
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.crashing_store import Crash, CrashingStore
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import POLICY, approved

pytestmark = pytest.mark.req("F4")
# Shares of right answers in sixtieths, around the incumbent's 35.
RIGHT = {
    "base": 35,
    "good": 56,
    "better": 60,
    "worse": 10,
    "equal": 35,
}


def skilled(
    target: Target,
    item: Item,
    _epoch: int,
) -> str:
    number = int(item.id.rpartition("-")[2])
    return str(item.target) if number * 7 % 60 < RIGHT[target.model] else "wrong"


def propose(world: SmallInstallation, *models: str) -> tuple[Proposal, ...]:
    first, *rest = (f"sim/{model}" for model in models)
    request = ProposalRequest("chat", first, "a test", rivals=tuple(rest))
    return submission.create_selection(world.context(), ANN, request)


def phases(world: SmallInstallation, made: tuple[Proposal, ...]) -> list[ProposalPhase]:
    return [world.get(proposal.id).phase for proposal in made]


def decided(
    world: SmallInstallation,
    made: tuple[Proposal, ...],
    turns: int = 12,
) -> None:
    for _ in range(turns):
        world.run_once()
        if ProposalPhase.EVALUATING not in phases(world, made):
            return


@pytest.mark.req("F2")
@pytest.mark.both_databases
def test_the_best_that_passes_goes_on_and_the_others_end_with_their_proof(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    made = propose(world, "worse", "good", "better", "equal")
    status = load_status(world.context(), "chat")
    assert status.proposed is not None
    assert (status.proposed.name, status.rivals) == ("sim/worse", 3)

    decided(world, made)

    worse, good, better, equal = (world.get(proposal.id) for proposal in made)
    assert better.phase is ProposalPhase.CANARY
    assert {p.phase for p in (worse, good, equal)} == {ProposalPhase.REJECTED}
    assert "but sim/better passed with +41.7 points" in good.closed_because
    with world.store.read() as tx:
        assert isinstance(Verdicts(tx).get(good.verdict or ""), Passed)
        assert [rollout.proposal for rollout in Rollouts(tx).live()] == [better.id]
        newest = Verdicts(tx).newest("chat")
    shown = load_status(world.context(), "chat").last_verdict
    assert shown is not None
    assert newest is not None
    assert (shown.id, newest.id) == (better.verdict, equal.verdict)
    with world.store.read() as tx:
        assert AuditLog(tx).first_break() is None


def test_all_candidates_share_one_run_of_the_incumbent_and_one_alpha(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    made = propose(world, "good", "better", "equal")

    world.run_once()

    stored = [world.get(proposal.id) for proposal in made]
    assert len({proposal.runs["colours"].incumbent for proposal in stored}) == 1
    assert len({proposal.runs["colours"].candidate for proposal in stored}) == 3
    (alphas,) = zip(*([plan.alpha for plan in p.plans] for p in stored), strict=True)
    assert sum(alphas) == pytest.approx(POLICY.gate.alpha)
    assert all(plan.as_json()["candidates"] == 3 for p in stored for plan in p.plans)


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (("better", "better"), "named twice"),
        (("better", "base"), "serves route"),
        (("better",) * (MAX_CANDIDATES + 1), "at most 10"),
    ],
)
def test_a_selection_that_makes_no_sense_stores_nothing(
    world: SmallInstallation,
    models: tuple[str, ...],
    why: str,
) -> None:
    with pytest.raises(InputError, match=why):
        propose(world, *models)

    assert submission.list_proposals(world.context()) == []


@pytest.mark.req("F5")
@pytest.mark.both_databases
def test_nobody_joins_a_selection_once_it_is_measured(world: SmallInstallation) -> None:
    made = propose(world, "good", "equal")
    world.run_once()
    late = replace(
        made[0],
        id="p_late",
        place=2,
        candidate=made[1].candidate,
    )

    with pytest.raises(SwapproofError), world.store.write() as tx:
        Proposals(tx).add(late)


@pytest.mark.req("F5")
@pytest.mark.both_databases
def test_a_proposal_never_changes_its_selection(world: SmallInstallation) -> None:
    made = propose(world, "good", "equal")

    with (
        pytest.raises(InputError, match=r"registered|route_busy"),
        world.store.write() as tx,
    ):
        Proposals(tx).save(replace(made[0], selection=""))


@pytest.mark.req("F5")
@pytest.mark.both_databases
def test_one_alone_is_past_the_gate(world: SmallInstallation) -> None:
    """Even a writer that goes round the rules meets the database's."""
    made = propose(world, "good", "better")
    waits = ProposalPhase.AWAITING_APPROVAL
    with world.store.write() as tx:
        Proposals(tx).save(replace(made[0], phase=waits))

    with pytest.raises(SwapproofError), world.store.write() as tx:
        Proposals(tx).save(replace(made[1], phase=waits))


@pytest.mark.req("F5")
def test_a_candidate_more_than_was_registered_lets_none_of_them_in(
    world: SmallInstallation,
) -> None:
    """Written before anything was measured: each alpha was for fewer."""
    world.script = skilled
    made = propose(world, "better", "equal")
    with world.store.write() as tx:
        Proposals(tx).add(replace(made[1], id="p_more", place=2))

    decided(world, made)

    better = world.get(made[0].id)
    assert better.phase is ProposalPhase.REJECTED
    assert "has 3 candidates, but 2 were registered" in better.closed_because


def test_what_was_cancelled_does_not_hold_up_the_others(world: SmallInstallation) -> None:
    world.script = skilled
    made = propose(world, "good", "better")
    decisions.cancel_proposal(world.context(), ANN, made[1].id, "too dear")

    decided(world, made)

    assert phases(world, made) == [
        ProposalPhase.CANARY,
        ProposalPhase.CANCELLED,
    ]


@pytest.mark.req("F7")
def test_the_best_waits_for_approval_where_the_policy_asks_a_person(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.policy = approved()
    made = propose(world, "good", "better")

    decided(world, made)

    assert phases(world, made) == [
        ProposalPhase.REJECTED,
        ProposalPhase.AWAITING_APPROVAL,
    ]
    decisions.approve_proposal(world.context(), BEN, made[1].id)
    world.run_once()
    assert phases(world, made) == [
        ProposalPhase.REJECTED,
        ProposalPhase.CANARY,
    ]


def test_of_equals_the_first_id_goes_on(world: SmallInstallation) -> None:
    world.script = lambda target, item, epoch: skilled(
        replace(target, model="better") if target.model == "good" else target,
        item,
        epoch,
    )
    made = propose(world, "good", "better")

    decided(world, made)

    first = min(made, key=lambda proposal: proposal.id)
    assert [p.id for p in made if world.get(p.id).phase is ProposalPhase.CANARY] == [first.id]


def test_a_proof_that_ran_out_while_a_rival_was_measured_is_none(
    world: SmallInstallation,
) -> None:
    world.script = skilled
    world.policy = replace(POLICY, gate=replace(POLICY.gate, verdict_ttl_s=60.0))
    made = propose(world, "good", "equal")
    asleep = {"on": True}
    world.boot = lambda run: _sleep(world, run, made[1].id) if asleep["on"] else None
    world.run_once(turns=6)
    assert world.get(made[0].id).waits_for_rivals
    step = comparison.load_comparison(world.context(), made[0].id).next_step
    assert step == "none; the best candidate continues once the gate has judged all rivals."

    world.clock.advance(120)
    world.run_once()

    first = world.get(made[0].id)
    assert first.phase is ProposalPhase.REJECTED
    assert "expired" in first.closed_because


def _sleep(
    world: SmallInstallation,
    run: str,
    proposal: str,
) -> None:
    if run == world.get(proposal).runs["colours"].candidate:
        raise RuntimeError("not now")


@pytest.mark.req("A4")
@pytest.mark.parametrize("after_commit", [False, True])
def test_a_crash_at_any_unit_of_work_leaves_one_winner(
    world: SmallInstallation, *, after_commit: bool
) -> None:
    world.script = skilled
    made = propose(world, "good", "better", "equal")
    crashes = 0
    for at in range(1, 80):
        store = CrashingStore(world.store, at=at, after_commit=after_commit)
        try:
            world.run_once(world.context(store))  # type: ignore[arg-type]
        except Crash:
            crashes += 1
            world.clock.advance(15)
        if not {ProposalPhase.PROPOSED, ProposalPhase.EVALUATING} & {*phases(world, made)}:
            break

    assert crashes > 5
    assert phases(world, made) == [
        ProposalPhase.REJECTED,
        ProposalPhase.CANARY,
        ProposalPhase.REJECTED,
    ]
    with world.store.read() as tx:
        assert len(Rollouts(tx).list()) == 1
        assert all(len(Verdicts(tx).for_proposal(p.id)) == 1 for p in made)
        assert AuditLog(tx).first_break() is None


@pytest.mark.req("F2")
def test_two_names_of_one_model_pay_for_two_looks(world: SmallInstallation) -> None:
    """A dishonest proposer names his favourite twice, with another seed."""
    one, two = (
        targets.add_target(world.context(), ANN, Target("sim", "better", {"seed": seed})).id
        for seed in (7, 8)
    )
    request = ProposalRequest("chat", one, "a test", rivals=(two, "sim/good"))

    made = submission.create_selection(world.context(), ANN, request)

    plans = [proposal.plans[0] for proposal in made]
    assert [plan.look for plan in plans] == [1, 2, 1]
    assert plans[1].alpha == pytest.approx(plans[0].alpha / 6)
    assert sum(plan.alpha for plan in plans) <= POLICY.gate.alpha


@pytest.mark.req("F2")
def test_candidates_share_alike_what_a_budget_has_left(world: SmallInstallation) -> None:
    world.policy = replace(POLICY, gate=replace(POLICY.gate, alpha_budget=0.06))

    made = propose(world, "good", "better", "equal")

    alphas = [proposal.plans[0].alpha for proposal in made]
    assert alphas == pytest.approx([0.03 / 3] * 3)


@pytest.mark.req("F2")
def test_the_risk_of_a_route_counts_all_candidates(world: SmallInstallation) -> None:
    request = ProposalRequest("chat", "sim/good", "a test", rivals=("sim/better",))
    before = submission.preview_proposal(world.context(), request).risk

    made = propose(world, "good", "better")

    after = [review.review_proposal(world.context(), proposal.id).risk for proposal in made]
    assert [before.text] * 2 == [risk.text for risk in after]
    assert before.number == 2
    assert before.risk == pytest.approx(POLICY.gate.alpha)
