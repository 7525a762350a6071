"""A slice that passes alone gets a route of its own, while the rest keeps the incumbent."""

import json
from dataclasses import replace
from typing import Any

import pytest

from evals.suites.items import Item
from harness.evals.settings import SuiteSettings
from harness.frame.errors import Conflict, InputError, NotAllowed
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.budget import spend_alpha
from harness.gate.suite_plan import Claim
from harness.gate.verdict import Passed
from harness.proposals import decisions, recomputation, submission
from harness.proposals.candidates.outlook import forecast_proposal
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.control.short_policies import POLICY

pytestmark = pytest.mark.req("D6", "F2")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
BOB = Actor("bob", Role.ADMIN, "pr_bob")
TEAMS = ("billing", "sales")
SPLIT = {f"team = {team}": f"x-team: {team}" for team in TEAMS}
SLICES = tuple(SPLIT)
# The items of each team that each model answers rightly, in twelfths.
RIGHT = {
    "base": {"billing": 7, "sales": 7},
    "good": {"billing": 12, "sales": 2},
    "better": {"billing": 12, "sales": 12},
    "worse": {"billing": 2, "sales": 2},
}


def skilled(target: Target, item: Item, _epoch: int) -> str:
    number = int(item.id.rpartition("-")[2]) // 2
    right = number * 5 % 12 < RIGHT[target.model][item.metadata["team"]]
    return str(item.target) if right else "wrong"


def split_suite(
    world: SmallInstallation, items: int = 200, mistagged: int = 0, actor: Actor = BOB
) -> None:
    """Writes a suite of two teams, and gives it to the route.

    Args:
        mistagged: how many items of sales have the header of billing.
    """
    file = world.folder / "teams.jsonl"
    lines = []
    for n in range(items):
        team = TEAMS[n % 2]
        header = "billing" if n < 2 * mistagged else team
        metadata: dict[str, Any] = {"team": team, "headers": {"X-Team": header}}
        line = {"id": f"q-{n}", "input": f"{n}?", "target": f"c{n}", "metadata": metadata}
        lines.append(json.dumps(line))
    file.write_text("\n".join(lines), encoding="utf-8")
    world.clock.advance(1)
    world.suites["teams"] = SuiteSettings(
        name="teams", path=file, slices=("team",), split=SPLIT
    )
    routes.change_settings(
        world.context(), actor, "chat", lambda old: replace(old, suites=(RouteSuite("teams"),))
    )
    world.script = skilled
    gate = replace(POLICY.gate, claim=Claim.NON_INFERIOR, margin=0.1)
    world.policy = replace(POLICY, gate=gate)


def propose(
    world: SmallInstallation,
    candidate: str = "sim/good",
    actor: Actor = ADA,
    slices: tuple[str, ...] = SLICES,
) -> tuple[Proposal, ...]:
    request = ProposalRequest("chat", candidate, "a test", slices=slices)
    return submission.create_selection(world.context(), actor, request)


def drive(world: SmallInstallation, made: tuple[Proposal, ...]) -> list[Proposal]:
    in_evals = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
    for _ in range(20):
        world.run_once()
        if all(world.get(proposal.id).phase not in in_evals for proposal in made):
            break
    return [world.get(proposal.id) for proposal in made]


@pytest.mark.spine
@pytest.mark.req("H5")
def test_a_slice_alone_gets_its_canary_and_the_rest_keeps_the_incumbent(
    world: SmallInstallation,
) -> None:
    split_suite(world)
    made = propose(world)
    assert [proposal.route for proposal in made] == ["chat", "chat-billing", "chat-sales"]
    assert world.route().settings.overrides == {}
    assert world.route("chat-billing").incumbent == world.route().incumbent

    whole, billing, sales = drive(world, made)

    assert whole.phase is ProposalPhase.REJECTED
    assert "team = sales" in whole.closed_because
    assert (billing.phase, sales.phase) == (ProposalPhase.CANARY, ProposalPhase.REJECTED)
    assert world.route().settings.overrides == {"x-team: billing": "chat-billing"}
    assert world.route().canary is None
    assert world.route("chat-sales").canary is None
    trial = world.route("chat-billing").canary
    assert trial is not None
    assert trial.target == billing.candidate
    with world.store.read() as tx:
        proof = Verdicts(tx).get(billing.verdict or "")
        asked = EvalRuns(tx).outcomes(billing.runs[billing.plans[0].suite].candidate, below=100)
        former = EvalRuns(tx).outcomes(whole.runs["teams"].candidate, below=200)
        assert AuditLog(tx).first_break() is None
        assert recomputation.recompute_stored(world.context(), tx, proof, billing).agrees
    assert isinstance(proof, Passed)
    assert proof.route == "chat-billing"
    assert [report.suite for report in proof.suites] == ["teams[team = billing]"]
    # No scored question is asked again, because it would be another look.
    again = {sample.item: sample for sample in asked}
    shared = [sample for sample in former if sample.item in again]
    assert shared
    assert all(sample.strict == again[sample.item].strict for sample in shared)
    assert recomputation.replay_verdict(world.context(), proof.id).agrees


