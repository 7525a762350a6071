"""Opens and ends alerts beside the decision that they tell of, in its unit of work. Whether
anybody can be reached is not part of it: `run_once` delivers them from the outbox.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.world import World
from harness.domain.agents.switch_request import (
    AGENTS_WORDS,
    SwitchState,
    inert_text,
    switch_lines,
)
from harness.domain.canary.rollout import RolloutState
from harness.domain.errors import DeliveryFailed, NotFound, SignatureInvalid
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.alert_record import (
    AlertRecord,
    Notified,
    drop_silent_sources,
    due_message,
    mark_notified,
    resolve_record,
)
from harness.domain.operations.alerts import NO_SINK, Alert, AlertEvent, AlertKind, Severity
from harness.domain.operations.delivery import (
    AlertMessage,
    Delivery,
    alert_message,
    claim_delivery,
    delivery_jitter,
    find_alert_page,
    mark_delivered,
    mark_failed,
    new_delivery,
)
from harness.domain.proposals.proposal import ProposalPhase
from harness.ports import AlertSinks
from harness.store.sql.agents import SwitchRequests
from harness.store.sql.evals import EvalRuns
from harness.store.sql.operations import Alerts, Deliveries
from harness.store.sql.proposals import Proposals, Rollouts
from harness.store.sql.routing import Routing
from harness.store.transaction import Transaction

log = structlog.get_logger("swapgate.alerts")

SOURCE: Final = "control"
# Without a canary nobody has to say that a fault of the router's is over.
ROUTER_FAULT_SILENCE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AlertView:
    id: str
    kind: AlertKind
    severity: Severity
    open: bool
    subject: str
    title: str
    text: str
    next_step: str
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None
    count: int
    delivered: int  # delivered, waiting, given_up: counts of its messages
    waiting: int
    given_up: int
    last_error: str
    page: str  # of the dashboard, where it is looked at, such as `/compare?id=p_1`

    @property
    def message_counts(self) -> str:
        """Counts its messages in words: `1 sent, 2 waiting`; empty without one."""
        counts = {"sent": self.delivered, "waiting": self.waiting, "given up": self.given_up}
        return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    sink: str
    delivered: bool
    error: str  # empty when the sink took it


def raise_alert(
    tx: Transaction,
    kind: AlertKind,
    about: str,
    *,
    subject: str,
    title: str,
    text: str,
    news: AlertEvent = AlertEvent.RAISED,
) -> None:
    """Opens an alert. about: the id that tells this cause from others of its kind."""
    key = f"{kind.value}:{about}"
    Alerts(tx).fold([Alert(kind, subject, key, title, text, tx.now(), SOURCE, news)])


def resolve_alert(tx: Transaction, kind: AlertKind, about: str) -> None:
    """End the alert, as its cause is over; does nothing where none is open."""
    record = Alerts(tx).newest(f"{kind.value}:{about}")
    if record is not None and record.open:
        Alerts(tx).fold([resolution_of(record, tx.now())])


def end_alert(tx: Transaction, kind: AlertKind, about: str = "") -> bool:
    """Ends the alert whatever its sources say, as where a person has looked; the next one opens
    it again. Returns whether there was one. about: empty for a kind that has one alert.
    """
    record = Alerts(tx).newest(f"{kind.value}:{about}" if about else kind.value)
    if record is None or not record.open:
        return False
    Alerts(tx).save(resolve_record(record, tx.now()))
    return True


def list_open(ctx: World, *kinds: AlertKind) -> set[tuple[AlertKind, str]]:
    with ctx.store.read() as tx:
        records = Alerts(tx).unsettled()
    return {
        (record.kind, record.key.partition(":")[2])
        for record in records
        if record.kind in kinds and record.open
    }


def is_open(ctx: World, kind: AlertKind, about: str) -> bool:
    with ctx.store.read() as tx:
        record = Alerts(tx).newest(f"{kind.value}:{about}")
    return record is not None and record.open


@dataclass(frozen=True, slots=True)
class AlertNotice:
    subject: str
    title: str
    text: str


def update_alert(ctx: World, kind: AlertKind, about: str, notice: AlertNotice | None) -> None:
    """Opens the alert once while there is a notice, and ends it where there is none."""
    if (notice is not None) == is_open(ctx, kind, about):
        return
    with ctx.store.write() as tx:
        if notice is None:
            resolve_alert(tx, kind, about)
        else:
            raise_alert(tx, kind, about, **asdict(notice))


def update_alerts(
    ctx: World,
    kinds: Collection[AlertKind],
    notices: Mapping[tuple[AlertKind, str], AlertNotice],
) -> None:
    """Opens and ends alerts of these kinds, so that each open one has a notice."""
    with ctx.store.read() as tx:
        titles = {
            (record.kind, record.key.partition(":")[2]): record.title
            for record in Alerts(tx).unsettled()
            if record.kind in kinds and record.open
        }
    for key in sorted(titles.keys() | notices.keys()):
        notice = notices.get(key)
        if notice is None or key not in titles:
            update_alert(ctx, *key, notice)
        elif notice.title != titles[key]:
            with ctx.store.write() as tx:
                raise_alert(tx, *key, **asdict(notice), news=AlertEvent.STILL)


def run_once(ctx: Context) -> None:
    """One turn: end what is over, put messages into the outbox, send what is due."""
    _resolve_finished(ctx)
    if ctx.sinks is not None and ctx.sinks.names():
        _queue(ctx, ctx.sinks)
        _send_due(ctx, ctx.sinks)


def send_test(ctx: Context, actor: Actor) -> Sequence[DeliveryAttempt]:
    """Sends one message through every sink, now. Needs an admin. Raises NotAllowed, NotFound
    without sinks.
    """
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
        title="a test of Swapgate's alerts",
        text=f"{actor.name} asked for it. Whoever reads this will hear of real ones.",
        next_step="nothing: this is a test",
        first_seen=now,
        last_seen=now,
        count=1,
    )
    return [_attempt_delivery(ctx.sinks, sink, message) for sink in ctx.sinks.names()]


def _attempt_delivery(sinks: AlertSinks, sink: str, message: AlertMessage) -> DeliveryAttempt:
    try:
        sinks.send(sink, message)
    except DeliveryFailed as error:
        return DeliveryAttempt(sink, delivered=False, error=str(error))
    return DeliveryAttempt(sink, delivered=True, error="")


def _resolve_finished(ctx: Context) -> None:
    """End what cannot say its own end: decided proposals, moved rollouts, silent workers."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        open_ = [alert for alert in Alerts(tx).unsettled() if alert.open]
        ended = {alert.key for alert in open_ if _is_over(tx, alert, now)}
        ended |= {alert.key for alert in open_ if not drop_silent_sources(alert, now).open}
    for key in sorted(ended):
        with ctx.store.write() as tx:
            record = Alerts(tx).newest(key)
            if record is None or not record.open:
                continue
            quiet = drop_silent_sources(record, now)
            if not quiet.open:
                Alerts(tx).save(quiet)
            elif _is_over(tx, record, now):
                if record.kind is AlertKind.INTERNAL_ERROR:
                    Alerts(tx).save(
                        resolve_record(record, now)
                    )  # routers raised it, and end nothing
                else:
                    Alerts(tx).fold([resolution_of(record, now)])


