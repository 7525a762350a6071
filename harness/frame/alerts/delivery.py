"""Plans the delivery of one alert message to one sink: when to retry, and when to give up.
Waits double from 5 seconds to 15 minutes, half of each wait is random, and retries stop after
three days. Pure.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal
from urllib.parse import urlencode

from harness.frame.alerts.alert import ALERT_RULES, Alert, AlertKind, Severity
from harness.frame.alerts.alert_record import AlertRecord, Notified
from harness.frame.plain_data import short_hash

_K: Final = AlertKind

ALERTS_PAGE: Final = "/alerts"

OF_A_PROPOSAL: Final = frozenset({_K.AWAITING_APPROVAL, _K.EVAL_WAITS})

OF_A_CANARY: Final = frozenset(
    {_K.ROLLED_BACK, _K.LOCAL_ABORT, _K.CANARY_PAUSED, _K.CANARY_HELD, _K.SAMPLE_RATIO}
)

OF_TRAFFIC: Final = frozenset({_K.ROUTE_DOWN, _K.ON_FALLBACK})

# Pages that have no filter for the alert's subject.
WHOLE_PAGES: Final = {
    _K.BREAKER_OPEN: "/traffic",
    _K.OUR_KEY: "/providers",
    _K.QUOTA: "/providers",
    _K.SIGN_IN_ENDED: "/providers",
    _K.TOKEN_NOT_RENEWED: "/providers",
    _K.KEY_BUDGET: "/keys",
    _K.SPENDING_CAP: "/keys",
    _K.AUDIT_BROKEN: "/audit",
    _K.MODEL_SWITCH: "/sessions",
}


def find_alert_page(alert: Alert | AlertRecord) -> str:
    if alert.kind in OF_A_PROPOSAL:
        return f"/compare?{urlencode({'id': alert.key.partition(':')[2]})}"
    noun, _, name = alert.subject.partition(" ")
    if noun == "route" and name:
        page = "/traffic" if alert.kind in OF_TRAFFIC else "/routes"
        page = "/canary" if alert.kind in OF_A_CANARY else page
        return f"{page}?{urlencode({'route': name})}"
    return WHOLE_PAGES.get(alert.kind, ALERTS_PAGE)


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
    title: str  # title, text: their values when the message became due
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


# If the claiming process stores no result within this time, another process sends the message.
CLAIMED_FOR: Final = timedelta(minutes=2)


def claim_delivery(delivery: Delivery, now: datetime) -> Delivery:
    """Keeps other processes from sending the message while this process sends it."""
    return replace(delivery, next_attempt_at=now + CLAIMED_FOR)


def new_delivery(record: AlertRecord, message: Notified, sink: str, now: datetime) -> Delivery:
    """Creates a message's delivery to a sink. record: the alert's record, which already counts
    the message.
    """
    over = message is Notified.RESOLVED
    times = f" ({record.count} times since {record.first_seen:%Y-%m-%d %H:%M} UTC)"
    return Delivery(
        alert=record.id,
        number=record.messages,
        sink=sink,
        message=message,
        title=("resolved: " if over else "") + record.title,
        text=record.text + (times if record.count > 1 else ""),
        created_at=now,
        next_attempt_at=now,
    )


def alert_message(
    delivery: Delivery, record: AlertRecord, *, dashboard_url: str = ""
) -> AlertMessage:
    """Builds the message for a sink. dashboard_url: the dashboard's address without a slash at
    its end; if empty, the message has no links.
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


def mark_failed(delivery: Delivery, now: datetime, error: str, *, uniform: float) -> Delivery:
    """Schedules the next attempt, or gives up. uniform: a random number in [0, 1)."""
    attempts = delivery.attempts + 1
    tried = replace(delivery, attempts=attempts, last_error=error[:MAX_ERROR_LENGTH])
    if now - delivery.created_at >= GIVE_UP_AFTER:
        return replace(tried, next_attempt_at=None, gave_up_at=now)
    return replace(tried, next_attempt_at=now + retry_wait(attempts, uniform))


def delivery_jitter(delivery: Delivery) -> float:
    attempt = f"{delivery.id}\n{delivery.sink}\n{delivery.attempts}"
    return int.from_bytes(short_hash(attempt, 4)) / 2**32


def retry_wait(attempts: int, uniform: float) -> timedelta:
    """Returns the wait after a failure: half fixed, half random, doubling up to MAX_WAIT."""
    # The wait reaches MAX_WAIT long before 2**20, and a larger factor would overflow.
    whole = min(MAX_WAIT, FIRST_WAIT * (1 << min(attempts - 1, 20)))
    return whole / 2 + whole / 2 * uniform


@dataclass(frozen=True, slots=True)
class AlertSink:
    """A destination of alerts: an apprise URL (`url`, or in the variable `url_env`) or a
    webhook.

    An apprise URL contains passwords, so Swapgate never logs, stores or shows it. If a variable
    NAME is not set, Swapgate reads the file that the variable NAME_FILE names.
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
    deliver_interval_s: float = 2.0  # the interval between deliveries of due messages
    timeout_s: float = 10.0  # limit for one delivery
    keep_days: float = 90.0  # how long the database keeps alerts after their end
