from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.canary import operations
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, NotAllowed, ProofRefused
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.offline.format_rules import LABEL_ONLY, VALUE_ONLY
from harness.gate.online.rollout import RolloutSignal
from harness.gate.policy import Policy, PromotionMode
from harness.gate.suite_plan import Claim, SuiteRole
from harness.operations import keys
from harness.proposals import decisions, fallback_chain, review
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.registration import suite_plans
from harness.proposals.report.answer_examples import describe_report
from harness.proposals.report.content import gather_report
from harness.proposals.report.markdown import render_markdown
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.registry import targets
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.control import freezes, routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import POLICY, approved

pytestmark = pytest.mark.req("A7", "F2")

ANN = Actor("ann", Role.ADMIN, "pr_ann")
EVE = Actor("eve", Role.ADMIN, "pr_eve")
WAIVE = WaiverRequest("no time", timedelta(days=1))


def force(
    world: SmallInstallation,
    actor: Actor,
    kind: ForceKind,
    name: str,
    route: str | None,
) -> None:
    wanted = freezes.SwitchRequest(Force(kind, name), "an incident", route=route)
    freezes.set_switch(world.context(), actor, wanted, source=SwitchSource.CLI)


def fallbacks(world: SmallInstallation) -> list[str]:
    return [
        fallback.target.name
        for fallback in fallback_chain.list_fallbacks(world.context(), "chat")
    ]


def rolled_back(world: SmallInstallation, proposal: Proposal) -> str:
    for _ in range(10):
        world.feed(failing=True, blocks=5)
        world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.ROLLED_BACK
    with world.store.read() as tx:
        told = next(alert for alert in Alerts(tx).list() if alert.kind is AlertKind.ROLLED_BACK)
    return told.text


def test_who_proposed_a_model_makes_no_fallback_of_it_while_its_canary_is_on(
    plain_world: SmallInstallation,
) -> None:
    plain_world.in_canary("sim/good", ANN)
    ctx = plain_world.context()
    with pytest.raises(ProofRefused, match="only for a person other than its proposer"):
        fallback_chain.add_fallback(
            ctx,
            ANN,
            "chat",
            FallbackRequest("sim/good"),
            reason="more redundancy",
        )

    fallback_chain.add_fallback(
        ctx,
        EVE,
        "chat",
        FallbackRequest("sim/good"),
        reason="more redundancy",
    )
    assert fallbacks(plain_world) == ["sim/good"]


@pytest.mark.parametrize("route", ["chat", None])
@pytest.mark.parametrize("kind", [ForceKind.TARGET, ForceKind.PROVIDER])
def test_who_proposed_a_model_forces_no_traffic_to_it_while_its_proposal_is_open(
    plain_world: SmallInstallation,
    kind: ForceKind,
    route: str | None,
) -> None:
    ctx = plain_world.context()
    targets.put_provider(ctx, EVE, Provider("own", "sim", "http://127.0.0.1:8/v1"))
    plain_world.in_canary("own/good", ANN)
    name = {ForceKind.TARGET: "own/good", ForceKind.PROVIDER: "own"}[kind]

    with pytest.raises(NotAllowed, match="cannot force it"):
        force(plain_world, ANN, kind, name, route)

    # Away from it, and where the incumbent goes first, anybody on call may.
    force(plain_world, ANN, ForceKind.PROVIDER, "sim", route)
    force(plain_world, ANN, ForceKind.AVOID_PROVIDER, "own", route)
    force(plain_world, ANN, ForceKind.AVOID_TARGET, "own/good", route)
    force(plain_world, BEN, kind, name, route)


def test_what_was_rolled_back_for_harm_is_no_fallback_either(world: SmallInstallation) -> None:
    ctx = world.context()
    fallback_chain.add_fallback(
        ctx,
        ANN,
        "chat",
        FallbackRequest("sim/equal", waive=WAIVE),
        reason="a spare",
    )
    proposal = world.in_canary("sim/good", ANN)
    fallback_chain.add_fallback(
        ctx,
        EVE,
        "chat",
        FallbackRequest("sim/good", capable=True),
        reason="more redundancy",
    )

    text = rolled_back(world, proposal)

    assert fallbacks(world) == ["sim/equal"]
    assert "sim/good serves no caller, also not as a fallback." in text