def _is_over(tx: Transaction, record: AlertRecord, now: datetime) -> bool:  # noqa: PLR0911 - a table
    about = record.key.partition(":")[2]
    if record.kind is AlertKind.INTERNAL_ERROR and about == record.subject:
        return now - record.last_seen >= ROUTER_FAULT_SILENCE  # of no rollout
    try:
        match record.kind:
            case AlertKind.AWAITING_APPROVAL:
                proposal = Proposals(tx).get(about)
                return proposal.phase is not ProposalPhase.AWAITING_APPROVAL or bool(
                    proposal.approver
                )
            case AlertKind.EVAL_WAITS:
                proposal = Proposals(tx).get(about)
                measured = proposal.phase is ProposalPhase.EVALUATING
                runs = [pair for pair in proposal.runs.values() if measured]
                return not any(
                    EvalRuns(tx).get(run).waits_since
                    for pair in runs
                    for run in (pair.incumbent, pair.candidate)
                )
            case AlertKind.MODEL_SWITCH:
                request = SwitchRequests(tx).get(about)
                return request.state_at(now) is not SwitchState.PENDING
            case AlertKind.BREAK_GLASS:
                # Its own row may be forged, so that nobody can end it: the route's says enough.
                route = Routing(tx).route(record.subject.removeprefix("route "))
                return route is None or route.break_glass != about
            case AlertKind.CANARY_PAUSED:
                return Rollouts(tx).get(about).state is not RolloutState.PAUSED
            case AlertKind.CANARY_HELD | AlertKind.SAMPLE_RATIO | AlertKind.INTERNAL_ERROR:
                rollout = Rollouts(tx).get(about)
                bakes = record.kind is not AlertKind.SAMPLE_RATIO and rollout.baking
                return not rollout.live and not bakes
            case _:
                return False
    except NotFound:
        return True
    except SignatureInvalid:
        # What cannot be read says no end, and keeps no other alert from being told.
        return False


