from dataclasses import replace
from datetime import timedelta

import pytest

from harness.canary import audit, decision, operations
from harness.canary import status as canary_status
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    IllegalTransition,
    InputError,
    NotFound,
    ProofRefused,
    RouteBusy,
    StaleWrite,
)
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.operations import alert_delivery
from harness.operations.context import Context
from harness.routing.proposal import ApprovalKind, Proposal, ProposalPhase
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Approvals
from harness.routing.records.routes import Routing
from harness.routing.route_changes import EndBake
from harness.routing.table import Arm, choose_arm, hash_bucket
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import CANARY, POLICY

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
pytestmark = pytest.mark.req("F3", "F8")


@pytest.fixture
def baking(world: SmallInstallation) -> SmallInstallation:
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=DAY.total_seconds()))
    return world


def in_canary(world: SmallInstallation) -> Proposal:
    proposal = world.decided("sim/better")
    world.run_once()
    return world.get(proposal.id)


def promoted(world: SmallInstallation) -> Proposal:
    proposal = in_canary(world)
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PROMOTE, "a demo at noon")
    return world.get(proposal.id)


def test_after_a_promotion_the_incumbent_before_it_keeps_one_percent(
    baking: SmallInstallation,
) -> None:
    before = baking.route().incumbent
    proposal = promoted(baking)

    after = baking.route()
    assert proposal.phase is ProposalPhase.PROMOTED
    assert after.incumbent == proposal.candidate
    assert after.holdback is not None
    assert (after.holdback.target, after.holdback.weight_bps) == (
        before,
        100,
    )
    keys = [f"user:{i}" for i in range(20_000)]
    held = [key for key in keys if choose_arm(after, key) is Arm.HOLDBACK]
    assert len(held) == pytest.approx(200, abs=60)
    # They never left the old model.
    assert min(hash_bucket(key, salt=after.holdback.salt) for key in held) >= 9_900
    assert baking.rollout().baking


def test_a_bake_ends_by_itself_in_its_time_and_the_promotion_stands(
    baking: SmallInstallation,
) -> None:
    proposal = promoted(baking)
    ctx = baking.context()
    baking.run_once(ctx)
    # A clock that is set is no time that passed.
    baking.clock.jump(DAY.total_seconds() + 60)
    baking.run_once(ctx)
    assert baking.rollout().baking

    baking.clock.advance(DAY.total_seconds())
    (said,) = baking.run_once(ctx).did

    assert "The bake is over" in said
    assert baking.route().holdback is None
    assert baking.route().incumbent == proposal.candidate
    assert baking.rollout().state is RolloutState.PROMOTED
    assert baking.run_once(ctx).did == ()


def test_a_bake_whose_control_another_took_away_is_over(baking: SmallInstallation) -> None:
    promoted(baking)
    with baking.store.write() as tx:
        Routing(tx).commit(
            EndBake("chat", baking.rollout().id),
            expected_version=baking.route().version,
            actor=BEN.name,
            reason="by another",
            now=baking.clock.now(),
        )
    version = baking.route().version

    assert not baking.run_once().failed

    assert not baking.rollout().baking
    assert baking.rollout().ended_because == "somebody changed the route"
    assert baking.route().version == version


def test_a_bake_that_cannot_be_looked_at_keeps_no_other_from_its_turn(
    baking: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = baking.context()
    baking.add_route("mail")
    broken = promoted(baking)
    other = baking.decided("sim/better", route="mail")
    baking.run_once()
    operations.operate(ctx, BEN, "mail", RolloutSignal.PROMOTE, "a demo at noon")
    baking.clock.advance(DAY.total_seconds())
    damaged = baking.rollout().id
    look = decision.update_hold_alert

    def fail_for_damaged(ctx: Context, seen: Rollout) -> None:
        if seen.id == damaged:
            raise ValueError("its row is damaged")
        look(ctx, seen)

    monkeypatch.setattr(decision, "update_hold_alert", fail_for_damaged)
    done = baking.run_once()

    assert done.failed == (f"{broken.id}: ValueError: its row is damaged",)
    assert next(action for action in done.did if "The bake is over" in action).startswith(
        other.id
    )


def test_a_bake_does_not_end_while_nobody_knows_how_it_goes(baking: SmallInstallation) -> None:
    promoted(baking)
    ctx = baking.context()
    record_traffic(baking, requests=3000)
    baking.clock.advance(DAY.total_seconds())
    baking.run_once(ctx)
    assert baking.rollout().baking
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, baking.rollout().id)
    alert_delivery.run_once(ctx)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, baking.rollout().id)

    record_traffic(baking, requests=50)
    baking.run_once(ctx)
    assert not baking.rollout().baking
    alert_delivery.run_once(ctx)
    assert not alerts.is_open(ctx, AlertKind.CANARY_HELD, baking.rollout().id)


