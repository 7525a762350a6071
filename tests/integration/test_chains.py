"""A route's chain, changed by people: evidence for each new target, in every store (A7)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.canary import operations
from harness.frame.errors import (
    InputError,
    NotAllowed,
    NotFound,
    ProofRefused,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.online.rollout import RolloutSignal
from harness.operations import queries
from harness.proposals import decisions, fallback_chain, submission
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.submission import ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.control import data_class_checks, routes
from harness.routing.evidence import EvidenceKind
from harness.routing.proposal import ProposalPhase
from harness.routing.table import Route
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import CANARY, POLICY, approved

pytestmark = pytest.mark.req("A7")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
WAIVE = WaiverRequest("no time to measure it", timedelta(days=30))


@pytest.fixture
def world(world: SmallInstallation) -> SmallInstallation:
    """A person approves before a canary starts: until then a verdict waits."""
    world.policy = approved()
    return world


def add(
    world: SmallInstallation,
    target: str,
    **more: object,
) -> Route:
    wanted = FallbackRequest(target, **more)  # type: ignore[arg-type]  # its own fields
    return fallback_chain.add_fallback(world.context(), ADA, "chat", wanted, reason="a spare")


def shown(world: SmallInstallation) -> list[tuple[str, EvidenceKind]]:
    fallbacks = fallback_chain.list_fallbacks(world.context(), "chat")
    return [(entry.target.model, entry.evidence) for entry in fallbacks]


def audited(world: SmallInstallation, action: str) -> list[dict[str, object]]:
    events = queries.list_audit_events(world.context())
    return [dict(event.details) for event in events if event.action == action]


def approve(world: SmallInstallation, proposal: str) -> None:
    decisions.approve_proposal(world.context(), BEN, proposal)


def refuse(world: SmallInstallation, proposal: str) -> None:
    approve(world, proposal)
    decisions.refuse_proposal(world.context(), BEN, proposal, "unsafe")


def let_expire(world: SmallInstallation, proposal: str) -> None:
    approve(world, proposal)
    world.clock.advance(world.policy.gate.verdict_ttl_s)


def do_harm(world: SmallInstallation, proposal: str) -> None:
    approve(world, proposal)
    world.run_once()
    world.feed(failing=True, blocks=30)
    world.run_once()
    assert world.get(proposal).phase is ProposalPhase.ROLLED_BACK


def take_back(world: SmallInstallation, proposal: str) -> None:
    approve(world, proposal)
    world.run_once()
    for signal in (RolloutSignal.PROMOTE, RolloutSignal.ABORT):
        operations.operate(world.context(), BEN, "chat", signal, "a drill")
    assert world.get(proposal).phase is ProposalPhase.ROLLED_BACK


@pytest.mark.spine
@pytest.mark.req("F1", "F2")
@pytest.mark.parametrize(
    ("candidate", "then"),
    [
        ("sim/worse", lambda *_: None),
        ("sim/better", lambda *_: None),
        ("sim/better", refuse),
        ("sim/better", let_expire),
        ("sim/better", do_harm),
        ("sim/better", take_back),
    ],
    ids=["failed", "waits", "refused", "expired", "did harm", "rolled back"],
)
def test_a_target_without_evidence_stays_out_of_the_chain(
    world: SmallInstallation,
    candidate: str,
    then: Callable[[SmallInstallation, str], None],
) -> None:
    world.policy = approved(replace(POLICY, canary=replace(CANARY, bake_s=10_000.0)))
    with pytest.raises(ProofRefused, match="no evidence on route 'chat'"):
        add(world, candidate)
    then(world, world.decided(candidate).id)

    with pytest.raises(ProofRefused, match="no evidence on route 'chat'"):
        add(world, candidate)
    assert shown(world) == []


def test_a_waiver_lets_it_in_and_is_shown_and_audited(world: SmallInstallation) -> None:
    add(
        world,
        "sim/equal",
        waive=WAIVE,
        capable=True,
    )

    [entry] = fallback_chain.list_fallbacks(world.context(), "chat")
    assert (entry.evidence, entry.capable, entry.waiver_expired) == (
        EvidenceKind.WAIVER,
        True,
        False,
    )
    assert entry.waiver is not None
    assert (entry.waiver.author, entry.waiver.reason) == (
        "ada",
        WAIVE.reason,
    )
    [event] = audited(world, "waiver.add")
    assert (event["target"], event["reason"]) == (
        entry.target.id,
        WAIVE.reason,
    )
    [change] = audited(world, "route.fallbacks")
    assert change["proofs"] == {entry.target.id: entry.waiver.id}


@pytest.mark.parametrize(
    ("waive", "words"),
    [
        (WaiverRequest(" ", timedelta(days=1)), "needs a reason"),
        (WaiverRequest("why", timedelta(0)), "90 days"),
        (WaiverRequest("why", timedelta(days=91)), "90 days"),
    ],
)
def test_a_waiver_has_a_reason_and_an_end(
    world: SmallInstallation,
    waive: WaiverRequest,
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        add(world, "sim/equal", waive=waive)


@pytest.mark.spine
@pytest.mark.req("H4")
def test_another_version_of_a_proven_model_needs_its_own_verdict(
    world: SmallInstallation,
) -> None:
    approve(world, world.decided("sim/better").id)
    patch = RequestPatch(prompt_addendum="Answer in one word.")
    version = targets.add_target(
        world.context(), ADA, Target("sim", "better", request_patch=patch)
    )

    with pytest.raises(ProofRefused, match="no evidence on route 'chat'"):
        add(world, version.id)
    add(world, "sim/better")
    assert shown(world) == [("better", EvidenceKind.VERDICT)]


def test_a_passed_verdict_lets_it_in_once_it_is_approved(world: SmallInstallation) -> None:
    proposal = world.decided()
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    approve(world, proposal.id)

    add(world, "sim/better")
    assert shown(world) == [("better", EvidenceKind.VERDICT)]
    [entry] = fallback_chain.list_fallbacks(world.context(), "chat")
    assert entry.verdict == proposal.verdict


def test_a_former_fallback_comes_back_with_the_evidence_it_had(
    world: SmallInstallation,
) -> None:
    add(world, "sim/equal", waive=WAIVE)
    fallback_chain.remove_fallback(world.context(), ADA, "chat", "sim/equal", reason="a test")
    assert shown(world) == []

    add(world, "sim/equal")

    assert shown(world) == [("equal", EvidenceKind.WAIVER)]
    assert len(audited(world, "waiver.add")) == 1


def test_an_expired_waiver_serves_on_until_somebody_changes_the_route(
    world: SmallInstallation,
) -> None:
    add(world, "sim/equal", waive=WAIVE)
    world.clock.advance(WAIVE.lasts.total_seconds())
    ctx = world.context()

    [waiver] = fallback_chain.list_expired_waivers(ctx)
    assert waiver.author == "ada"
    assert shown(world) == [("equal", EvidenceKind.WAIVER)]
    with pytest.raises(ProofRefused, match="waiver of ada"):
        fallback_chain.mark_capable(
            ctx,
            ADA,
            "chat",
            "sim/equal",
            capable=True,
            reason="a test",
        )
    with pytest.raises(ProofRefused, match="waiver of ada"):
        routes.change_settings(ctx, ADA, "chat", lambda before: before)

    # What a rollout does by itself is not held up by it.
    proposal = world.decided()
    approve(world, proposal.id)
    world.run_once()
    operations.operate(ctx, ADA, "chat", RolloutSignal.ABORT, "a test")
    assert shown(world) == [("equal", EvidenceKind.WAIVER)]

    add(world, "sim/equal", waive=WAIVE)
    assert list(fallback_chain.list_expired_waivers(ctx)) == []
    fallback_chain.remove_fallback(ctx, ADA, "chat", "sim/equal", reason="a test")
    assert shown(world) == []


@pytest.mark.req("D8")
def test_a_provider_that_may_not_see_the_data_comes_to_the_route_in_no_role(
    world: SmallInstallation,
) -> None:
    plain = world.context()
    targets.put_provider(plain, SYSTEM, Provider("away", "sim", "http://127.0.0.1:9/v1"))
    ctx = replace(plain, data_classes={"personal": frozenset({"sim"})})
    routes.change_settings(ctx, ADA, "chat", lambda old: replace(old, data_class="personal"))
    personal = queries.find_route(ctx, "chat").settings

    def refused(do: Callable[[], object]) -> None:
        with pytest.raises(NotAllowed, match=r"'away' of away/\S+ may not see it"):
            do()

    refused(
        lambda: submission.create_proposal(ctx, ANN, ProposalRequest("chat", "away/better"))
    )
    refused(
        lambda: fallback_chain.add_fallback(
            ctx,
            ADA,
            "chat",
            FallbackRequest("away/equal", waive=WAIVE),
            reason="spare",
        )
    )
    refused(lambda: routes.create_route(ctx, ADA, "two", "away/base", settings=personal))
    refused(
        lambda: routes.create_route(
            ctx,
            ADA,
            "two",
            "sim/base",
            fallbacks=["away/base"],
            settings=personal,
        )
    )
    open_ = replace(personal, data_class="")
    routes.create_route(ctx, ADA, "two", "away/base", settings=open_)
    refused(lambda: routes.change_settings(ctx, ADA, "two", lambda _: personal))
    with pytest.raises(NotFound, match="did you mean 'personal'"):
        routes.create_route(
            ctx,
            ADA,
            "three",
            "sim/base",
            settings=replace(personal, data_class="personnel"),
        )

    assert data_class_checks.list_violations(ctx) == []
    [told] = data_class_checks.list_violations(
        replace(ctx, data_classes={"personal": frozenset()})
    )
    assert "allowed are none" in told
