"""Alerts notify people once when a condition begins and once when it ends, however many
requests meet it. `ALERT_RULES` has each kind's severity, next step and reminders. The code that
detects a condition creates an `Alert` with a key, and `alert_record` combines alerts with the
same key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final


class Severity(IntEnum):
    INFO = 1  # good to know
    WARNING = 2  # look at it today
    CRITICAL = 3  # look at it now


class AlertKind(StrEnum):
    BREAKER_OPEN = "breaker_open"
    ROUTE_DOWN = "route_down"
    ON_FALLBACK = "on_fallback"
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
    SHARED_KEY = "shared_key"
    LEARNED_REPAIR = "learned_repair"
    KEY_BUDGET = "key_budget"
    WAIVER_EXPIRED = "waiver_expired"
    BREAK_GLASS = "break_glass"
    JOB_FAILED = "job_failed"
    AUDIT_BROKEN = "audit_broken"
    DRIFT = "drift"
    SERVED_MODEL = "served_model"
    LOCAL_ABORT = "local_abort"
    CANARY_HELD = "canary_held"
    MODEL_ENDS = "model_ends"
    MODEL_ENDED = "model_ended"
    SIGN_IN_ENDED = "sign_in_ended"
    TOKEN_NOT_RENEWED = "token_not_renewed"  # noqa: S105 - a kind
    EVIDENCE_MISMATCH = "evidence_mismatch"
    MODEL_SWITCH = "model_switch"
    INTERNAL_ERROR = "internal_error"
    DATABASE_RESTORED = "database_restored"
    SPENDING_CAP = "spending_cap"
    NEW_CANDIDATE = "new_candidate"
    BETTER_CANDIDATE = "better_candidate"
    EVAL_WAITS = "eval_waits"
    SPLIT = "split"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class AlertRule:
    severity: Severity
    next_step: str  # PROVIDER is a placeholder for the provider's name
    lasting: bool = True  # the cause lasts until it ends; False for a single event
    # A source without news for this long has ended, because a dead worker cannot report the
    # end. None if the control plane itself checks the cause.
    silent: timedelta | None = None
    remind: timedelta = timedelta(hours=24)  # the interval of reminders while the cause lasts
    # Whether sinks get messages and lists contain the alert. If False, only one page shows it.
    notifies: bool = True


NO_SINK: Final = (
    "no person gets an alert: add a sink under `alerts.sinks` in swapgate.yaml (`swapgate "
    "docs open how-to/alerts`)"
)
PROVIDER_PLACEHOLDER: Final = "PROVIDER"
# Several times the interval at which a worker reports a lasting cause. Without traffic, a
# restarted worker has the rest of this time to find the cause by health checks.
_WORKER: Final = timedelta(minutes=4)
_TOLD_ONCE: Final = timedelta(minutes=30)  # for a cause that a worker may report only once
_K, _S = AlertKind, Severity
ALERT_RULES: Final[Mapping[AlertKind, AlertRule]] = {
    _K.BREAKER_OPEN: AlertRule(
        _S.WARNING,
        "see the provider's status page; `swapgate route failovers` shows what failed, "
        "`swapgate switch throw` keeps traffic away",
        silent=_WORKER,
    ),
    _K.ROUTE_DOWN: AlertRule(
        _S.CRITICAL,
        "`swapgate route failovers` shows what failed; `swapgate route fallback add` gives the "
        "route another target, `swapgate switch throw target:PROVIDER/MODEL` sends it there",
        remind=timedelta(hours=4),
    ),
    _K.ON_FALLBACK: AlertRule(
        _S.WARNING,
        "nothing at once: callers get answers; see the status page of the provider whose model "
        "fails, and `swapgate route failovers`",
    ),
    _K.OUR_KEY: AlertRule(
        _S.CRITICAL,
        "`swapgate provider key set PROVIDER` stores a valid key, which routers use at once "
        "(`swapgate provider key login PROVIDER` where people sign in with an account), or put "
        "one into the provider's variable in `.env` and send the router a SIGHUP; then "
        "`swapgate doctor`",
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
        "continues to serve",
        silent=_TOLD_ONCE,
    ),
    _K.OBSERVATIONS_DROPPED: AlertRule(
        _S.CRITICAL,
        "bring back the database and free the disk under `home`; canaries hold while "
        "observations are missing",
        silent=_TOLD_ONCE,
    ),
    _K.SPOOL_FULL: AlertRule(
        _S.WARNING,
        "bring back the database: observations are in memory now, and are lost when that is "
        "full or the router ends",
        silent=_TOLD_ONCE,
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
    _K.SHARED_KEY: AlertRule(
        _S.INFO,
        "send a key for each person or conversation, in `safety_identifier`, `user` or the "
        "header x-swapgate-sticky; until then each conversation is assigned separately",
        silent=_WORKER,
    ),
    _K.LEARNED_REPAIR: AlertRule(
        _S.INFO,
        "nothing, where answers may do without the field; else route such requests to another "
        "target. The refusal is believed for a day",
        silent=_WORKER,
        notifies=False,
    ),
    _K.KEY_BUDGET: AlertRule(
        _S.WARNING,
        "`swapgate key list` shows what each key has spent; `swapgate key limits` changes it",
        lasting=False,
    ),
    _K.SPENDING_CAP: AlertRule(
        _S.WARNING,
        "`swapgate spending` shows what was spent on what; raise `spending.monthly_cap_usd` "
        "and send the control process a SIGHUP, or wait for the next month",
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
    _K.DATABASE_RESTORED: AlertRule(
        _S.CRITICAL,
        "bring the newer database back; or, if the restored one is what you want, run "
        "`swapgate db accept-restore --reason WHY`",
        silent=_WORKER,
    ),
    _K.NEW_CANDIDATE: AlertRule(
        _S.INFO,
        "nothing; `swapgate route candidates ROUTE` shows what is measured and when",
        lasting=False,
    ),
    _K.BETTER_CANDIDATE: AlertRule(
        _S.INFO,
        "read the comparison, then propose the swap with `swapgate proposal create`",
        lasting=False,
    ),
    _K.EVAL_WAITS: AlertRule(
        _S.WARNING,
        "bring the provider back; `swapgate proposal retry` asks it at once, "
        "`swapgate proposal cancel` gives the comparison up",
    ),
    _K.SPLIT: AlertRule(
        _S.CRITICAL,
        "do what the alert names; to decide the shares in the gateway, end `swapgate serve "
        "drive` first",
        silent=_WORKER,
    ),
    _K.TEST: AlertRule(_S.INFO, "nothing: this is a test", lasting=False),
}


class AlertEvent(StrEnum):
    RAISED = "raised"
    STILL = "still"  # the cause lasts; does not count again
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Alert:
    """Reports a condition or its end. Never contains a request's content or a secret."""

    kind: AlertKind
    subject: str  # such as `target openai/gpt-5`
    key: str  # alerts with the same key share one record
    title: str
    text: str
    at: datetime
    source: str  # the process that detected it; an end counts only for its own source
    news: AlertEvent = AlertEvent.RAISED

    @property
    def severity(self) -> Severity:
        return ALERT_RULES[self.kind].severity

    @property
    def next_step(self) -> str:
        return find_next_step(self.kind, self.subject)

    def now(self, news: AlertEvent, at: datetime) -> "Alert":
        return replace(self, news=news, at=at)


def find_next_step(kind: AlertKind, subject: str) -> str:
    """Returns the kind's next step, with the subject's name if the subject is a provider."""
    noun, _, name = subject.partition(" ")
    step = ALERT_RULES[kind].next_step
    return step.replace(PROVIDER_PLACEHOLDER, name) if noun == "provider" and name else step