def resolution_of(record: AlertRecord, now: datetime) -> Alert:
    return Alert(
        record.kind,
        record.subject,
        record.key,
        record.title,
        record.text,
        # The clock may have been set back since it was told: an end comes after.
        max(now, record.last_seen),
        SOURCE,
        AlertEvent.ENDED,
    )


def _queue(ctx: Context, sinks: AlertSinks) -> None:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        keys = {alert.key for alert in Alerts(tx).unsettled() if due_message(alert, now)}
    for key in sorted(keys):
        with ctx.store.write() as tx:
            record = Alerts(tx).newest(key)
            due = due_message(record, now) if record is not None else None
            if record is None or due is None:
                continue
            takers = [sink for sink in sinks.names() if sinks.takes(sink, record.kind)]
            queue_message(tx, record, due, takers)


def queue_message(
    tx: Transaction, record: AlertRecord, message: Notified, sinks: Iterable[str]
) -> None:
    now = tx.now()
    after = mark_notified(record, message, now)
    Alerts(tx).save(after)
    for sink in sinks:
        Deliveries(tx).add(new_delivery(after, message, sink, now))


def _send_due(ctx: Context, sinks: AlertSinks) -> None:
    with ctx.store.read() as tx:
        due = Deliveries(tx).due(ctx.clock.now())
        records = {delivery.alert: Alerts(tx).get(delivery.alert) for delivery in due}
    by_sink: dict[str, list[Delivery]] = {}
    for delivery in due:
        by_sink.setdefault(delivery.sink, []).append(delivery)
    if not by_sink:
        return
    # One thread each: a sink that hangs holds up no other.
    with ThreadPoolExecutor(max_workers=len(by_sink)) as pool:
        list(pool.map(lambda waiting: _send(ctx, sinks, waiting, records), by_sink.values()))


def _send(
    ctx: Context,
    sinks: AlertSinks,
    waiting: Iterable[Delivery],
    records: Mapping[str, AlertRecord],
) -> None:
    """In order, up to the first that fails or that another process sends: others wait."""
    for delivery in waiting:
        claimed = claim_delivery(delivery, ctx.clock.now())
        with ctx.store.write() as tx:
            if not Deliveries(tx).replace(delivery, claimed):
                return
        record = records[delivery.alert]
        plain = alert_message(delivery, record, dashboard_url=ctx.dashboard_url)
        message = _with_question(ctx, record, plain)
        tried = _attempt_delivery(sinks, delivery.sink, message)
        now, error = ctx.clock.now(), tried.error
        after = mark_delivered(delivery, now)
        if not tried.delivered:
            after = mark_failed(delivery, now, error, uniform=delivery_jitter(delivery))
        with ctx.store.write() as tx:
            Deliveries(tx).replace(claimed, after)
        if not tried.delivered:
            log.warning(
                "alert_not_delivered",
                alert=delivery.alert,
                sink=delivery.sink,
                attempts=after.attempts,
                given_up=after.gave_up_at is not None,
                error=error,
            )
            return


def _with_question(ctx: Context, record: AlertRecord, message: AlertMessage) -> AlertMessage:
    """Adds the question, and the link to decide it, to the message of a switch that still
    waits. The stored alert has neither: it is kept longer than a transcript.
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
        f"{title}: {inert_text(value) if title in AGENTS_WORDS else value}"
        for title, value in switch_lines(request, now)
    ]
    if ctx.approval_links is not None:
        text.append(f"Decide: {ctx.approval_links.link(request)}")
    return replace(message, text="\n".join(text))


def build_alert_view(record: AlertRecord, deliveries: Sequence[Delivery]) -> AlertView:
    names = (field.name for field in fields(AlertView))
    return AlertView(
        **{name: getattr(record, name) for name in names if hasattr(record, name)},
        delivered=sum(delivery.delivered_at is not None for delivery in deliveries),
        waiting=sum(delivery.next_attempt_at is not None for delivery in deliveries),
        given_up=sum(delivery.gave_up_at is not None for delivery in deliveries),
        last_error=next(
            (delivery.last_error for delivery in deliveries if delivery.last_error), ""
        ),
        page=find_alert_page(record),
    )