def test_a_bake_that_begins_long_after_traffic_stopped_does_not_end_before_it_returns(
    baking: SmallInstallation,
) -> None:
    record_traffic(baking, requests=3000)
    baking.clock.advance(HOUR.total_seconds() * 6)
    promoted(baking)
    with baking.store.read() as tx:
        assert Observations(tx).blocks(baking.rollout().id) == []
    baking.clock.advance(DAY.total_seconds())
    baking.run_once()
    assert baking.rollout().baking

    record_traffic(baking, requests=50)
    baking.run_once()
    assert not baking.rollout().baking


def record_traffic(world: SmallInstallation, *, requests: int) -> None:
    minute = world.clock.now().replace(second=0, microsecond=0)
    row = TrafficMinute(
        "chat",
        minute,
        "w",
        "incumbent",
        "t",
        1,
        requests,
        0,
        0,
        0,
        0,
        0,
        0.0,
    )
    world.feed()
    with world.store.write() as tx:
        Observations(tx).append([], [row])


@pytest.mark.spine
def test_harm_that_shows_in_the_bake_brings_the_incumbent_before_it_back(
    baking: SmallInstallation,
) -> None:
    before = baking.route().incumbent
    proposal = promoted(baking)
    for _ in range(20):
        baking.feed(failing=True)
        baking.run_once()

    assert baking.route().incumbent == before
    assert baking.route().holdback is None
    assert baking.rollout().state is RolloutState.ROLLED_BACK
    assert baking.get(proposal.id).phase is ProposalPhase.ROLLED_BACK


def test_no_swap_is_proposed_while_a_promotion_bakes(baking: SmallInstallation) -> None:
    promoted(baking)
    with pytest.raises(RouteBusy, match="canary finish chat"):
        baking.propose("sim/base")

    operations.operate(baking.context(), BEN, "chat", RolloutSignal.FINISH, "it is fine")
    assert baking.route().holdback is None
    assert baking.propose("sim/base").phase is ProposalPhase.PROPOSED


@pytest.mark.parametrize("way", ["abort", "rollback", "rollback, later"])
def test_what_a_person_takes_back_in_its_bake_returns_only_with_a_new_verdict(
    baking: SmallInstallation, way: str
) -> None:
    proposal = promoted(baking)
    version = baking.route().version
    ctx = baking.context()
    if way == "abort":
        operations.operate(ctx, BEN, "chat", RolloutSignal.ABORT, "complaints")
    else:
        operations.roll_back(ctx, BEN, "chat", reason="complaints")
    if way == "rollback, later":
        baking.run_once()

    assert baking.rollout().state is RolloutState.ROLLED_BACK
    assert baking.get(proposal.id).phase is ProposalPhase.ROLLED_BACK
    assert "complaints" in baking.get(proposal.id).closed_because
    with pytest.raises(ProofRefused, match="propose it again"):
        operations.roll_back(
            ctx,
            BEN,
            "chat",
            to_version=version,
            reason="once more",
        )
    assert baking.route().incumbent == proposal.incumbent
    assert baking.propose("sim/better").phase is ProposalPhase.PROPOSED


def a_router_stops(world: SmallInstallation) -> None:
    stopped = world.rollout().id
    with world.store.write() as tx:
        alerts.raise_alert(
            tx,
            AlertKind.LOCAL_ABORT,
            stopped,
            subject="route chat",
            title="the router stopped the canary of route chat by itself",
            text="Worker w saw 3 of 3 units fail.",
        )