def test_the_terms_of_all_slices_are_fixed_before_the_first_score(
    world: SmallInstallation,
) -> None:
    split_suite(world)
    whole, billing, sales = propose(world)

    alpha = whole.plans[0].alpha
    assert [plan.look for plan in (*billing.plans, *sales.plans)] == [2, 2]
    assert billing.plans[0].alpha == sales.plans[0].alpha
    assert billing.plans[0].alpha * 2 == pytest.approx(spend_alpha(alpha, 2))
    terms = sales.slice_terms
    assert terms is not None
    assert (terms.whole, terms.proposal, terms.slices) == ("chat", whole.id, 2)
    assert (terms.predicate, terms.after) == ("x-team: sales", ("x-team: billing",))
    assert sales.plans[0].as_json()["slice_terms"]


def test_a_whole_route_that_passes_ends_its_slices_before_they_ask(
    world: SmallInstallation,
) -> None:
    split_suite(world)

    whole, *slices = drive(world, propose(world, "sim/better"))

    assert whole.phase is ProposalPhase.CANARY
    assert {proposal.phase for proposal in slices} == {ProposalPhase.CANCELLED}
    assert all("the whole route passed" in proposal.closed_because for proposal in slices)
    assert all(not proposal.runs for proposal in slices)
    assert world.route().settings.overrides == {}


def test_a_cancelled_whole_route_ends_its_slices(world: SmallInstallation) -> None:
    split_suite(world)
    made = propose(world)

    decisions.cancel_proposal(world.context(), ADA, made[0].id, "a mistake")

    _, *slices = drive(world, made)

    assert {proposal.phase for proposal in slices} == {ProposalPhase.CANCELLED}


def test_worse_slices_stay_with_the_incumbent(world: SmallInstallation) -> None:
    split_suite(world)

    found = drive(world, propose(world, "sim/worse"))

    assert {proposal.phase for proposal in found} == {ProposalPhase.REJECTED}
    assert world.route().settings.overrides == {}


def test_a_later_attempt_counts_the_slices_as_one_look(world: SmallInstallation) -> None:
    split_suite(world, items=400)
    drive(world, propose(world, "sim/worse"))

    whole, billing, _ = propose(world, "sim/worse")

    assert (whole.plans[0].look, billing.plans[0].look) == (3, 4)
    assert billing.route == "chat-billing"


@pytest.mark.parametrize("first", [(), SLICES])
def test_a_slice_cannot_be_chosen_by_the_scores_of_an_earlier_look(
    world: SmallInstallation, first: tuple[str, ...]
) -> None:
    split_suite(world, items=400)
    drive(world, propose(world, "sim/worse", slices=first))

    with pytest.raises(Conflict, match="declared before the first score"):
        propose(world, "sim/worse", slices=SLICES[:1])

    with world.store.read() as tx:
        assert not Proposals(tx).open()


def test_tags_that_the_router_does_not_follow_are_named_before_anything_is_asked(
    world: SmallInstallation,
) -> None:
    split_suite(world, mistagged=7)

    with pytest.raises(InputError, match="agree on") as refused:
        propose(world)

    text = str(refused.value)
    assert "slice 'team = billing'" in text
    assert "q-1 (the router chooses x-team: billing)" in text
    assert "and 2 more" in text
    with world.store.read() as tx:
        assert not Proposals(tx).list()
    assert list(routes.load_table(world.context()).routes) == ["chat"]


def test_one_wrong_tag_of_a_hundred_is_allowed(world: SmallInstallation) -> None:
    split_suite(world, items=220, mistagged=1)

    assert len(propose(world)) == 3


def test_a_dry_run_refuses_slices_that_could_hardly_pass(world: SmallInstallation) -> None:
    split_suite(world, items=120)
    request = ProposalRequest("chat", "sim/good", "a test", slices=SLICES)

    with pytest.raises(InputError, match=r"in 1\d % of comparisons.*about 2\d\d would"):
        forecast_proposal(world.context(), ADA, request)


@pytest.mark.parametrize(
    ("slices", "why"),
    [
        (("team = support",), "declares no slice 'team = support'"),
        (("team = billing", "team = billing"), "name each slice once"),
    ],
)
def test_only_declared_slices_are_proposed(
    world: SmallInstallation, slices: tuple[str, ...], why: str
) -> None:
    split_suite(world)

    with pytest.raises(InputError, match=why):
        propose(world, slices=slices)


def test_a_route_of_its_own_needs_an_admin(world: SmallInstallation) -> None:
    split_suite(world)

    with pytest.raises(NotAllowed, match="this needs admin"):
        propose(world, actor=ANN)


def test_what_another_person_must_approve_counts_for_the_slices_too(
    world: SmallInstallation,
) -> None:
    split_suite(world, actor=ADA)

    whole, billing, sales = propose(world)

    assert whole.widened
    assert billing.widened == sales.widened == whole.widened


def test_a_change_of_the_overrides_voids_the_slices_proof(world: SmallInstallation) -> None:
    split_suite(world)
    made = propose(world)
    routes.change_settings(
        world.context(),
        ADA,
        "chat",
        lambda old: replace(old, overrides={"x-a: 1": "chat-sales"}),
    )

    _, billing, _ = drive(world, made)

    assert billing.phase is ProposalPhase.REJECTED
    assert "the overrides of route chat changed" in billing.closed_because