def test_a_rollback_goes_through_where_the_chain_cannot_change_and_says_what_stays(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    fallback_chain.add_fallback(
        ctx,
        ANN,
        "chat",
        FallbackRequest("sim/equal", waive=WAIVE),
        reason="a spare",
    )
    proposal = world.in_canary("sim/good", ANN)
    fallback_chain.add_fallback(
        ctx,
        EVE,
        "chat",
        FallbackRequest("sim/good"),
        reason="more redundancy",
    )
    world.clock.advance(WAIVE.lasts.total_seconds())

    text = rolled_back(world, proposal)

    assert fallbacks(world) == ["sim/equal", "sim/good"]
    assert "it is still a fallback (route 'chat': the waiver of ann" in text
    with world.store.read() as tx:
        route = Routing(tx).route("chat")
    assert route is not None
    assert route.canary is None


STRICT = replace(
    approved(),
    gate=replace(
        POLICY.gate,
        alpha=1e-4,
        margin=0.01,
        claims=(Claim.SUPERIOR,),
    ),
)


@pytest.mark.parametrize("policy", [POLICY, approved()], ids=["evaluating", "approved"])
@pytest.mark.parametrize("change", ["policy", "suite", "role"])
def test_rules_that_were_tightened_while_a_proposal_is_open_bind_it(
    plain_world: SmallInstallation,
    change: str,
    policy: Policy,
) -> None:
    world = plain_world
    world.policy = policy
    proposal = world.propose("sim/good")
    world.run_once()
    if policy.promotion is PromotionMode.APPROVED:
        world.until_decided(proposal.id)
        decisions.approve_proposal(world.context(), BEN, proposal.id)
    world.suites["two"] = replace(world.suites["colours"], name="two")
    added = RouteSuite("two", SuiteRole.REQUIRED)
    suites = {
        "policy": (RouteSuite("colours"),),
        "suite": (RouteSuite("colours"), added),
        "role": (
            RouteSuite("colours", SuiteRole.GUARD),
            replace(added, role=SuiteRole.PRIMARY),
        ),
    }[change]
    if change == "policy":
        world.policy = STRICT
    routes.change_settings(world.context(), EVE, "chat", lambda s: replace(s, suites=suites))
    world.run_once(turns=6)

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "other rules than the route has" in after.closed_because


def back_to_base(world: SmallInstallation, actor: Actor) -> None:
    world.in_canary("sim/better", ANN)
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PROMOTE, "it is better")
    operations.roll_back(world.context(), actor, "chat", reason="customers complain")


def test_a_rollback_by_the_proposer_chooses_no_weaker_incumbent_alone(
    plain_world: SmallInstallation,
) -> None:
    back_to_base(plain_world, ANN)
    proposal = plain_world.decided("sim/good")

    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    seen = review.review_proposal(plain_world.context(), proposal.id)
    (said,) = seen.widened
    assert said.startswith("incumbent: sim/base, which the proposer restored instead of")
    assert said.endswith("of sim/better (customers complain)")
    with pytest.raises(NotAllowed):
        decisions.approve_proposal(plain_world.context(), ANN, proposal.id)
    decisions.approve_proposal(plain_world.context(), BEN, proposal.id)
    plain_world.run_once()
    assert plain_world.get(proposal.id).phase is ProposalPhase.CANARY


def test_a_rollback_stands_in_the_review_of_what_is_proposed_after_it(
    plain_world: SmallInstallation,
) -> None:
    back_to_base(plain_world, EVE)
    proposal = plain_world.propose("sim/good", ANN)

    assert proposal.widened == {}
    changes = review.review_proposal(plain_world.context(), proposal.id).changes
    assert [
        (change.what, change.by, change.text)
        for change in changes
        if change.what == "incumbent"
    ] == [("incumbent", "eve", "sim/better → sim/base: customers complain")]


