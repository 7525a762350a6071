"""Ends alerts without a cause, and delivers messages from the outbox.

The code that detects a cause raises the alert. The rules of its states and retries are pure, in
`harness.frame.alerts`. The sinks are adapters in `harness.app`. Several processes may deliver
at once: each claims a message before it sends it.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from harness.agents.records import SwitchRequests
from harness.agents.switch_request import (
    AGENT_WRITTEN_FACTS,
    SwitchState,
    inert_text,
    switch_lines,
)
from harness.evals.users_turn import find_users_turn
from harness.frame.alerts.alert import NO_SINK, AlertKind, Severity
from harness.frame.alerts.alert_record import (
    AlertMessage,
    AlertRecord,
    Delivery,
    Notified,
    alert_message,
    claim_delivery,
    delivery_jitter,
    drop_silent_sources,
    due_message,
    mark_delivered,
    mark_failed,
    resolve_record,
)
from harness.frame.alerts.alerts import queue_message, resolution_of
from harness.frame.alerts.records import Alerts, Deliveries
from harness.frame.errors import DeliveryFailed, NotFound, SignatureInvalid
from harness.frame.people.access import Actor, Role
from harness.frame.ports import AlertSinks
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import RolloutState
from harness.operations.context import Context
from harness.proposals.labels import label_verdicts
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.router_reports import RouterReports
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns

log = structlog.get_logger("swapproof.alerts")

# The alert of a router's fault outside a canary ends after this time without a new report.
ROUTER_FAULT_SILENCE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """The result of sending one message to one sink."""

    sink: str
    delivered: bool
    error: str  # empty if the sink accepted the message


def run_once(ctx: Context) -> None:
    """Ends alerts without a cause, puts due messages into the outbox, and sends due
    deliveries.
    """
    _resolve_finished(ctx)
    if ctx.sinks is not None and ctx.sinks.names():
        _queue(ctx, ctx.sinks)
        _send_due(ctx, ctx.sinks)


def send_test(ctx: Context, actor: Actor) -> Sequence[DeliveryAttempt]:
    """Sends a test message to every sink. Needs an admin. Raises NotAllowed, NotFound."""
    actor.require(Role.ADMIN)
    if ctx.sinks is None or not ctx.sinks.names():
        raise NotFound(NO_SINK)
    now = ctx.clock.now()
    id_ = ctx.chance.token("al_")
    message = AlertMessage(
        id=f"{id_}.1",
        alert=id_,
        kind=AlertKind.TEST,
        severity=Severity.INFO,
        state=Notified.RAISED,
        subject="alerts",
        title="a test of Swapproof's alerts",
        text=f"{actor.name} sent this test. Real alerts go to the same readers.",
        next_step="nothing: this is a test",
        first_seen=now,
        last_seen=now,
        count=1,
    )
    return [_attempt_delivery(ctx.sinks, sink, message) for sink in ctx.sinks.names()]


def _attempt_delivery(
    sinks: AlertSinks,
    sink: str,
    message: AlertMessage,
) -> DeliveryAttempt:
    """Sends a message now. A refusal of the sink becomes part of the result, not an error."""
    try:
        sinks.send(sink, message)
    except DeliveryFailed as error:
        return DeliveryAttempt(sink, delivered=False, error=str(error))
    return DeliveryAttempt(sink, delivered=True, error="")


def _resolve_finished(ctx: Context) -> None:
    """Ends alerts that their source cannot end, such as a dead worker's alerts."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        open_alerts = [alert for alert in Alerts(tx).unsettled() if alert.open]
        oldest = RouterReports(tx).oldest(now)
        served_since = oldest.began_at if oldest is not None else None
        ended_keys = {alert.key for alert in open_alerts if _is_over(tx, alert, now)}
        ended_keys |= {
            alert.key
            for alert in open_alerts
            if not drop_silent_sources(alert, now, served_since).open
        }
    for key in sorted(ended_keys):
        with ctx.store.write() as tx:
            record = Alerts(tx).newest(key)
            if record is None or not record.open:
                continue
            without_silent = drop_silent_sources(record, now, served_since)
            if not without_silent.open:
                Alerts(tx).save(without_silent)
            elif _is_over(tx, record, now):
                if record.kind is AlertKind.INTERNAL_ERROR:
                    # Routers raise this alert, but do not end it.
                    Alerts(tx).save(resolve_record(record, now))
                else:
                    Alerts(tx).fold([resolution_of(record, now)])


