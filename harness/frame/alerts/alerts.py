"""Opens and ends alerts, in the transaction of the decision that they report."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Final

from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind, Severity
from harness.frame.alerts.alert_record import (
    AlertRecord,
    Delivery,
    Notified,
    drop_delivery,
    find_alert_page,
    mark_notified,
    new_delivery,
    resolve_record,
)
from harness.frame.alerts.records import Alerts, Deliveries
from harness.frame.records.transaction import Transaction
from harness.frame.world import World

SOURCE: Final = "control"
CAUSE_RETURNED: Final = "the cause returned before the sink accepted this message"


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
    delivered: int  # delivered, waiting, given_up: numbers of messages
    waiting: int
    given_up: int
    last_error: str
    page: str  # the dashboard page that shows it, such as `/compare?id=p_1`

    @property
    def message_counts(self) -> str:
        """Formats the numbers of messages: `1 sent, 2 waiting`; empty without messages."""
        counts = {
            "sent": self.delivered,
            "waiting": self.waiting,
            "given up": self.given_up,
        }
        return ", ".join(f"{n:,} {state}" for state, n in counts.items() if n)


def raise_alert(
    tx: Transaction,
    kind: AlertKind,
    cause_id: str,
    *,
    subject: str,
    title: str,
    text: str,
    news: AlertEvent = AlertEvent.RAISED,
) -> None:
    """Opens an alert.

    Args:
        cause_id: the id that distinguishes this cause from others of its kind.
    """
    key = f"{kind.value}:{cause_id}"
    Alerts(tx).fold([Alert(kind, subject, key, title, text, tx.now(), SOURCE, news)])


def resolve_alert(
    tx: Transaction,
    kind: AlertKind,
    cause_id: str,
) -> None:
    """Ends the open alert, if any, because its cause is over."""
    record = Alerts(tx).newest(f"{kind.value}:{cause_id}")
    if record is not None and record.open:
        Alerts(tx).fold([resolution_of(record, tx.now())])


def end_alert(
    tx: Transaction,
    kind: AlertKind,
    cause_id: str = "",
) -> bool:
    """Ends an open alert although sources may still report its cause, for example after a
    person has checked it. The next report opens it again. Returns whether an alert was open.

    Args:
        cause_id: empty for a kind with a single alert.
    """
    record = Alerts(tx).newest(f"{kind.value}:{cause_id}" if cause_id else kind.value)
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


def is_open(
    ctx: World,
    kind: AlertKind,
    cause_id: str,
) -> bool:
    with ctx.store.read() as tx:
        record = Alerts(tx).newest(f"{kind.value}:{cause_id}")
    return record is not None and record.open


@dataclass(frozen=True, slots=True)
class AlertNotice:
    subject: str
    title: str
    text: str


def update_alert(
    ctx: World,
    kind: AlertKind,
    cause_id: str,
    notice: AlertNotice | None,
) -> None:
    """Opens the alert if it is not open.

    Args:
        notice: None to end the alert instead.
    """
    if (notice is not None) == is_open(ctx, kind, cause_id):
        return
    with ctx.store.write() as tx:
        if notice is None:
            resolve_alert(tx, kind, cause_id)
        else:
            raise_alert(tx, kind, cause_id, **asdict(notice))


def update_alerts(
    ctx: World,
    kinds: Collection[AlertKind],
    notices: Mapping[tuple[AlertKind, str], AlertNotice],
) -> None:
    """Opens an alert for each notice, and ends the other open alerts of these kinds."""
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
                raise_alert(
                    tx,
                    *key,
                    **asdict(notice),
                    news=AlertEvent.STILL,
                )


def resolution_of(record: AlertRecord, now: datetime) -> Alert:
    return Alert(
        record.kind,
        record.subject,
        record.key,
        record.title,
        record.text,
        # Not before the last report, because somebody may have set the clock back.
        max(now, record.last_seen),
        SOURCE,
        AlertEvent.ENDED,
    )


def queue_message(
    tx: Transaction,
    record: AlertRecord,
    message: Notified,
    sinks: Iterable[str],
) -> None:
    now = tx.now()
    notified = mark_notified(record, message, now)
    Alerts(tx).save(notified)
    if message is Notified.RAISED:
        # A sink that has not accepted "resolved" yet must not get it after the cause returned.
        for delivery in Deliveries(tx).waiting_resolutions(record.key):
            Deliveries(tx).replace(delivery, drop_delivery(delivery, now, CAUSE_RETURNED))
    for sink in sinks:
        Deliveries(tx).add(new_delivery(notified, message, sink, now))


def build_alert_view(record: AlertRecord, deliveries: Sequence[Delivery]) -> AlertView:
    names = (field.name for field in fields(AlertView))
    return AlertView(
        **{name: getattr(record, name) for name in names if hasattr(record, name)},
        delivered=sum(delivery.delivered_at is not None for delivery in deliveries),
        waiting=sum(delivery.next_attempt_at is not None for delivery in deliveries),
        given_up=sum(delivery.gave_up_at is not None for delivery in deliveries),
        last_error=next(
            (delivery.last_error for delivery in deliveries if delivery.last_error),
            "",
        ),
        page=find_alert_page(record),
    )
