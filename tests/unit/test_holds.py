from datetime import timedelta
from pathlib import Path

import pytest

from harness.canary import decision, operations
from harness.canary import status as canary_status
from harness.canary.audit import RolloutTransaction
from harness.canary.duration_estimate import estimate_for_route
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import ActionKind, ReasonCode, RolloutSignal
from harness.gate.online.rollout_action import RolloutAction
from harness.interfaces.cli.canary_facts import rollout_facts
from harness.operations import alert_delivery, control_jobs
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import BEN
from tests.support.control.router_rows import block_of

pytestmark = pytest.mark.req("F3")


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    clock = ManualClock()
    made = SmallInstallation(tmp_path, clock=clock)
    made.set_up()
    made.in_canary()
    return made


def requests(
    world: SmallInstallation,
    number: int,
    *,
    minutes_ago: int = 0,
    arm: str = "incumbent",
    worker: str = "w",
) -> None:
    minute = world.clock.now().replace(second=0, microsecond=0)
    row = TrafficMinute(
        world.rollout().route,
        minute - timedelta(minutes=minutes_ago),
        f"{worker}{minutes_ago}",
        arm,
        "t",
        1,
        number,
        0,
        0,
        0,
        0,
        0,
        0.0,
    )
    with world.store.write() as tx:
        Observations(tx).append([], [row])


def up_to_the_next_step(world: SmallInstallation) -> None:
    """Enough exposures: the next look would advance."""
    world.feed(blocks=4)
    world.run_once()
    assert decide_action(world, world.context()).kind.value == "advance"


def decide_action(world: SmallInstallation, ctx: object) -> RolloutAction:
    return decision.decide(ctx, world.rollout())  # type: ignore[arg-type]


def test_where_routers_fall_silent_it_holds_tells_once_and_goes_on(
    world: SmallInstallation,
) -> None:
    up_to_the_next_step(world)
    ctx = world.context()
    requests(world, 3000)
    world.clock.advance(125)

    for _ in range(3):
        action = decide_action(world, ctx)
        assert action.code is ReasonCode.HELD
        assert action.reason.startswith("No router has recorded traffic of this route")
        control_jobs.reconcile(ctx)
        world.clock.advance(3600)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, world.rollout().id)
    assert world.rollout().step == 0

    requests(world, 50)
    control_jobs.reconcile(ctx)
    assert world.rollout().step == 1
    control_jobs.reconcile(ctx)
    assert not alerts.is_open(ctx, AlertKind.CANARY_HELD, world.rollout().id)


def test_a_canary_with_over_3_times_its_share_of_the_requests_holds_and_says_why(
    world: SmallInstallation,
) -> None:
    up_to_the_next_step(world)
    ctx = world.context()
    share = world.rollout().current.weight_bps / 10_000
    canary = int(10_000 * 3 * share)
    requests(world, 10_000 - canary)
    requests(world, canary, arm="canary")
    assert decide_action(world, ctx).kind.value == "advance"

    requests(world, 10, arm="canary")
    assert "of the route's requests" in decide_action(world, ctx).reason
    control_jobs.reconcile(ctx)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, world.rollout().id)
    assert world.rollout().step == 0