@pytest.mark.req("F4")
def test_a_router_s_stop_that_arrives_after_the_promotion_takes_it_back(
    baking: SmallInstallation,
) -> None:
    before = baking.route().incumbent
    promoted(baking)
    a_router_stops(baking)

    baking.run_once()

    assert baking.route().incumbent == before
    assert baking.rollout().state is RolloutState.ROLLED_BACK
    assert "3 of 3 units fail" in baking.rollout().ended_because


def test_a_person_cannot_move_on_what_a_router_has_stopped(world: SmallInstallation) -> None:
    in_canary(world)
    ctx = world.context()
    version = world.route().version
    a_router_stops(world)

    for signal in (RolloutSignal.ADVANCE, RolloutSignal.PROMOTE):
        with pytest.raises(ProofRefused, match="3 of 3 units fail"):
            operations.operate(ctx, BEN, "chat", signal, "a demo at noon")

    assert world.route().version == version
    world.run_once()
    assert world.rollout().state is RolloutState.ROLLED_BACK


def test_what_speaks_against_a_step_by_hand_stays_in_its_audit_event(
    world: SmallInstallation,
) -> None:
    in_canary(world)
    world.feed(failing=True)
    world.feed(blocks=8)
    world.feed(failing=True)
    shown = canary_status.explain_canary(world.context(), "chat").status

    said = "the customer agrees"
    moved = operations.operate(world.context(), BEN, "chat", RolloutSignal.ADVANCE, said)

    (warning,) = shown.explanation.against
    assert "The canary fails more often than the incumbent: 2 of 10 against" in warning
    with world.store.read() as tx:
        last = list(AuditLog(tx).all())[-1]
    assert last.details["warnings"] == [warning]
    assert moved.warnings == (warning,)
    assert last.details["reason"] == "advance by ben: the customer agrees"
    assert audit.replay_action(world.context(), last.number).agrees


def test_a_promotion_by_hand_leaves_the_person_s_word(world: SmallInstallation) -> None:
    proposal = promoted(world)
    with world.store.read() as tx:
        (approval,) = Approvals(tx).for_proposal(proposal.id)
    assert approval.kind is ApprovalKind.PROMOTION
    assert (approval.name, approval.verdict) == (BEN.name, proposal.verdict)
    assert (proposal.approver, proposal.approved_verdict) == (
        BEN.name,
        proposal.verdict,
    )
    assert approval.reason == "a demo at noon"


def test_who_looked_at_an_older_state_is_told_to_look_again(world: SmallInstallation) -> None:
    in_canary(world)
    version = world.rollout().version
    operations.operate(
        world.context(),
        BEN,
        "chat",
        RolloutSignal.PAUSE,
        "a drill",
        expected_version=version,
    )
    with pytest.raises(StaleWrite, match="check it again"):
        operations.operate(
            world.context(),
            BEN,
            "chat",
            RolloutSignal.ABORT,
            "a drill",
            expected_version=version,
        )


@pytest.mark.parametrize(
    ("hands", "error", "words"),
    [
        (
            [RolloutSignal.PROMOTE, RolloutSignal.PAUSE],
            IllegalTransition,
            ": abort, finish",
        ),
        (
            [RolloutSignal.ADVANCE] * len(CANARY.steps),
            IllegalTransition,
            "last step",
        ),
        ([RolloutSignal.FINISH], IllegalTransition, "only a bake"),
        ([RolloutSignal.HARM], InputError, "only the evidence"),
        ([RolloutSignal.PROVEN], InputError, "only the evidence"),
        ([RolloutSignal.STEP_DONE], InputError, "only the evidence"),
    ],
    ids=str,
)
def test_a_hand_that_comes_at_the_wrong_time_is_told_what_it_can_do(
    baking: SmallInstallation,
    hands: list[RolloutSignal],
    error: type[Exception],
    words: str,
) -> None:
    in_canary(baking)
    *before, last = hands
    for signal in before:
        operations.operate(baking.context(), BEN, "chat", signal, "a drill")
    with pytest.raises(error, match=words):
        operations.operate(baking.context(), BEN, "chat", last, "a drill")


def test_without_a_bake_a_promotion_is_the_end(world: SmallInstallation) -> None:
    promoted(world)
    assert world.route().holdback is None
    with pytest.raises(NotFound):
        operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "a drill")
    assert not canary_status.list_canaries(world.context())
