from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.store.store import Store
from harness.canary import operations
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind, Severity
from harness.frame.alerts.alert_record import (
    GIVE_UP_AFTER,
    AlertRecord,
    Notified,
)
from harness.frame.alerts.records import Alerts, Deliveries
from harness.frame.errors import NotAllowed, NotFound, StoreUnavailable
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.online.rollout import RolloutSignal
from harness.operations import (
    alert_delivery,
    control_jobs,
    integrity,
    queries,
)
from harness.operations.control_jobs import (
    REST_S,
    MonitoredJob,
    RestingJob,
    forget_removed_jobs,
)
from harness.proposals import decisions, fallback_chain
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from harness.routing.records.router_reports import RouterReport, RouterReports
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.router_rows import block_of
from tests.support.control.short_policies import approved
from tests.support.site.signing_keys import CONTROL
from tests.support.store.tampering import owned


def open_alerts(world: SmallInstallation) -> list[AlertRecord]:
    with world.store.read() as tx:
        return list(Alerts(tx).list(open_only=True))


def all_kinds(world: SmallInstallation) -> list[AlertKind]:
    with world.store.read() as tx:
        return [alert.kind for alert in Alerts(tx).list()]


def sent_messages(
    world: SmallInstallation, sink: str = "chat"
) -> list[tuple[AlertKind, Notified]]:
    return [(message.kind, message.state) for message in world.sinks.kept[sink]]


def deliver(world: SmallInstallation, turns: int = 1) -> None:
    for _ in range(turns):
        alert_delivery.run_once(world.context())


@pytest.mark.req("B9", "F3")
def test_a_rollback_is_told_as_critical(world: SmallInstallation) -> None:
    world.decided("sim/better")
    for _ in range(20):
        world.feed(failing=True)
        world.run_once()

    deliver(world, 3)

    assert sent_messages(world) == [(AlertKind.ROLLED_BACK, Notified.RAISED)]
    (message,) = world.sinks.kept["chat"]
    assert message.severity is Severity.CRITICAL
    assert "sim/base serves all callers again, sim/better serves no caller" in message.text
    assert "Evidence of harm: 100 %" in message.text


@pytest.mark.req("B9", "C4")
def test_what_waits_for_approval_is_told_and_then_that_it_no_longer_does(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    proposal = world.decided("sim/better")
    deliver(world)
    assert sent_messages(world) == [(AlertKind.AWAITING_APPROVAL, Notified.RAISED)]
    assert proposal.id in world.sinks.kept["chat"][0].title

    decisions.approve_proposal(world.context(), BEN, proposal.id)
    deliver(world)

    assert sent_messages(world)[1:] == [(AlertKind.AWAITING_APPROVAL, Notified.RESOLVED)]
    assert world.sinks.kept["chat"][1].title.startswith("resolved: ")
    assert world.sinks.kept["chat"][1].next_step == ""


@pytest.mark.req("B9")
def test_a_forged_row_keeps_its_alert_open_and_no_other_from_being_told(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    proposal = world.decided("sim/better")
    with owned(world.store) as db:
        db.execute(sa.text("UPDATE proposal SET reason = 'forged'"))

    deliver(world)

    assert sent_messages(world) == [(AlertKind.AWAITING_APPROVAL, Notified.RAISED)]
    assert alerts.is_open(world.context(), AlertKind.AWAITING_APPROVAL, proposal.id)


@pytest.mark.req("B9")
def test_a_sink_that_is_down_gets_its_messages_once_it_is_back_and_in_order(
    world: SmallInstallation,
) -> None:
    world.sinks.down.add("chat")
    world.decided("sim/better")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PAUSE, "let me look")
    deliver(world)
    operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "a drill")
    for _ in range(5):
        deliver(world)
        world.clock.advance(60)
    assert len(world.sinks.kept["mail"]) == 2
    (listed,) = queries.list_alerts(world.context())
    assert (listed.delivered, listed.waiting) == (2, 2)
    assert "does not answer" in listed.last_error

    world.sinks.down.clear()
    for _ in range(2):
        world.clock.advance(15 * 60)
        deliver(world)

    assert [state for _, state in sent_messages(world)] == [
        Notified.RAISED,
        Notified.RESOLVED,
    ]
    deliver(world, 3)
    assert len(world.sinks.kept["mail"]) == 2


