"""A passed candidate is mirrored before its canary: by the loop, on each store, to each end."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa

from dashboard.data import queries
from dashboard.sections import shadows as shadows_section
from harness.cli.shadow import stage_text
from harness.control.operations import alerts
from harness.control.proposals import comparison, decisions, submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes, targets
from harness.control.shadow import shadows
from harness.control.shadow import stage as shadow_first
from harness.control.shadow.shadows import ShadowRequest
from harness.control.shadow.stage import ShadowStage
from harness.domain.errors import InputError, SignatureInvalid
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import AuditEvent
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Provider
from harness.domain.shadow import Shadow, ShadowLimits, ShadowTally
from harness.gate.shadow_stage import ShadowMove
from tests.support.control.control_plane import (
    ANN,
    BEN,
    CANARY,
    POLICY,
    Crash,
    CrashingStore,
    SmallInstallation,
    approved,
)
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F8")

FIRST = ShadowStagePolicy(share_bps=500, min_pairs=20, max_cost_usd=2.0)
MIRRORED = replace(POLICY, canary=replace(CANARY, shadow=FIRST))


def mirroring(world: SmallInstallation, policy: Policy = MIRRORED) -> Proposal:
    """A proposal that has passed, and whose shadow has begun."""
    world.policy = policy
    proposal = world.propose("sim/better")
    passed = world.until_decided(proposal.id)
    world.run_once()
    assert passed.phase is ProposalPhase.SHADOW
    return passed


def live(world: SmallInstallation) -> Shadow | None:
    with world.store.read() as tx:
        return next(iter(tx.shadows.live()), None)


def record_tally(
    world: SmallInstallation,
    *,
    pairs: int = 0,
    lost: int = 0,
    usd: float = 0.0,
    callers: int | None = None,
) -> None:
    """What routers add up. lost: requests that only the incumbent answered, each of
    another caller unless callers says of how many.
    """
    shadow = live(world)
    assert shadow is not None
    counts = {
        "mirrored": pairs + lost,
        "pairs": pairs,
        "answered.both": pairs,
        "answered.incumbent_only": lost,
        "unit.answered.incumbent_only": lost if callers is None else callers,
    }
    day = world.clock.now().date()
    row = ShadowTally(shadow.id, day, "w-1", counts, {"candidate.cost_usd": usd})
    with world.store.write() as tx:
        tx.shadows.append([row])


def turned(world: SmallInstallation, proposal: Proposal) -> Proposal:
    assert not world.run_once().failed
    return world.get(proposal.id)


def is_held(world: SmallInstallation, proposal: Proposal) -> bool:
    return alerts.is_open(world.context(), AlertKind.SHADOW_HELD, proposal.id)


def shown(world: SmallInstallation, proposal: Proposal) -> ShadowStage:
    """What `proposal show` shows of it."""
    shadow = comparison.load_comparison(world.context(), proposal.id).shadow
    assert shadow is not None
    return shadow


def done(world: SmallInstallation) -> list[str]:
    """Actions of the audit log, oldest first."""
    with world.store.read() as tx:
        assert tx.audit.first_break() is None
        return [audit_event.action for audit_event in tx.audit.all()]


def event(world: SmallInstallation, action: str) -> AuditEvent:
    with world.store.read() as tx:
        return next(
            audit_event for audit_event in tx.audit.all() if audit_event.action == action
        )


def replayed(world: SmallInstallation) -> set[str]:
    """Actions that are decided again to the same bytes: all that keep their inputs."""
    found = set()
    with world.store.read() as tx:
        events = list(tx.audit.all())
    for audit_event in events:
        if shadow_first.has_inputs(world.context(), audit_event.number):
            again = shadow_first.replay_stage(world.context(), audit_event.number)
            assert again.agrees, again.differences
            assert again.again_sha256 == audit_event.details["decided_sha256"]
            found.add(audit_event.action)
    return found


def test_a_healthy_candidate_goes_from_its_pairs_to_its_canary_and_on(
    world: SmallInstallation,
) -> None:
    proposal = mirroring(world)
    shadow = live(world)
    assert shadow is not None
    assert (shadow.proposal, shadow.started_by) == (proposal.id, SYSTEM.name)
    assert shadow.limits == ShadowLimits(500, 4, 10_000_000, None, 2.0)
    record_tally(world, pairs=19, usd=0.5)
    assert turned(world, proposal).phase is ProposalPhase.SHADOW
    assert "19 of 20 compared pairs" in shown(world, proposal).decided.reason
    assert shown(world, proposal).live == shadow.id
    assert routes.load_table(world.context()).routes["chat"].canary is None
    record_tally(world, pairs=1)

    opened = turned(world, proposal)

    assert opened.phase is ProposalPhase.CANARY
    assert live(world) is None
    canary = routes.load_table(world.context()).routes["chat"].canary
    assert canary is not None
    assert canary.target == proposal.candidate
    assert canary.weight_bps == 100
    audit_event = event(world, "proposal.shadowed")
    assert audit_event.details["pairs"] == 20
    assert audit_event.details["spent_usd"] == 0.5
    for _ in range(40):
        world.feed()
        world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.PROMOTED
    assert {"shadow.start", "proposal.shadowed"} == replayed(world)


def test_one_that_fails_what_the_incumbent_answers_is_rejected_before_any_user(
    world: SmallInstallation,
) -> None:
    proposal = mirroring(world)
    record_tally(world, lost=40, callers=1)  # requests of one caller are no evidence
    assert turned(world, proposal).phase is ProposalPhase.SHADOW
    record_tally(world, pairs=5, lost=13)

    rejected = turned(world, proposal)

    assert rejected.phase is ProposalPhase.REJECTED
    assert "14 callers where only the incumbent held answered" in rejected.closed_because
    assert live(world) is None
    with world.store.read() as tx:
        assert tx.rollouts.list(route="chat") == []
    audit_event = event(world, "proposal.harm")
    assert audit_event.details["checks"] == {
        "answered": {"both": 5, "incumbent_only": 53, "candidate_only": 0, "neither": 0}
    }
    log_e = audit_event.details["log_e"]
    assert isinstance(log_e, float)
    assert log_e > math.log(100)
    assert {"shadow.start", "proposal.harm"} == replayed(world)


def test_spent_money_holds_and_what_a_person_mirrors_then_counts(
    world: SmallInstallation,
) -> None:
    proposal = mirroring(world)
    record_tally(world, pairs=12, usd=2.0)

    assert turned(world, proposal).phase is ProposalPhase.SHADOW
    assert live(world) is None
    assert is_held(world, proposal)
    (_, *facts), before = stage_text(shown(world, proposal)), done(world)
    assert dict(facts)["money"] == "$2.00 of $2.00"
    for _ in range(3):
        assert turned(world, proposal).phase is ProposalPhase.SHADOW
    assert done(world) == before

    more = ShadowRequest("chat", "sim/better", ShadowLimits(), "more money")
    assert shadows.start_shadow(world.context(), ANN, more).proposal == proposal.id
    assert turned(world, proposal).phase is ProposalPhase.SHADOW
    assert not is_held(world, proposal)
    record_tally(world, pairs=8)
    assert turned(world, proposal).phase is ProposalPhase.CANARY
    assert {"shadow.start", "shadow.stop", "proposal.shadowed"} == replayed(world)


@pytest.mark.req("F5")
@pytest.mark.parametrize(
    ("forgery", "said"),
    [
        ("UPDATE shadow_tally SET counts = replace(counts, '14', '3')", "fewer pairs"),
        ("UPDATE proposal SET policy = replace(policy, '0.01', '0.02')", "row proposal"),
    ],
)  # fmt: skip
def test_tampering_with_a_shadows_figures_or_policy_is_seen(
    world: SmallInstallation, forgery: str, said: str
) -> None:
    proposal = mirroring(world)
    record_tally(world, pairs=5, lost=14)
    turned(world, proposal)
    with owned(world.store) as db:
        assert db.execute(sa.text(forgery)).rowcount

    number = event(world, "proposal.harm").number
    try:
        found: Sequence[str] = shadow_first.replay_stage(world.context(), number).differences
    except SignatureInvalid as error:
        found = [str(error)]

    assert any(said in problem for problem in found), found


def test_one_that_a_person_stopped_is_not_started_again(world: SmallInstallation) -> None:
    proposal = mirroring(world)
    record_tally(world, pairs=3)
    shadows.stop_shadow(world.context(), BEN, "chat", reason="users complain")

    for _ in range(2):
        assert turned(world, proposal).phase is ProposalPhase.SHADOW

    stage = shadow_first.find_stage_of_route(world.context(), "chat")
    assert stage is not None
    assert stage.decided.move is ShadowMove.HOLD
    assert "ben stopped the shadow (users complain)" in stage.decided.reason
    assert is_held(world, proposal)
    decisions.cancel_proposal(world.context(), ANN, proposal.id)
    alerts.run_once(world.context())
    assert not is_held(world, proposal)


def test_anothers_shadow_on_the_route_is_waited_for(world: SmallInstallation) -> None:
    other = ShadowRequest("chat", "sim/good", ShadowLimits(), "a look")
    shadows.start_shadow(world.context(), BEN, other)
    proposal = mirroring(world)
    assert is_held(world, proposal)

    shadows.stop_shadow(world.context(), BEN, "chat")
    for _ in range(2):
        turned(world, proposal)

    shadow = live(world)
    assert shadow is not None
    assert shadow.proposal == proposal.id
    assert not is_held(world, proposal)


def with_side_effects(was: RouteSettings) -> RouteSettings:
    return replace(was, side_effects=True)


def test_a_route_that_takes_no_shadow_any_more_holds(world: SmallInstallation) -> None:
    proposal = mirroring(world)
    routes.change_settings(world.context(), SYSTEM, "chat", with_side_effects)
    for _ in range(2):
        turned(world, proposal)

    assert live(world) is None
    assert is_held(world, proposal)
    assert world.get(proposal.id).phase is ProposalPhase.SHADOW


def test_a_proof_that_ends_meanwhile_opens_nothing(world: SmallInstallation) -> None:
    proposal = mirroring(world)
    record_tally(world, pairs=20)
    world.clock.advance(world.policy.gate.verdict_ttl_s)

    rejected = turned(world, proposal)

    assert rejected.phase is ProposalPhase.REJECTED
    assert live(world) is None
    assert routes.load_table(world.context()).routes["chat"].canary is None


def test_an_approval_comes_before_the_shadow_and_a_cancel_ends_it(
    world: SmallInstallation,
) -> None:
    world.policy = approved(MIRRORED)
    proposal = world.propose("sim/better")
    assert world.until_decided(proposal.id).phase is ProposalPhase.AWAITING_APPROVAL
    decisions.approve_proposal(world.context(), BEN, proposal.id)

    assert turned(world, proposal).phase is ProposalPhase.SHADOW
    turned(world, proposal)
    assert live(world) is not None
    decisions.cancel_proposal(world.context(), ANN, proposal.id)
    turned(world, proposal)

    assert live(world) is None
    assert world.get(proposal.id).phase is ProposalPhase.CANCELLED


def test_what_no_shadow_could_see_is_refused_before_it_is_paid_for(
    world: SmallInstallation,
) -> None:
    world.policy = MIRRORED
    ctx = world.context()
    settings = RouteSettings(suites=(RouteSuite("colours"),), side_effects=True)
    routes.create_route(ctx, SYSTEM, "orders", "sim/base", settings=settings)
    targets.put_provider(ctx, SYSTEM, Provider("free", "sim", "http://127.0.0.1:9/v1"))

    with pytest.raises(InputError, match="nothing of it is sent twice"):
        submission.create_proposal(ctx, ANN, ProposalRequest("orders", "sim/better"))
    with pytest.raises(InputError, match=r"providers\.free\.prices"):
        submission.create_proposal(ctx, ANN, ProposalRequest("chat", "free/better"))


def lives_on(
    world: SmallInstallation, proposal: Proposal, dying: CrashingStore, **seen: float
) -> Proposal:
    """A control process that dies, and the next one; routers add up once between turns."""
    ctx = world.context(dying)  # type: ignore[arg-type]
    reported = False
    for _ in range(12):
        try:
            world.run_once(ctx)
        except Crash:
            ctx = world.context()
        if live(world) is not None and not reported:
            record_tally(world, **seen)  # type: ignore[arg-type]
            reported = True
    return world.get(proposal.id)


@pytest.mark.req("F5")
@pytest.mark.parametrize("after_commit", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize(
    ("seen", "phase"),
    [
        ({"pairs": 20}, ProposalPhase.CANARY),
        ({"lost": 14}, ProposalPhase.REJECTED),
        ({"pairs": 3, "usd": 2.0}, ProposalPhase.SHADOW),
    ],
    ids=["opens", "rejects", "holds"],
)
def test_a_crash_at_any_of_its_writes_leaves_a_right_state(
    world: SmallInstallation,
    *,
    at: int,
    after_commit: bool,
    seen: dict[str, float],
    phase: ProposalPhase,
) -> None:
    world.policy = MIRRORED
    proposal = world.propose("sim/better")
    assert world.until_decided(proposal.id).phase is ProposalPhase.SHADOW
    dying = CrashingStore(world.store, at=at, after_commit=after_commit)

    after = lives_on(world, proposal, dying, **seen)

    assert dying.died
    assert after.phase is phase
    assert live(world) is None
    actions = done(world)
    assert actions.count("shadow.start") == actions.count("shadow.stop") == 1
    assert is_held(world, proposal) is (phase is ProposalPhase.SHADOW)
    with world.store.read() as tx:
        assert len(tx.shadows.list()) == 1
        assert len(tx.rollouts.list(route="chat")) == (phase is ProposalPhase.CANARY)


def test_the_canary_page_has_the_shadow_as_it_stands(world: SmallInstallation) -> None:
    proposal = mirroring(world)
    record_tally(world, pairs=12, lost=2, usd=0.5)

    stage = queries.canary(world.context(), "chat").shadow
    assert stage is not None
    top = shadows_section.headline(stage, "chat")
    assert "no user gets its answers" in top
    assert "opens at 1 %" in top.replace("\xa0", " ")
    tiles = shadows_section.stage_tiles(stage)
    assert [tile.figure for tile in tiles] == ["12 of 20", "14", "$0.50"]
    assert stage.status is not None
    (cells,) = map(shadows_section.check_cells, stage.status.checks)
    assert [*cells.values()] == ["answered", "12", "2", "0", "0"]

    record_tally(world, usd=1.5)
    turned(world, proposal)
    stage = queries.canary(world.context(), "chat").shadow
    assert stage is not None
    assert shadows_section.HELD.words in shadows_section.headline(stage, "chat")
