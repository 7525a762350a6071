"""Alerts notify people once about a condition, and once when it is over, however many requests
meet it. `ALERT_RULES` has each kind's severity, next step and reminders.

Whatever notices something makes an `Alert` with a key. All alerts with one key fold into one
`AlertRecord` (`apply_alert`): workers that notice the same are its sources, and it ends when
the last of them says so. When a message is due is a function of the record and the time
(`due_message`):

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
from enum import IntEnum, StrEnum
from typing import Final

from harness.domain.content_hash import short_hash


class Severity(IntEnum):
    INFO = 1  # good to know
    WARNING = 2  # look at it today
    CRITICAL = 3  # look at it now


class AlertKind(StrEnum):
    BREAKER_OPEN = "breaker_open"
    OUR_KEY = "our_key"
    QUOTA = "quota"
    MODEL_UNKNOWN = "model_unknown"
    REVISION_REFUSED = "revision_refused"
    OBSERVATIONS_DROPPED = "observations_dropped"
    SPOOL_FULL = "spool_full"
    ROLLED_BACK = "rolled_back"
    PROMOTED = "promoted"
    CANARY_PAUSED = "canary_paused"
    AWAITING_APPROVAL = "awaiting_approval"
    SAMPLE_RATIO = "sample_ratio"
    KEY_BUDGET = "key_budget"
    WAIVER_EXPIRED = "waiver_expired"
    BREAK_GLASS = "break_glass"
    JOB_FAILED = "job_failed"
    AUDIT_BROKEN = "audit_broken"
    DRIFT = "drift"
    SERVED_MODEL = "served_model"
    LOCAL_ABORT = "local_abort"
    CANARY_HELD = "canary_held"
    SHADOW_HELD = "shadow_held"
    PROPOSAL_HELD = "proposal_held"
    MODEL_ENDS = "model_ends"
    MODEL_ENDED = "model_ended"
    SIGN_IN_ENDED = "sign_in_ended"
    TOKEN_NOT_RENEWED = "token_not_renewed"  # noqa: S105 - a kind
    EVIDENCE_MISMATCH = "evidence_mismatch"
    MODEL_SWITCH = "model_switch"
    INTERNAL_ERROR = "internal_error"
    STATE_UNRECORDED = "state_unrecorded"
    DATABASE_RESTORED = "database_restored"
    LEADER_SILENT = "leader_silent"
    AUDIT_EXPORT = "audit_export"
    SPENDING_CAP = "spending_cap"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """How alerts of one kind are raised, repeated and resolved."""

    severity: Severity
    next_step: str  # PROVIDER stands for the name of the one that an alert is about
    lasting: bool = True  # its cause goes on until it ends; else it is over as it happens
    # A source that is not heard of for so long has ended (a worker that died cannot say so);
    # None where the control plane looks itself.
    silent: timedelta | None = None
    remind: timedelta = timedelta(hours=24)  # people are told again after that while it goes on


PROVIDER_PLACEHOLDER: Final = "PROVIDER"
# Several times the rhythm in which a worker says that a cause goes on.
_WORKER: Final = timedelta(minutes=30)
_K, _S = AlertKind, Severity
ALERT_RULES: Final[Mapping[AlertKind, AlertRule]] = {
    _K.BREAKER_OPEN: AlertRule(
        _S.WARNING,
        "see the provider's status page; `swapgate route failovers` shows what failed, "
        "`swapgate switch throw` keeps traffic away",
        silent=_WORKER,
    ),
    _K.OUR_KEY: AlertRule(
        _S.CRITICAL,
        "`swapgate provider key set PROVIDER` stores a valid key (`swapgate provider key login "
        "PROVIDER` where people sign in with an account), or put one into the provider's "
        "environment variable and restart the router; then `swapgate doctor`",
        silent=_WORKER,
    ),
    _K.QUOTA: AlertRule(
        _S.CRITICAL,
        "raise the account's limit or pay its bill at the provider; until then the fallbacks "
        "carry the load",
        silent=_WORKER,
    ),
    _K.MODEL_UNKNOWN: AlertRule(
        _S.CRITICAL,
        "the provider has no such model any more: propose another with `swapgate proposal "
        "create`",
        silent=_WORKER,
    ),
    _K.REVISION_REFUSED: AlertRule(
        _S.CRITICAL,
        "fix what the alert names, or go back with `swapgate route rollback`; the old revision "
        "goes on serving",
        silent=_WORKER,
    ),
    _K.OBSERVATIONS_DROPPED: AlertRule(
        _S.CRITICAL,
        "bring back the database and free the disk under `home`; canaries hold while "
        "observations are missing",
        silent=_WORKER,
    ),
    _K.SPOOL_FULL: AlertRule(
        _S.WARNING,
        "bring back the database: observations are in memory now, and are lost when that is "
        "full or the router ends",
        silent=_WORKER,
    ),
    _K.ROLLED_BACK: AlertRule(
        _S.CRITICAL,
        "`swapgate canary status` and the Canary page show the evidence; users are on the "
        "incumbent",
        lasting=False,
    ),
    _K.LOCAL_ABORT: AlertRule(
        _S.CRITICAL,
        "nothing: its users are on the incumbent, and the control plane rolls it back for good "
        "as soon as it can; see that it runs",
        lasting=False,
    ),
    _K.CANARY_HELD: AlertRule(
        _S.WARNING,
        "fix what the alert names, or wait until the freeze ends: the canary then "
        "continues by itself; `swapgate canary status` shows its state",
    ),
    _K.SHADOW_HELD: AlertRule(
        _S.WARNING,
        "fix what the alert names; `swapgate shadow start` mirrors more, and its pairs count; "
        "or `swapgate proposal cancel`",
    ),
    _K.PROPOSAL_HELD: AlertRule(
        _S.WARNING,
        "start the control plane in the newer version that wrote what the alert names: the "
        "proposal then continues by itself; or `swapgate proposal cancel`",
    ),
    _K.PROMOTED: AlertRule(
        _S.INFO, "nothing; `swapgate route rollback` goes back to the one before", lasting=False
    ),
    _K.CANARY_PAUSED: AlertRule(
        _S.WARNING, "look at the Canary page, then `swapgate canary resume` or `abort`"
    ),
    _K.AWAITING_APPROVAL: AlertRule(
        _S.WARNING, "read the comparison, then `swapgate proposal approve` or `reject`"
    ),
    _K.SAMPLE_RATIO: AlertRule(
        _S.CRITICAL,
        "the canary cannot advance: see whether all traffic goes through routers of one "
        "revision, and whether something retries or caches between",
    ),
    _K.KEY_BUDGET: AlertRule(
        _S.WARNING,
        "`swapgate key list` shows what each key has spent; `swapgate key limits` changes it",
        lasting=False,
    ),
    _K.SPENDING_CAP: AlertRule(
        _S.WARNING,
        "`swapgate spending` shows what was spent on what; raise `spending.monthly_cap_usd` "
        "and restart the control process, or wait for the next month",
    ),
    _K.WAIVER_EXPIRED: AlertRule(
        _S.WARNING,
        "`swapgate route fallback remove` takes the target out, `add` brings a verdict or a "
        "new waiver; until then the route's settings and chain stay as they are",
    ),
    _K.BREAK_GLASS: AlertRule(
        _S.CRITICAL,
        "`swapgate route break-glass list` shows who answers for it; `end` brings the former "
        "model back before its time. Where that cannot serve, mend its provider, or bring "
        "another former model back with `swapgate route rollback`",
        remind=timedelta(hours=4),
    ),
    _K.JOB_FAILED: AlertRule(
        _S.CRITICAL, "see the control process's log, and `swapgate doctor`"
    ),
    _K.AUDIT_BROKEN: AlertRule(
        _S.CRITICAL,
        "`swapgate audit verify` names the event or the row: compare it with a backup",
    ),
    _K.DRIFT: AlertRule(
        _S.CRITICAL,
        "`swapgate drift status ROUTE` has the answers that changed: accept what there is now "
        "with `swapgate drift accept`, or propose another model",
    ),
    _K.SERVED_MODEL: AlertRule(
        _S.WARNING,
        "ask the provider what it changed; `swapgate drift run` measures at once, "
        "`swapgate drift accept` takes the new model for the one to compare with",
    ),
    _K.MODEL_ENDS: AlertRule(
        _S.WARNING,
        "propose the successor with `swapgate proposal create`, or another model; "
        "`swapgate model list` shows what ends when",
        remind=timedelta(days=7),
    ),
    _K.MODEL_ENDED: AlertRule(
        _S.CRITICAL,
        "the provider may refuse it any time: propose the successor now, and see that the "
        "route's fallbacks are other models",
    ),
    _K.SIGN_IN_ENDED: AlertRule(
        _S.CRITICAL,
        "`swapgate provider key login PROVIDER`, by somebody who has the account; until then "
        "the next targets of each route answer",
    ),
    _K.TOKEN_NOT_RENEWED: AlertRule(
        _S.WARNING,
        "see whether the control process reaches the address that the text names; it is tried "
        "again at least once a minute",
    ),
    _K.EVIDENCE_MISMATCH: AlertRule(
        _S.CRITICAL,
        "somebody changed scores or verdicts in the database: compare it with a backup; "
        "`swapgate gate replay` and `swapgate db check` name what differs",
        lasting=False,
    ),
    _K.MODEL_SWITCH: AlertRule(
        _S.WARNING,
        "read the question on the page Sessions or with `swapgate agent requests`, then "
        "`swapgate agent approve` or `reject`",
    ),
    _K.INTERNAL_ERROR: AlertRule(
        _S.CRITICAL,
        "report it with the router's log, which has the place in the code; a canary of the "
        "route takes no step until `swapgate canary resume` says that somebody looked",
    ),
    _K.STATE_UNRECORDED: AlertRule(
        _S.CRITICAL,
        "somebody changed the database past Swapgate: `swapgate db check` names the rows; "
        "compare them with a backup and restore their content",
    ),
    _K.DATABASE_RESTORED: AlertRule(
        _S.CRITICAL,
        "bring the newer database back; or, if the restored one is what you want, run "
        "`swapgate db accept-restore --reason WHY`",
        silent=_WORKER,
    ),
    _K.LEADER_SILENT: AlertRule(
        _S.CRITICAL,
        "let the process that the alert names go on (`kill -CONT PID`), or end it "
        "(`kill -KILL PID`): another control process then leads within seconds",
    ),
    _K.AUDIT_EXPORT: AlertRule(
        _S.WARNING,
        "bring the receiver back, or fix `audit.sinks` in the configuration and restart the "
        "control process; `swapgate audit sinks` shows how far each has come",
    ),
    _K.TEST: AlertRule(_S.INFO, "nothing: this is a test", lasting=False),
}


class AlertEvent(StrEnum):
    RAISED = "raised"
    STILL = "still"  # it goes on: not counted again
    ENDED = "ended"
    LEFT = "left"  # its source is gone, and the cause perhaps not


@dataclass(frozen=True, slots=True)
class Alert:
    """Tells of something that was noticed, or of its end. Never has content of requests, or a
    secret.
    """

    kind: AlertKind
    subject: str  # what it is about, such as `target openai/gpt-5`
    key: str  # alerts with the same key are one
    title: str
    text: str
    at: datetime
    source: str  # who noticed it; an end counts for its own source alone
    news: AlertEvent = AlertEvent.RAISED

    @property
    def severity(self) -> Severity:
        return ALERT_RULES[self.kind].severity

    @property
    def next_step(self) -> str:
        return _step(self.kind, self.subject)

    def now(self, news: AlertEvent, at: datetime) -> "Alert":
        return replace(self, news=news, at=at)


def _step(kind: AlertKind, subject: str) -> str:
    """Returns the kind's next step, with the provider's name where it is about one."""
    what, _, name = subject.partition(" ")
    step = ALERT_RULES[kind].next_step
    return step.replace(PROVIDER_PLACEHOLDER, name) if what == "provider" and name else step


class Notified(StrEnum):
    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """Sums up all alerts of one key since it was last quiet."""

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
        return _step(self.kind, self.subject)

    @property
    def open(self) -> bool:
        return self.resolved_at is None


QUIET_PERIOD: Final = timedelta(minutes=15)
REMIND_AFTER: Final = timedelta(hours=24)
SETTLING_TIME: Final = timedelta(seconds=30)
# What a successor of a worker has to see a cause itself: without traffic, by health checks.
HANDOVER_TIME: Final = timedelta(minutes=3)


def apply_alert(record: AlertRecord | None, alert: Alert) -> AlertRecord | None:
    """The record after an alert; None when an end comes for what nobody has raised.

    record: the newest of that key. One that was quiet for long makes room for a new one.
    """
    if alert.news is AlertEvent.ENDED:
        return None if record is None else _ended(record, alert)
    if alert.news is AlertEvent.LEFT:
        return None if record is None else _left(record, alert)
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
    """Returns the record without sources that have been silent for too long: a dead worker
    cannot report the end.
    """
    silent = ALERT_RULES[record.kind].silent
    if silent is None or not record.open:
        return record
    sources = {who: at for who, at in record.sources.items() if now - at < silent}
    if sources == record.sources:
        return record
    return replace(record, sources=sources, resolved_at=None if sources else now)


def due_message(record: AlertRecord, now: datetime) -> Notified | None:
    """The message that is due now; None when it was sent, or another one lately."""
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


def _left(record: AlertRecord, alert: Alert) -> AlertRecord:
    """Treats the source as silent since so long ago that it is dropped after HANDOVER_TIME."""
    silent = ALERT_RULES[record.kind].silent
    if silent is None:
        return _ended(record, alert)
    if alert.source not in record.sources or alert.at < record.sources[alert.source]:
        return record
    heard_at = alert.at - silent + HANDOVER_TIME
    return replace(record, sources={**record.sources, alert.source: heard_at})


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
