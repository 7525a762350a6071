"""An alert record combines all alerts with one key (`apply_alert`). The workers that detect the
cause are its sources, and it ends when the last source reports the end. `due_message` decides
by the record and the time whether a message is due:

    raised ──▶ "raised" sent ──▶ cause ended ──▶ "resolved" sent
                    ▲                                  │
                    └──── raised again, QUIET_PERIOD after ───┘

Within QUIET_PERIOD of the last message, a cause that returns counts but sends no message. A
cause that lasts sends a reminder after its kind's `remind`. A cause that workers report counts
as over SETTLING_TIME after its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.alerts.alert import (
    ALERT_RULES,
    Alert,
    AlertEvent,
    AlertKind,
    Severity,
    find_next_step,
)
from harness.frame.plain_data import short_hash


class Notified(StrEnum):
    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertRecord:
    id: str
    kind: AlertKind
    subject: str
    key: str
    title: str
    text: str
    first_seen: datetime
    last_seen: datetime
    count: int = 1  # how often it was raised
    # The processes that detect the cause now, each with the time of its last report.
    sources: Mapping[str, datetime] = field(default_factory=dict)
    resolved_at: datetime | None = None  # None while the cause lasts
    notified: Notified | None = None  # the last message to people
    notified_at: datetime | None = None  # the time of the last message
    notified_count: int = 0  # the count at the last message
    messages: int = 0  # the number of messages

    @property
    def severity(self) -> Severity:
        return ALERT_RULES[self.kind].severity

    @property
    def next_step(self) -> str:
        return find_next_step(self.kind, self.subject)

    @property
    def open(self) -> bool:
        return self.resolved_at is None


QUIET_PERIOD: Final = timedelta(minutes=15)
REMIND_AFTER: Final = timedelta(hours=24)
SETTLING_TIME: Final = timedelta(seconds=30)


def apply_alert(record: AlertRecord | None, alert: Alert) -> AlertRecord | None:
    """Returns the record after an alert; None for the end of an alert without a record.

    record: the newest record of the key. If its cause ended long ago, the result is a new
    record.
    """
    if alert.news is AlertEvent.ENDED:
        return None if record is None else _ended(record, alert)
    lasting = ALERT_RULES[alert.kind].lasting
    sources = {alert.source: alert.at} if lasting else {}
    if record is None or _is_past(record, alert.at):
        return _first(alert, sources)
    newer = alert.at >= record.last_seen
    latest = max(alert.at, record.last_seen)
    return replace(
        record,
        title=alert.title if newer else record.title,
        text=alert.text if newer else record.text,
        last_seen=latest,
        count=record.count + (alert.news is AlertEvent.RAISED),
        sources={**record.sources, **sources},
        resolved_at=None if lasting else latest,
    )


def apply_alerts(
    records: Mapping[str, AlertRecord], alerts: Iterable[Alert]
) -> Mapping[str, AlertRecord]:
    """Returns the new and changed records by id. records: the newest record of each key."""
    newest = dict(records)
    changed: dict[str, AlertRecord] = {}
    for alert in alerts:
        before = newest.get(alert.key)
        after = apply_alert(before, alert)
        if after is not None and after != before:
            newest[alert.key] = changed[after.id] = after
    return changed


def drop_silent_sources(record: AlertRecord, now: datetime) -> AlertRecord:
    """Removes sources without recent reports, because a dead worker cannot report the end."""
    silent = ALERT_RULES[record.kind].silent
    if silent is None or not record.open:
        return record
    sources = {who: at for who, at in record.sources.items() if now - at < silent}
    if sources == record.sources:
        return record
    return replace(record, sources=sources, resolved_at=None if sources else now)


def due_message(record: AlertRecord, now: datetime) -> Notified | None:
    """Returns the message that is due now; None if it was sent, or a recent message
    forbids it.
    """
    if not ALERT_RULES[record.kind].notifies:
        return None
    since = None if record.notified_at is None else now - record.notified_at
    rested = since is None or since >= QUIET_PERIOD
    if not ALERT_RULES[record.kind].lasting:
        # A newly configured sink must not get last month's events.
        recent = now - record.last_seen < REMIND_AFTER
        return Notified.RAISED if record.notified is None and recent else None
    if record.resolved_at is not None:
        over = now - record.resolved_at >= _settling(record.kind)
        return Notified.RESOLVED if record.notified is Notified.RAISED and over else None
    if record.notified is Notified.RAISED:
        remind = ALERT_RULES[record.kind].remind
        return Notified.RAISED if since is not None and since >= remind else None
    return Notified.RAISED if rested else None


def mark_notified(record: AlertRecord, message: Notified, now: datetime) -> AlertRecord:
    return replace(
        record,
        notified=message,
        notified_at=now,
        notified_count=record.count,
        messages=record.messages + 1,
    )


def resolve_record(record: AlertRecord, now: datetime) -> AlertRecord:
    """Ends an alert's record although sources still report its cause. A new alert raises it
    again.
    """
    return replace(record, sources={}, resolved_at=max(now, record.last_seen))


def _ended(record: AlertRecord, alert: Alert) -> AlertRecord:
    if alert.source not in record.sources or alert.at < record.sources[alert.source]:
        return record
    sources = {who: at for who, at in record.sources.items() if who != alert.source}
    if sources or not record.open:
        return replace(record, sources=sources)
    return replace(record, sources=sources, resolved_at=max(alert.at, record.first_seen))


def _settling(kind: AlertKind) -> timedelta:
    return timedelta(0) if ALERT_RULES[kind].silent is None else SETTLING_TIME


def _first(alert: Alert, sources: Mapping[str, datetime]) -> AlertRecord:
    return AlertRecord(
        id=_id(alert),
        kind=alert.kind,
        subject=alert.subject,
        key=alert.key,
        title=alert.title,
        text=alert.text,
        first_seen=alert.at,
        last_seen=alert.at,
        sources=sources,
        resolved_at=None if sources else alert.at,
    )


def _is_past(record: AlertRecord, at: datetime) -> bool:
    # A single event has its own key, so a later report of it is not news.
    if record.resolved_at is None or not ALERT_RULES[record.kind].lasting:
        return False
    return at - record.resolved_at >= QUIET_PERIOD


def _id(alert: Alert) -> str:
    identity = f"{alert.key}\n{alert.at.isoformat()}\n{alert.source}"
    return f"al_{short_hash(identity).hex()}"