def _is_over(  # noqa: PLR0911 - a table
    tx: Transaction,
    record: AlertRecord,
    now: datetime,
) -> bool:
    """Tells whether an alert's cause is gone, by the kind of the alert.

    Lists only kinds whose source cannot end them. The sources of other kinds report the end
    themselves. An alert about a deleted row is over.
    """
    cause_id = record.key.partition(":")[2]
    if record.kind is AlertKind.INTERNAL_ERROR and cause_id == record.subject:
        return now - record.last_seen >= ROUTER_FAULT_SILENCE  # the fault concerns no rollout
    try:
        match record.kind:
            case AlertKind.AWAITING_APPROVAL:
                proposal = Proposals(tx).get(cause_id)
                return proposal.phase is not ProposalPhase.AWAITING_APPROVAL or bool(
                    proposal.approver
                )
            case AlertKind.EVAL_WAITS | AlertKind.LABELS_WAIT as kind:
                return _is_wait_over(tx, kind, Proposals(tx).get(cause_id), now)
            case AlertKind.MODEL_SWITCH:
                request = SwitchRequests(tx).get(cause_id)
                return request.state_at(now) is not SwitchState.PENDING
            case AlertKind.BREAK_GLASS:
                # Reads the route, because `BreakGlasses` would refuse a forged row, and the
                # alert would never end.
                route = Routing(tx).route(record.subject.removeprefix("route "))
                return route is None or route.break_glass != cause_id
            case AlertKind.CANARY_PAUSED:
                return Rollouts(tx).get(cause_id).state is not RolloutState.PAUSED
            case AlertKind.CANARY_HELD | AlertKind.SAMPLE_RATIO | AlertKind.INTERNAL_ERROR:
                rollout = Rollouts(tx).get(cause_id)
                is_baking = record.kind is not AlertKind.SAMPLE_RATIO and rollout.baking
                return not rollout.live and not is_baking
            case _:
                return False
    except NotFound:
        return True
    except SignatureInvalid:
        # An alert about a forged row stays open, and must not stop other alerts.
        return False


def _is_wait_over(
    tx: Transaction,
    kind: AlertKind,
    proposal: Proposal,
    now: datetime,
) -> bool:
    """Tells whether a comparison no longer waits for labels, or for a provider or callers."""
    if kind is AlertKind.LABELS_WAIT:
        return label_verdicts.find_wait(tx, proposal) is None
    if proposal.phase is not ProposalPhase.EVALUATING:
        return True
    pairs = proposal.runs.values()
    ids = [id_ for pair in pairs for id_ in (pair.incumbent, pair.candidate)]
    runs = [EvalRuns(tx).get(id_) for id_ in ids]
    is_away = any(run.waits_since for run in runs)
    return not (is_away or find_users_turn(tx, runs, now))


def _queue(ctx: Context, sinks: AlertSinks) -> None:
    """Puts the due message of each alert into the outbox, for each sink that takes its kind."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        keys = {alert.key for alert in Alerts(tx).unsettled() if due_message(alert, now)}
    for key in sorted(keys):
        with ctx.store.write() as tx:
            record = Alerts(tx).newest(key)
            due = due_message(record, now) if record is not None else None
            if record is None or due is None:
                continue
            accepting_sinks = [sink for sink in sinks.names() if sinks.takes(sink, record.kind)]
            queue_message(tx, record, due, accepting_sinks)


def _send_due(ctx: Context, sinks: AlertSinks) -> None:
    """Sends the messages that are due now, in each sink's order."""
    with ctx.store.read() as tx:
        due = Deliveries(tx).due(ctx.clock.now())
        records = {delivery.alert: Alerts(tx).get(delivery.alert) for delivery in due}
    by_sink: dict[str, list[Delivery]] = {}
    for delivery in due:
        by_sink.setdefault(delivery.sink, []).append(delivery)
    if not by_sink:
        return
    # Each sink has its own thread, so that a sink that hangs does not delay the others.
    with ThreadPoolExecutor(max_workers=len(by_sink)) as pool:
        list(
            pool.map(
                lambda waiting: _send(ctx, sinks, waiting, records),
                by_sink.values(),
            )
        )


def _send(
    ctx: Context,
    sinks: AlertSinks,
    waiting: Iterable[Delivery],
    records: Mapping[str, AlertRecord],
) -> None:
    """Sends deliveries in order. Stops if a delivery fails, or if another process sends it."""
    for delivery in waiting:
        claimed = claim_delivery(delivery, ctx.clock.now())
        with ctx.store.write() as tx:
            if not Deliveries(tx).replace(delivery, claimed):
                return
        record = records[delivery.alert]
        without_question = alert_message(delivery, record, dashboard_url=ctx.dashboard_url)
        message = _add_question(ctx, record, without_question)
        attempt = _attempt_delivery(sinks, delivery.sink, message)
        now = ctx.clock.now()
        error = attempt.error
        after_attempt = mark_delivered(delivery, now)
        if not attempt.delivered:
            after_attempt = mark_failed(delivery, now, error, uniform=delivery_jitter(delivery))
        with ctx.store.write() as tx:
            Deliveries(tx).replace(claimed, after_attempt)
        if not attempt.delivered:
            log.warning(
                "alert_not_delivered",
                alert=delivery.alert,
                sink=delivery.sink,
                attempts=after_attempt.attempts,
                given_up=after_attempt.gave_up_at is not None,
                error=error,
            )
            return


def _add_question(
    ctx: Context,
    record: AlertRecord,
    message: AlertMessage,
) -> AlertMessage:
    """Adds the question and the decision link to the message of a pending model switch. The
    stored alert must not contain them, because it outlives the transcript.
    """
    if record.kind is not AlertKind.MODEL_SWITCH or message.state is not Notified.RAISED:
        return message
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            request = SwitchRequests(tx).get(record.key.partition(":")[2])
    except NotFound:
        return message
    if request.state_at(now) is not SwitchState.PENDING:
        return message
    text = [message.text]
    text += [
        f"{title}: {inert_text(value) if title in AGENT_WRITTEN_FACTS else value}"
        for title, value in switch_lines(request, now)
    ]
    if ctx.approval_links is not None:
        text.append(f"Decide: {ctx.approval_links.link(request)}")
    return replace(message, text="\n".join(text))