@pytest.mark.req("B9")
def test_after_days_a_delivery_is_given_up_and_its_row_says_so(
    world: SmallInstallation,
) -> None:
    world.sinks.down.add("chat")
    world.decided("sim/better")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PAUSE, "let me look")
    deliver(world)
    world.clock.advance(GIVE_UP_AFTER.total_seconds())
    deliver(world)

    with world.store.read() as tx:
        (record,) = Alerts(tx).list()
        deliveries = Deliveries(tx).for_alert(record.id)
    (first,) = [
        delivery for delivery in deliveries if (delivery.sink, delivery.number) == ("chat", 1)
    ]
    assert (first.gave_up_at, first.attempts) == (world.clock.now(), 2)
    assert "does not answer" in first.last_error


@pytest.mark.req("F5")
def test_a_broken_audit_chain_is_told_once_until_it_is_whole(world: SmallInstallation) -> None:
    ctx = world.context()
    other = SmallInstallation(
        world.folder,
        Store(
            _url(world),
            secret=b"o",
            clock=world.clock,
            signatures=CONTROL,
        ),
    )
    for _ in range(3):
        integrity.check_audit_log(other.context())
    (record,) = open_alerts(world)
    assert (record.kind, record.count) == (AlertKind.AUDIT_BROKEN, 1)

    other.store.close()

    integrity.check_audit_log(ctx)

    assert open_alerts(world) == []


def _url(world: SmallInstallation) -> str:
    return world.store._url.render_as_string(hide_password=False)


@pytest.mark.req("A7", "B9")
def test_an_expired_waiver_is_told_until_its_target_is_out_of_the_chain(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    ada = Actor("ada", Role.ADMIN, "pr_ada")
    wanted = FallbackRequest(
        "sim/equal",
        waive=WaiverRequest("not measured yet", timedelta(days=1)),
    )
    fallback_chain.add_fallback(ctx, ada, "chat", wanted, reason="a spare")
    fallback_chain.update_waiver_alerts(ctx)
    assert open_alerts(world) == []

    world.clock.advance(timedelta(days=1).total_seconds())
    for _ in range(3):
        fallback_chain.update_waiver_alerts(ctx)
    (record,) = open_alerts(world)
    assert (record.kind, record.count) == (AlertKind.WAIVER_EXPIRED, 1)
    assert "sim/equal" in record.title
    assert "ada gave the waiver for this reason: not measured yet" in record.text

    fallback_chain.remove_fallback(ctx, ada, "chat", "sim/equal", reason="it expired")
    fallback_chain.update_waiver_alerts(ctx)
    assert open_alerts(world) == []


def test_a_job_that_fails_is_told_until_it_goes_well_again(world: SmallInstallation) -> None:
    ctx = world.context()
    broken = [True]

    def job(_: object) -> None:
        if broken[0]:
            raise StoreUnavailable("the disk is full")

    watched = partial(MonitoredJob("reconcile", job), ctx)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            watched()
    (record,) = open_alerts(world)
    assert (record.kind, record.count) == (AlertKind.JOB_FAILED, 2)
    assert "the disk is full" in record.text

    broken[0] = False
    MonitoredJob("reconcile", job)(ctx)

    assert open_alerts(world) == []


def test_the_alert_of_scheduled_evals_ends_when_the_configuration_drops_them(
    world: SmallInstallation,
) -> None:
    def job(_: object) -> None:
        raise StoreUnavailable("the disk is full")

    ctx = world.context()
    for name in ("evals of colours", "evals of tickets", "reconcile"):
        with pytest.raises(StoreUnavailable):
            MonitoredJob(name, job)(ctx)

    forget_removed_jobs(ctx, {"colours"})

    subjects = {record.subject for record in open_alerts(world)}
    assert subjects == {"job evals of colours", "job reconcile"}


def test_a_job_without_work_rests_until_something_is_committed_or_a_while_has_passed(
    tmp_path: Path,
) -> None:
    world = SmallInstallation(tmp_path)
    world.set_up()
    ctx = world.context()
    idle = [False, True, True, True, True]
    job = RestingJob(lambda _: idle.pop())

    def runs() -> int:
        left = len(idle)
        job(ctx)
        return left - len(idle)

    assert [runs(), runs()] == [1, 0]
    world.propose()
    assert [runs(), runs()] == [1, 0]
    world.clock.advance(REST_S)
    assert [runs(), runs()] == [1, 0]
    world.clock.advance(REST_S)
    assert [runs(), runs()] == [1, 0]
    world.clock.advance(REST_S)
    assert runs() == 1, "and it finds work"
    idle.append(True)
    assert runs() == 1, "so that it looks at once again"


def test_the_loop_is_idle_only_when_nothing_is_under_way(tmp_path: Path) -> None:
    world = SmallInstallation(tmp_path)
    world.set_up()
    ctx = world.context()

    def turns_with_work() -> int:
        return next(turn for turn in range(20) if world.run_once(ctx).is_idle)

    turns_with_work()
    proposal = world.propose("sim/worse")

    assert turns_with_work() > 0
    assert not world.get(proposal.id).open


@pytest.mark.req("F3")
def test_a_share_that_is_not_the_planned_one_is_told_once(world: SmallInstallation) -> None:
    world.decided("sim/better")
    with world.store.write() as tx:
        (rollout,) = Rollouts(tx).live()
        block = block_of(rollout, 0, world.clock, failing=False)
        Observations(tx).append(
            [replace(block, sequence=n, canary_units=30) for n in range(1, 4)],
            [],
        )
    world.run_once(turns=3)

    (record,) = open_alerts(world)
    assert (record.kind, record.count) == (AlertKind.SAMPLE_RATIO, 1)
    assert "Planned: 1 %" in record.text
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "a drill")
    deliver(world)
    assert open_alerts(world) == []


