"""An alert record combines all alerts with one key (`apply_alert`). The workers that detect the
cause are its sources, and it ends when the last source reports the end. `due_message` decides
by the record and the time whether a message is due:

    raised ──▶ "raised" sent ──▶ cause ended ──▶ "resolved" sent
                    ▲                                  │
                    └────────── raised again ──────────┘

If a cause returns, its message is sent at once, so that "resolved" is never the last message
while the cause lasts. A cause that comes and goes sends few messages: after it returned within
QUIET_PERIOD, "resolved" waits until the cause stayed away for QUIET_PERIOD
(`resolution_delay`). So people get at most four messages of a key within QUIET_PERIOD.

A cause that lasts sends a reminder after its kind's `remind`. A cause that workers report
counts as over SETTLING_TIME after its end.

A failed delivery of a message to a sink is retried. Waits double from 5 seconds to 15 minutes,
half of each wait is random, and retries stop after three days. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal
from urllib.parse import urlencode

from harness.frame.alerts.alert import (
    ALERT_RULES,
    Alert,
    AlertEvent,
    AlertKind,
    Severity,
    find_next_step,
)
from harness.frame.configuration.setting import KEPT_DAYS, WAIT_S, number
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
    messages: int = 0  # the number of messages
    returned: bool = False  # the cause returned after the message of its end
    details: Mapping[str, Any] = field(default_factory=dict)  # the newest report's figures

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
    """Returns the record after an alert; None if the alert ends and has no record.

    Args:
        record: the newest record of the key.

    An alert that comes QUIET_PERIOD after the record's end creates a new record.
    """
    if alert.news is AlertEvent.ENDED:
        return None if record is None else _end_source(record, alert)
    is_lasting = ALERT_RULES[alert.kind].lasting
    sources = {alert.source: alert.at} if is_lasting else {}
    if record is None or _needs_new_record(record, alert.at):
        return _build_record(alert, sources)
    is_newest = alert.at >= record.last_seen
    latest = max(alert.at, record.last_seen)
    return replace(
        record,
        title=alert.title if is_newest else record.title,
        text=alert.text if is_newest else record.text,
        details=alert.details if is_newest else record.details,
        last_seen=latest,
        count=record.count + (alert.news is AlertEvent.RAISED),
        sources={**record.sources, **sources},
        resolved_at=None if is_lasting else latest,
        returned=record.returned or (is_lasting and record.notified is Notified.RESOLVED),
    )


def apply_alerts(
    records: Mapping[str, AlertRecord], alerts: Iterable[Alert]
) -> Mapping[str, AlertRecord]:
    """Returns the new and changed records by id.

    Args:
        records: the newest record of each key.
    """
    newest = dict(records)
    changed_records: dict[str, AlertRecord] = {}
    for alert in alerts:
        former = newest.get(alert.key)
        updated = apply_alert(former, alert)
        if updated is not None and updated != former:
            newest[alert.key] = changed_records[updated.id] = updated
    return changed_records


def drop_silent_sources(
    record: AlertRecord,
    now: datetime,
    served_since: datetime | None,
) -> AlertRecord:
    """Removes sources without recent reports, because a dead worker cannot report the end.

    A router that serves finds a lasting cause again, so silence shows an end only while one
    serves.

    Args:
        served_since: when the router began that has served longest; None if no router serves,
            so that the alert stays.
    """
    rule = ALERT_RULES[record.kind]
    if rule.silent is None or not record.open:
        return record
    if not rule.by_router:
        served_since = record.first_seen
    if served_since is None:
        return record
    silent = rule.silent
    sources = {
        source: at
        for source, at in record.sources.items()
        if now - max(at, served_since) < silent
    }
    if sources == record.sources:
        return record
    return replace(record, sources=sources, resolved_at=None if sources else now)


def resolution_delay(record: AlertRecord) -> timedelta:
    """Returns how long the cause must be away until people get the message of its end."""
    if record.returned:
        return QUIET_PERIOD
    reports_end = ALERT_RULES[record.kind].silent is None
    return timedelta(0) if reports_end else SETTLING_TIME


def due_message(record: AlertRecord, now: datetime) -> Notified | None:
    """Returns the message that is due now; None if people know the state."""
    if not ALERT_RULES[record.kind].lasting:
        # A newly configured sink must not get last month's events.
        is_recent = now - record.last_seen < REMIND_AFTER
        return Notified.RAISED if record.notified is None and is_recent else None
    if record.resolved_at is not None:
        is_settled = now - record.resolved_at >= resolution_delay(record)
        return Notified.RESOLVED if record.notified is Notified.RAISED and is_settled else None
    if record.notified is not Notified.RAISED or record.notified_at is None:
        return Notified.RAISED
    remind = ALERT_RULES[record.kind].remind
    return Notified.RAISED if now - record.notified_at >= remind else None


def mark_notified(
    record: AlertRecord,
    message: Notified,
    now: datetime,
) -> AlertRecord:
    return replace(
        record,
        notified=message,
        notified_at=now,
        messages=record.messages + 1,
    )


def resolve_record(record: AlertRecord, now: datetime) -> AlertRecord:
    """Ends an alert's record although sources still report its cause. A new alert raises it
    again.
    """
    return replace(record, sources={}, resolved_at=max(now, record.last_seen))


def _end_source(record: AlertRecord, alert: Alert) -> AlertRecord:
    if alert.source not in record.sources or alert.at < record.sources[alert.source]:
        return record
    sources = {source: at for source, at in record.sources.items() if source != alert.source}
    if sources or not record.open:
        return replace(record, sources=sources)
    return replace(record, sources=sources, resolved_at=max(alert.at, record.first_seen))


def _build_record(alert: Alert, sources: Mapping[str, datetime]) -> AlertRecord:
    return AlertRecord(
        id=_build_record_id(alert),
        kind=alert.kind,
        subject=alert.subject,
        key=alert.key,
        title=alert.title,
        text=alert.text,
        details=alert.details,
        first_seen=alert.at,
        last_seen=alert.at,
        sources=sources,
        resolved_at=None if sources else alert.at,
    )


def _needs_new_record(record: AlertRecord, at: datetime) -> bool:
    # Each single event has its own key, so no second record follows its record.
    if record.resolved_at is None or not ALERT_RULES[record.kind].lasting:
        return False
    return at - record.resolved_at >= QUIET_PERIOD


def _build_record_id(alert: Alert) -> str:
    identity = f"{alert.key}\n{alert.at.isoformat()}\n{alert.source}"
    return f"al_{short_hash(identity).hex()}"


_K: Final = AlertKind

ALERTS_PAGE: Final = "/alerts"

PROPOSAL_KINDS: Final = frozenset({_K.AWAITING_APPROVAL, _K.EVAL_WAITS, _K.LABELS_WAIT})

CANARY_KINDS: Final = frozenset(
    {
        _K.ROLLED_BACK,
        _K.LOCAL_ABORT,
        _K.CANARY_PAUSED,
        _K.CANARY_HELD,
        _K.WAY_BACK_GONE,
        _K.SAMPLE_RATIO,
    }
)

TRAFFIC_KINDS: Final = frozenset({_K.ROUTE_DOWN, _K.ON_FALLBACK})

# Pages that cannot be filtered by the alert's subject.
PAGE_BY_KIND: Final = {
    _K.BREAKER_OPEN: "/traffic",
    _K.OUR_KEY: "/providers",
    _K.QUOTA: "/providers",
    _K.PROVIDER_DOWN: "/providers",
    _K.SIGN_IN_ENDED: "/providers",
    _K.TOKEN_NOT_RENEWED: "/providers",
    _K.KEY_BUDGET: "/keys",
    _K.SPENDING_CAP: "/keys",
    _K.AUDIT_BROKEN: "/audit",
    _K.MODEL_SWITCH: "/sessions",
}


def find_alert_page(alert: Alert | AlertRecord) -> str:
    if alert.kind in PROPOSAL_KINDS:
        return f"/compare?{urlencode({'id': alert.key.partition(':')[2]})}"
    noun, _, name = alert.subject.partition(" ")
    if noun == "route" and name:
        page = "/traffic" if alert.kind in TRAFFIC_KINDS else "/routes"
        page = "/canary" if alert.kind in CANARY_KINDS else page
        return f"{page}?{urlencode({'route': name})}"
    return PAGE_BY_KIND.get(alert.kind, ALERTS_PAGE)


def find_runbook_page(kind: AlertKind) -> str:
    return f"/docs/runbook.html#{kind}"


FIRST_WAIT: Final = timedelta(seconds=5)

MAX_WAIT: Final = timedelta(minutes=15)

GIVE_UP_AFTER: Final = timedelta(days=3)

MAX_ERROR_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class AlertMessage:
    id: str  # the same in every attempt
    alert: str
    kind: AlertKind
    severity: Severity
    state: Notified  # raised or resolved
    subject: str
    title: str
    text: str
    next_step: str
    first_seen: datetime
    last_seen: datetime
    count: int
    page: str = ""  # the address of the dashboard page where people look and decide
    runbook: str = ""  # the address of the alert's section in the runbook


@dataclass(frozen=True, slots=True)
class Delivery:
    alert: str
    number: int
    sink: str
    message: Notified
    title: str  # title, text: copied from the alert when the message became due
    text: str
    created_at: datetime
    next_attempt_at: datetime | None  # None after delivery or the last attempt
    attempts: int = 0
    delivered_at: datetime | None = None
    gave_up_at: datetime | None = None
    last_error: str = ""

    @property
    def id(self) -> str:
        """Identifies the message in each attempt, so that a receiver can ignore repeats."""
        return f"{self.alert}.{self.number}"


# If the process that claimed a message stores no result within this time, another process sends
# the message.
CLAIMED_FOR: Final = timedelta(minutes=2)


def claim_delivery(delivery: Delivery, now: datetime) -> Delivery:
    """Keeps other processes from sending the message while this process sends it."""
    return replace(delivery, next_attempt_at=now + CLAIMED_FOR)


def new_delivery(
    record: AlertRecord,
    message: Notified,
    sink: str,
    now: datetime,
) -> Delivery:
    """Creates a message's delivery to a sink.

    Args:
        record: the alert's record, which already counts the message.
    """
    is_end = message is Notified.RESOLVED
    times = f" ({record.count} times since {record.first_seen:%Y-%m-%d %H:%M} UTC)"
    text = record.text + (times if record.count > 1 else "")
    if is_end and record.returned and record.resolved_at is not None:
        # The message comes long after the end, because the cause returned meanwhile.
        text += f" Over since {record.resolved_at:%Y-%m-%d %H:%M} UTC."
    return Delivery(
        alert=record.id,
        number=record.messages,
        sink=sink,
        message=message,
        title=("resolved: " if is_end else "") + record.title,
        text=text,
        created_at=now,
        next_attempt_at=now,
    )


def alert_message(
    delivery: Delivery,
    record: AlertRecord,
    *,
    dashboard_url: str = "",
) -> AlertMessage:
    """Builds the message for a sink.

    Args:
        dashboard_url: the dashboard's address without a slash at its end; if empty, the message
            has no links.
    """
    return AlertMessage(
        id=delivery.id,
        alert=record.id,
        kind=record.kind,
        severity=record.severity,
        state=delivery.message,
        subject=record.subject,
        title=delivery.title,
        text=delivery.text,
        next_step=record.next_step if delivery.message is Notified.RAISED else "",
        first_seen=record.first_seen,
        last_seen=record.last_seen,
        count=record.count,
        page=dashboard_url + find_alert_page(record) if dashboard_url else "",
        runbook=dashboard_url + find_runbook_page(record.kind) if dashboard_url else "",
    )


def mark_delivered(delivery: Delivery, now: datetime) -> Delivery:
    return replace(
        delivery,
        attempts=delivery.attempts + 1,
        next_attempt_at=None,
        delivered_at=now,
        last_error="",
    )


def mark_failed(
    delivery: Delivery,
    now: datetime,
    error: str,
    *,
    uniform: float,
) -> Delivery:
    """Schedules the next attempt, or gives up.

    Args:
        uniform: a random number in [0, 1).
    """
    attempts = delivery.attempts + 1
    failed = replace(delivery, attempts=attempts, last_error=error[:MAX_ERROR_LENGTH])
    if now - delivery.created_at >= GIVE_UP_AFTER:
        return replace(failed, next_attempt_at=None, gave_up_at=now)
    return replace(failed, next_attempt_at=now + retry_wait(attempts, uniform))


def drop_delivery(
    delivery: Delivery,
    now: datetime,
    reason: str,
) -> Delivery:
    """Ends a delivery without a further attempt."""
    return replace(
        delivery,
        next_attempt_at=None,
        gave_up_at=now,
        last_error=reason,
    )


def delivery_jitter(delivery: Delivery) -> float:
    attempt = f"{delivery.id}\n{delivery.sink}\n{delivery.attempts}"
    return int.from_bytes(short_hash(attempt, 4)) / 2**32


def retry_wait(attempts: int, uniform: float) -> timedelta:
    """Returns the wait after a failure: half fixed, half random, doubling up to MAX_WAIT."""
    # The wait reaches MAX_WAIT long before 2**20, and a larger factor would overflow.
    longest = min(MAX_WAIT, FIRST_WAIT * (1 << min(attempts - 1, 20)))
    return longest / 2 + longest / 2 * uniform


@dataclass(frozen=True, slots=True)
class AlertSink:
    """A destination of alerts: an apprise URL (`url`, or in the variable `url_env`) or a
    webhook.

    An apprise URL contains passwords, so Swapproof never logs, stores or shows it. If a
    variable NAME is not set, Swapproof reads the file that the variable NAME_FILE names.
    """

    name: str = ""  # shown in messages and errors; by default its kind and number
    # Apprise URL; contains passwords, so prefer `url_env`.
    url: str = field(default="", repr=False)
    url_env: str = ""  # name of the environment variable with the apprise URL
    webhook: str = ""  # address that gets a signed HTTP POST
    secret_env: str = ""  # name of the variable with the secret that signs the POST
    severity: Literal["info", "warning", "critical"] = "info"  # minimum severity
    # The kinds to send, such as route_down (docs/reference/events.md); empty for all kinds.
    kinds: tuple[AlertKind, ...] = ()

    def takes(self, kind: AlertKind) -> bool:
        severe = ALERT_RULES[kind].severity >= Severity[self.severity.upper()]
        return severe and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Destinations of alerts, and how long the database keeps alerts."""

    sinks: tuple[AlertSink, ...] = ()  # destinations of messages
    deliver_interval_s: float = number(
        2.0,
        "The interval between deliveries of due messages.",
        WAIT_S,
    )
    timeout_s: float = number(10.0, "Limit for one delivery.", WAIT_S)
    keep_days: float = number(
        90.0,
        "How long the database keeps alerts after their end.",
        KEPT_DAYS,
    )