def test_the_plan_and_the_status_name_a_key_that_carries_too_many_requests(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    route = world.rollout().route
    text = "98 % of the requests carry one key (user:shop)."
    kind = AlertKind.SHARED_KEY
    with world.store.write() as tx:
        alerts.raise_alert(
            tx,
            kind,
            route,
            subject=f"route {route}",
            title="t",
            text=text,
        )

    (status,) = canary_status.list_canaries(ctx, route=route)
    assert ("one key", text) in rollout_facts(status)
    assert estimate_for_route(ctx, route).words.endswith(text)


def test_the_plan_of_a_route_that_litellm_splits_says_what_is_seen_and_how_fast(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    route = world.rollout().route
    requests(world, 10_000)
    assert "LiteLLM" not in estimate_for_route(ctx, route).words

    requests(world, 50_000, worker="litellm-")

    words = estimate_for_route(ctx, route).words
    assert "If all requests to the candidate fail at 1 %, 2 of them" in words
    assert "LiteLLM splits this route" in words
    assert "up to 2 min pass until the gateway's logs are evidence" in words


def test_a_quiet_route_is_no_gap(world: SmallInstallation) -> None:
    up_to_the_next_step(world)
    requests(world, 20)
    world.clock.advance(300)

    assert decide_action(world, world.context()).kind.value == "advance"


def test_a_clock_that_is_set_moves_no_canary_for_a_while(world: SmallInstallation) -> None:
    up_to_the_next_step(world)
    ctx = world.context()
    decide_action(world, ctx)
    world.clock.jump(3600)

    assert "clock was set" in decide_action(world, ctx).reason
    world.clock.advance(121)
    world.feed()
    assert decide_action(world, ctx).kind.value == "advance"


def test_blocks_from_the_future_move_no_canary(world: SmallInstallation) -> None:
    up_to_the_next_step(world)
    with world.store.read() as tx:
        blocks = Observations(tx).blocks(world.rollout().id)
    now = blocks[-1].closed_at

    assert "1 h in the future" in decision.describe_clock_skew(blocks, now - timedelta(hours=1))
    assert decision.describe_clock_skew(blocks, now) == ""


def test_a_step_does_not_end_by_a_clock_that_is_set(world: SmallInstallation) -> None:
    ctx = world.context()
    decide_action(world, ctx)
    world.clock.jump(world.rollout().current.deadline_s + 60)

    assert "the step has not lasted long enough" in decide_action(world, ctx).reason
    world.clock.advance(world.rollout().current.deadline_s)
    assert decide_action(world, ctx).kind.value == "pause"


def test_a_canary_without_traffic_on_a_route_that_has_it_is_told_early(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    world.clock.advance(700)
    requests(world, 900)

    control_jobs.reconcile(ctx)

    with world.store.read() as tx:
        alert = Alerts(tx).newest(f"canary_held:{world.rollout().id}")
    assert alert is not None
    assert "900 requests since the step began, but no caller of the canary" in alert.text


def test_a_router_with_an_old_snapshot_holds_the_next_step(world: SmallInstallation) -> None:
    ctx = world.context()
    up_to_the_next_step(world)
    old = world.rollout()
    control_jobs.reconcile(ctx)
    assert world.rollout().step == 1
    world.clock.advance(130)
    world.feed(blocks=4)
    world.run_once(ctx)
    with world.store.write() as tx:
        Observations(tx).append([block_of(old, 500, world.clock, failing=False)], [])

    assert "still assigns 1 %, but the step has 5 %" in decide_action(world, ctx).reason


def test_where_a_time_comes_again_old_rows_pass_for_no_news(world: SmallInstallation) -> None:
    ctx = world.context()
    up_to_the_next_step(world)
    world.clock.advance(900)
    requests(world, 3000)
    decide_action(world, ctx)
    world.clock.jump(-600)
    decide_action(world, ctx)
    world.clock.advance(300)
    requests(world, 50)
    world.feed()
    assert "old and new rows look alike" in decide_action(world, ctx).reason

    world.clock.advance(300)
    requests(world, 50)
    world.feed()
    assert (
        "old and new rows look alike" in decide_action(world, ctx).reason
    )  # by their minute, still

    world.clock.advance(180)
    requests(world, 50)
    world.feed()
    assert decide_action(world, ctx).kind.value == "advance"


def test_a_control_process_that_began_after_the_clock_was_set_back_sees_it(
    world: SmallInstallation,
) -> None:
    up_to_the_next_step(world)
    world.clock.advance(900)
    requests(world, 3000)
    world.clock.jump(-600)
    world.feed()

    young = world.context()
    assert "rows up to" in decide_action(world, young).reason

    world.clock.advance(600)
    requests(world, 50)
    world.feed()
    assert decide_action(world, young).kind.value == "advance"


def test_who_is_silent_since_before_the_first_block_is_silent_all_the_same(
    world: SmallInstallation,
) -> None:
    requests(world, 3000)
    rollout = world.rollout()
    world.clock.advance(3 * 3600)

    with world.store.read() as tx:
        said = decision._distrust_reason(RolloutTransaction(world.context(), tx, rollout))
    assert "no router has recorded traffic of this route" in said


def test_an_alert_that_was_told_before_the_clock_was_set_back_still_ends(
    world: SmallInstallation,
) -> None:
    up_to_the_next_step(world)
    ctx = world.context()
    requests(world, 3000)
    world.clock.advance(125)
    control_jobs.reconcile(ctx)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, world.rollout().id)

    world.clock.jump(-3600)
    with world.store.write() as tx:
        alerts.resolve_alert(tx, AlertKind.CANARY_HELD, world.rollout().id)
    assert not alerts.is_open(ctx, AlertKind.CANARY_HELD, world.rollout().id)


def router_fails(
    world: SmallInstallation,
    about: str,
    subject: str = "route chat",
) -> None:
    kind = AlertKind.INTERNAL_ERROR
    now = world.clock.now()
    key = f"{kind.value}:{about}"
    alert = Alert(
        kind,
        subject,
        key,
        "the router failed",
        "KeyError in a.py:7",
        now,
        "w1",
    )
    with world.store.write() as tx:
        Alerts(tx).fold([alert])


@pytest.mark.req("F2")
def test_after_a_fault_of_a_router_it_holds_until_a_person_looked(
    world: SmallInstallation,
) -> None:
    up_to_the_next_step(world)
    ctx = world.context()
    rollout = world.rollout()
    router_fails(world, rollout.id)

    assert "swapproof canary resume" in decide_action(world, ctx).reason
    world.clock.advance(3600)
    for _ in range(3):
        requests(world, 50)
        control_jobs.reconcile(ctx)
        alert_delivery.run_once(ctx)
    assert (world.rollout().step, decide_action(world, ctx).kind) == (
        0,
        ActionKind.HOLD,
    )

    with pytest.raises(InputError, match="reason"):
        operations.operate(ctx, BEN, "chat", RolloutSignal.RESUME, " ")
    after = operations.operate(
        ctx, BEN, "chat", RolloutSignal.RESUME, "a known bug, mended"
    ).rollout
    assert (after.state, after.step_started_at) == (
        rollout.state,
        rollout.step_started_at,
    )
    control_jobs.reconcile(ctx)
    assert world.rollout().step == 1
    with world.store.read() as tx:
        (event,) = [e for e in AuditLog(tx).all() if e.action == "canary.acknowledge"]
    assert "a known bug, mended" in str(event.details["reason"])

    router_fails(world, rollout.id)
    assert alerts.is_open(ctx, AlertKind.INTERNAL_ERROR, rollout.id)


@pytest.mark.req("F2")
def test_status_says_that_faults_hold_it_how_many_and_why(world: SmallInstallation) -> None:
    ctx = world.context()
    rollout = world.rollout()
    assert canary_status.explain_canary(ctx, "chat").status.hold_reasons == []
    for _ in range(3):
        router_fails(world, rollout.id)
        world.clock.advance(1)

    status = canary_status.explain_canary(ctx, "chat").status
    (why,) = status.hold_reasons
    assert why == status.faults
    for text in (
        "Routers failed 3 times",
        "KeyError in a.py:7",
        "swapproof canary resume",
    ):
        assert text in why
    facts = dict(rollout_facts(status))
    assert facts["state"] == "on hold at 1 %"
    assert str(facts["why"]) in why
    operations.operate(ctx, BEN, "chat", RolloutSignal.RESUME, "a known bug, mended")
    assert canary_status.explain_canary(ctx, "chat").status.hold_reasons == []


def test_a_fault_of_a_router_holds_no_harm_back(world: SmallInstallation) -> None:
    world.feed(blocks=8, failing=True)
    router_fails(world, world.rollout().id)
    action = decide_action(world, world.context())
    assert action.signal is RolloutSignal.HARM


def test_a_fault_of_a_router_is_over_with_its_rollout_or_by_silence(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    rollout = world.rollout()
    router_fails(world, rollout.id)
    router_fails(world, "route other", "route other")
    alert_delivery.run_once(ctx)
    with world.store.read() as tx:
        (reason,) = decision.list_hold_reasons(tx, rollout)
    assert reason.startswith("Routers failed once in requests of this route")
    operations.operate(ctx, BEN, "chat", RolloutSignal.ABORT, "enough")
    with world.store.read() as tx:
        assert decision.list_hold_reasons(tx, Rollouts(tx).get(rollout.id)) == ()

    alert_delivery.run_once(ctx)
    assert not alerts.is_open(ctx, AlertKind.INTERNAL_ERROR, rollout.id)
    assert alerts.is_open(ctx, AlertKind.INTERNAL_ERROR, "route other")
    world.clock.advance(3600)
    alert_delivery.run_once(ctx)
    assert not alerts.is_open(ctx, AlertKind.INTERNAL_ERROR, "route other")