def test_a_suite_that_was_swapped_while_a_proposal_was_registered_is_still_widened(
    plain_world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its plans and the comparison with what is accepted."""
    world = plain_world
    path = world.suites["colours"].path
    assert path is not None
    accepted = path.read_text()
    changed = accepted.replace('"target": "c1"', '"target": "x1"')
    before = suite_plans.plan_suites

    def swapped(*args: Any) -> Any:
        path.write_text(changed)
        made = before(*args)
        path.write_text(accepted)
        return made

    monkeypatch.setattr(suite_plans, "plan_suites", swapped)
    proposal = world.propose("sim/better")
    path.write_text(changed)
    world.run_once(turns=6)

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert (
        "suite colours: differs from the suite accepted for this route" in after.closed_because
    )


def test_the_older_content_of_a_suite_is_accepted_no_more_after_an_approved_change(
    plain_world: SmallInstallation,
) -> None:
    world = plain_world
    path = world.suites["colours"].path
    assert path is not None
    older = path.read_text()
    path.write_text(older.replace('"target": "c1"', '"target": "x1"'))
    proposal = world.decided("sim/better")
    decisions.approve_proposal(world.context(), BEN, proposal.id)
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.CANARY
    assert world.preview("sim/good").widened == {}

    path.write_text(older)
    assert set(world.preview("sim/good").widened) == {"suite colours"}


def awaiting(world: SmallInstallation) -> Proposal:
    world.policy = approved()
    return world.decided("sim/good")


def test_an_approval_by_a_key_that_was_revoked_since_opens_no_canary(
    plain_world: SmallInstallation,
) -> None:
    proposal = awaiting(plain_world)
    ctx = plain_world.context()
    approver = plain_world.person("ben", Role.APPROVER)
    decisions.approve_proposal(ctx, approver, proposal.id)
    keys.revoke_key(ctx, SYSTEM, str(approver.key))

    plain_world.run_once()

    assert plain_world.get(proposal.id).phase is ProposalPhase.REJECTED
    assert "has since been revoked" in plain_world.get(proposal.id).closed_because


def test_who_is_asked_to_approve_is_told_what_is_widened(
    plain_world: SmallInstallation,
) -> None:
    plain_world.suites["colours"] = replace(plain_world.suites["colours"], version="2")
    proposal = awaiting(plain_world)
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    with plain_world.store.read() as tx:
        (told,) = (
            alert
            for alert in Alerts(tx).unsettled()
            if alert.kind is AlertKind.AWAITING_APPROVAL
        )
    assert "suite colours: differs from the suite accepted for this route" in told.text
    report = gather_report(plain_world.context(), proposal.id)
    assert "- `suite colours: differs from the suite accepted" in render_markdown(
        describe_report(report)
    )


def test_a_proposer_takes_back_only_his_own_proposal(plain_world: SmallInstallation) -> None:
    proposal = plain_world.propose("sim/good", ANN)
    other = Actor("eve", Role.PROPOSER, "pr_eve")
    with pytest.raises(NotAllowed, match="this needs approver"):
        decisions.cancel_proposal(plain_world.context(), other, proposal.id)
    decisions.cancel_proposal(plain_world.context(), ANN, proposal.id)
    assert plain_world.get(proposal.id).phase is ProposalPhase.CANCELLED


@pytest.mark.parametrize(
    ("addendum", "free"),
    [
        ("Table of constants: c0 c1 c2", False),
        (f"{LABEL_ONLY} Table of constants: c0 c1 c2", False),
        (LABEL_ONLY, True),
        (f"{LABEL_ONLY} {VALUE_ONLY}", True),
    ],
)
def test_what_a_candidate_adds_to_every_prompt_is_read_by_another_person(
    plain_world: SmallInstallation,
    addendum: str,
    *,
    free: bool,
) -> None:
    patch = RequestPatch(prompt_addendum=addendum)
    seed = Target("sim", "good", request_patch=patch)
    target = targets.add_target(plain_world.context(), ANN, seed)

    proposal = plain_world.decided(target.name, ANN)

    shown = review.review_proposal(plain_world.context(), proposal.id).widened
    assert proposal.phase is (ProposalPhase.CANARY if free else ProposalPhase.AWAITING_APPROVAL)
    assert [line for line in shown if addendum in line] == ([] if free else list(shown))
    if not free:
        decisions.approve_proposal(plain_world.context(), EVE, proposal.id, "read it")
        plain_world.run_once()
        assert plain_world.get(proposal.id).phase is ProposalPhase.CANARY


@pytest.mark.parametrize(
    "name",
    ["\u202eevil", "chat\u200b", "chat\u3164", "\u0441hat", "a\x1b[2K"],
)
def test_a_route_has_no_name_that_looks_like_another(
    plain_world: SmallInstallation, name: str
) -> None:
    with pytest.raises(InputError, match="the name"):
        routes.create_route(
            plain_world.context(),
            EVE,
            name,
            "sim/base",
            settings=RouteSettings(),
        )
