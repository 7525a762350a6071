"""An alert record sums up all alerts of one key (`apply_alert`): workers that notice the same
are its sources, and it ends when the last of them says so. When a message is due is a function
of the record and the time (`due_message`):

    raised ──▶ "raised" sent ──▶ cause ended ──▶ "resolved" sent
                    ▲                                  │
                    └──── raised again, QUIET_PERIOD after ───┘

Within QUIET_PERIOD of the last message a cause that comes back is counted and not sent again;
one that goes on is sent once more after its kind's `remind`. What workers noticed is over after
SETTLING_TIME.
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
    # Who sees the cause now, and when each was last heard.
    sources: Mapping[str, datetime] = field(default_factory=dict)
    resolved_at: datetime | None = None  # None while the cause goes on
    notified: Notified | None = None  # the last message to people
    notified_at: datetime | None = None  # when that was
    notified_count: int = 0  # the count then
    messages: int = 0  # how many there were

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
    """The record after an alert; None when an end comes for what nobody has raised.

    record: the newest of that key. One that was quiet for long makes room for a new one.
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
    """Records by id that are new or have changed. records: by key, the newest of each."""
    newest = dict(records)
    changed: dict[str, AlertRecord] = {}
    for alert in alerts:
        before = newest.get(alert.key)
        after = apply_alert(before, alert)
        if after is not None and after != before:
            newest[alert.key] = changed[after.id] = after
    return changed


def drop_silent_sources(record: AlertRecord, now: datetime) -> AlertRecord:
    """Leaves out sources that were silent too long: a dead worker cannot report the end."""
    silent = ALERT_RULES[record.kind].silent
    if silent is None or not record.open:
        return record
    sources = {who: at for who, at in record.sources.items() if now - at < silent}
    if sources == record.sources:
        return record
    return replace(record, sources=sources, resolved_at=None if sources else now)


def due_message(record: AlertRecord, now: datetime) -> Notified | None:
    """The message that is due now; None when it was sent, or another one lately."""
    if not ALERT_RULES[record.kind].notifies:
        return None
    since = None if record.notified_at is None else now - record.notified_at
    rested = since is None or since >= QUIET_PERIOD
    if not ALERT_RULES[record.kind].lasting:
        # Whoever gets a first sink today need not hear what happened last month.
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
    """Ends an alert's record whatever its sources say; another alert raises it again."""
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
    # What happened has a key of its own: whoever notices it later says nothing new.
    if record.resolved_at is None or not ALERT_RULES[record.kind].lasting:
        return False
    return at - record.resolved_at >= QUIET_PERIOD


def _id(alert: Alert) -> str:
    said = f"{alert.key}\n{alert.at.isoformat()}\n{alert.source}"
    return f"al_{short_hash(said).hex()}"
