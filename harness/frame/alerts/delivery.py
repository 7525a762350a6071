"""A delivery brings one alert message to one sink: it decides when to try again, and when to
give up. Waits double from 5 seconds to 15 minutes, half of each random; after three days it
gives up. Pure.
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

# A page without a filter for what the alert is about.
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
    what, _, name = alert.subject.partition(" ")
    if what == "route" and name:
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
    page: str = ""  # the address of the dashboard's page where one looks and decides
    runbook: str = ""  # the address of the page that says what to do


@dataclass(frozen=True, slots=True)
class Delivery:
    alert: str
    number: int
    sink: str
    message: Notified
    title: str  # title, text: as they were when the message was due
    text: str
    created_at: datetime
    next_attempt_at: datetime | None  # None once it is over
    attempts: int = 0
    delivered_at: datetime | None = None
    gave_up_at: datetime | None = None
    last_error: str = ""

    @property
    def id(self) -> str:
        """Identifies the message in every attempt, so that a receiver can leave out repeats."""
        return f"{self.alert}.{self.number}"


# Another process sends the message where the claim's holder has not said by then how it went.
CLAIMED_FOR: Final = timedelta(minutes=2)


def claim_delivery(delivery: Delivery, now: datetime) -> Delivery:
    """Keeps other processes from sending the message meanwhile."""
    return replace(delivery, next_attempt_at=now + CLAIMED_FOR)


def new_delivery(record: AlertRecord, message: Notified, sink: str, now: datetime) -> Delivery:
    """Starts a message's delivery to a sink. record: the alert's, after this message."""
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
    """Builds what a sink receives. dashboard_url: where people reach the dashboard, without a
    slash at its end; empty leaves the pages out.
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
    """Schedules the next attempt, or gives up. uniform: in [0, 1), the jitter's chance."""
    attempts = delivery.attempts + 1
    tried = replace(delivery, attempts=attempts, last_error=error[:MAX_ERROR_LENGTH])
    if now - delivery.created_at >= GIVE_UP_AFTER:
        return replace(tried, next_attempt_at=None, gave_up_at=now)
    return replace(tried, next_attempt_at=now + retry_wait(attempts, uniform))


def delivery_jitter(delivery: Delivery) -> float:
    said = f"{delivery.id}\n{delivery.sink}\n{delivery.attempts}"
    return int.from_bytes(short_hash(said, 4)) / 2**32


def retry_wait(attempts: int, uniform: float) -> timedelta:
    """Returns the wait after failures: half fixed, half random, doubling up to the cap."""
    # Beyond 2**20 the cap holds anyway, and a timedelta would overflow.
    whole = min(MAX_WAIT, FIRST_WAIT * (1 << min(attempts - 1, 20)))
    return whole / 2 + whole / 2 * uniform


@dataclass(frozen=True, slots=True)
class AlertSink:
    """Says where alerts go: an apprise URL (`url`, or in the variable `url_env`), or a webhook.

    A URL of apprise has passwords in it: it is never logged, stored or shown. Where a variable
    is not set, the file that NAME_FILE names is read.
    """

    name: str = ""  # shown in messages and errors; by default its kind and number
    url: str = field(default="", repr=False)  # of apprise; it holds passwords, prefer `url_env`
    url_env: str = ""  # name of the environment variable with the apprise URL
    webhook: str = ""  # address that gets a signed HTTP POST
    secret_env: str = ""  # name of the variable with the secret that signs it
    severity: Literal["info", "warning", "critical"] = "info"  # the least that it gets
    # Which kinds it gets, such as route_down (docs/reference/events.md); empty for all.
    kinds: tuple[AlertKind, ...] = ()

    def takes(self, kind: AlertKind) -> bool:
        severe = ALERT_RULES[kind].severity >= Severity[self.severity.upper()]
        return severe and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where alerts are delivered, and how long they are kept."""

    sinks: tuple[AlertSink, ...] = ()  # where messages go
    deliver_interval_s: float = 2.0  # how often due messages are sent
    timeout_s: float = 10.0  # for one delivery
    keep_days: float = 90.0  # how long alerts that are over are kept