def raise_of_worker(world: SmallInstallation) -> Alert:
    """Returns the alert of a worker, which reports it a second time and then ends."""
    opened = Alert(
        AlertKind.BREAKER_OPEN,
        "target a/b",
        "breaker_open:t",
        "t",
        "x",
        world.clock.now(),
        "w",
    )
    with world.store.write() as tx:
        Alerts(tx).fold([opened])
    world.clock.advance(200)
    with world.store.write() as tx:
        Alerts(tx).fold([opened.now(AlertEvent.STILL, world.clock.now())])
    return opened


def serve_for(world: SmallInstallation, seconds: float, began_at: datetime) -> None:
    """Lets a router serve on, which reports that at the end."""
    world.clock.advance(seconds)
    with world.store.write() as tx:
        RouterReports(tx).keep(RouterReport("router", began_at, world.clock.now()))


@pytest.mark.req("A6")
def test_a_worker_that_died_does_not_keep_its_alert_open_for_ever(
    world: SmallInstallation,
) -> None:
    began_at = world.clock.now()
    raise_of_worker(world)
    serve_for(world, 200, began_at)
    deliver(world)
    assert len(open_alerts(world)) == 1
    serve_for(world, 200, began_at)
    deliver(world)
    world.clock.advance(30)
    deliver(world)

    assert sent_messages(world) == [
        (AlertKind.BREAKER_OPEN, Notified.RAISED),
        (AlertKind.BREAKER_OPEN, Notified.RESOLVED),
    ]


@pytest.mark.req("A6")
def test_a_shutdown_of_all_routers_ends_no_alert_and_a_router_without_the_cause_does(
    world: SmallInstallation,
) -> None:
    with world.store.write() as tx:
        RouterReports(tx).forget("router")
    raise_of_worker(world)
    world.clock.advance(timedelta(days=2).total_seconds())
    deliver(world)
    assert len(open_alerts(world)) == 1

    began_at = world.clock.now()
    serve_for(world, 230, began_at)
    deliver(world)
    assert len(open_alerts(world)) == 1
    serve_for(world, 20, began_at)
    deliver(world)
    assert open_alerts(world) == []


def test_a_test_goes_through_every_sink_and_says_what_happened(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    world.sinks.down.add("mail")

    tried = alert_delivery.send_test(ctx, SYSTEM)

    assert [(attempt.sink, attempt.delivered) for attempt in tried] == [
        ("chat", True),
        ("mail", False),
    ]
    assert "does not answer" in tried[1].error
    assert all_kinds(world) == []
    with pytest.raises(NotAllowed):
        alert_delivery.send_test(ctx, Actor("vera", Role.APPROVER, "pr_vera"))


def test_without_a_sink_alerts_are_kept_and_a_test_says_what_to_do(
    world: SmallInstallation,
) -> None:
    world.sinks.kept.clear()
    world.decided("sim/better")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PAUSE, "let me look")
    deliver(world)

    (record,) = open_alerts(world)
    assert record.notified is None
    with pytest.raises(NotFound, match=r"alerts\.sinks"):
        alert_delivery.send_test(world.context(), SYSTEM)


def test_old_alerts_and_failovers_are_forgotten(world: SmallInstallation) -> None:
    world.decided("sim/better")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PAUSE, "let me look")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "a drill")
    deliver(world)
    world.clock.advance(timedelta(days=31).total_seconds())

    control_jobs.purge_expired(
        world.context(),
        alerts_days=30,
        exposures_days=30,
        failovers_days=30,
        traffic_days=400,
    )

    assert all_kinds(world) == []
