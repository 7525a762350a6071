"""Alerts notify people once when a condition begins and once when it ends, however many
requests meet it. `ALERT_RULES` has each kind's severity, next step and reminders. The code that
detects a condition creates an `Alert` with a key, and `alert_record` combines alerts with the
same key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final


class Severity(IntEnum):
    INFO = 1  # good to know
    WARNING = 2  # look at it today
    CRITICAL = 3  # look at it now


class AlertKind(StrEnum):
    BREAKER_OPEN = "breaker_open"
    TARGET_SILENT = "target_silent"
    PROVIDER_DOWN = "provider_down"
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
    WAY_BACK_GONE = "way_back_gone"
    MODEL_ENDS = "model_ends"
    MODEL_ENDED = "model_ended"
    RETIREMENT_WAITS = "retirement_waits"
    SIGN_IN_ENDED = "sign_in_ended"
    TOKEN_NOT_RENEWED = "token_not_renewed"  # noqa: S105 - a kind
    EVIDENCE_MISMATCH = "evidence_mismatch"
    MODEL_SWITCH = "model_switch"
    INTERNAL_ERROR = "internal_error"
    DATABASE_RESTORED = "database_restored"
    SPENDING_CAP = "spending_cap"
    NEW_CANDIDATE = "new_candidate"
    BETTER_CANDIDATE = "better_candidate"
    SHADOW_VERDICT = "shadow_verdict"
    EVAL_WAITS = "eval_waits"
    LABELS_WAIT = "labels_wait"
    SPLIT = "split"
    MIXED_VECTORS = "mixed_vectors"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class AlertRule:
    severity: Severity
    next_step: str  # PROVIDER is a placeholder for the provider's name
    lasting: bool = True  # the cause lasts until it ends; False for a single event
    # Swapproof drops a source that reports nothing for this time, because a dead worker cannot
    # report the end of its cause. None if the control plane itself checks the cause.
    silent: timedelta | None = None
    by_router: bool = True  # routers report it; means nothing without `silent`
    remind: timedelta = timedelta(hours=24)  # the interval of reminders while the cause lasts


NO_SINK: Final = (
    "no person gets an alert: add a sink under `alerts.sinks` in swapproof.yaml (`swapproof "
    "docs open how-to/alerts`)"
)
PROVIDER_PLACEHOLDER: Final = "PROVIDER"
# Several times the interval of a worker's reports. A restarted worker without traffic needs
# this time to find the cause again by its health checks.
_WORKER: Final = timedelta(minutes=4)
_REPORTED_ONCE: Final = timedelta(minutes=30)  # for causes that a worker may report only once
_K = AlertKind
_S = Severity
ALERT_RULES: Final[Mapping[AlertKind, AlertRule]] = {
    _K.BREAKER_OPEN: AlertRule(
        _S.WARNING,
        "see the provider's status page; `swapproof route failovers` shows what failed, "
        "`swapproof switch throw` keeps traffic away",
        silent=_WORKER,
    ),
    _K.TARGET_SILENT: AlertRule(
        _S.CRITICAL,
        "see the provider's status page; `swapproof route fallback add` gives the route "
        "another target, which then answers such callers",
        silent=_WORKER,
    ),
    _K.PROVIDER_DOWN: AlertRule(
        _S.WARNING,
        "start the server if it is yours, else see the status page of PROVIDER; `swapproof "
        "route fallback add` gives a route another target. The first answer ends the alert",
    ),
    _K.ROUTE_DOWN: AlertRule(
        _S.CRITICAL,
        "`swapproof route failovers` shows what failed, and `swapproof switch list` the kill "
        "switches; `swapproof route fallback add` gives the route another target; `swapproof "
        "switch throw target:PROVIDER/MODEL` sends the route's requests to a target",
        remind=timedelta(hours=4),
    ),
    _K.ON_FALLBACK: AlertRule(
        _S.WARNING,
        "nothing at once: callers get answers; see the status page of the provider whose model "
        "fails, and `swapproof route failovers`",
    ),
    _K.OUR_KEY: AlertRule(
        _S.CRITICAL,
        "`swapproof provider key set PROVIDER` stores a valid key, which routers use at once "
        "(`swapproof provider key login PROVIDER` if people sign in with an account). Or put a "
        "key into the provider's variable in `.env` and send the router a SIGHUP. Then run "
        "`swapproof doctor`",
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
        "the provider has no such model any more: propose another model with `swapproof "
        "proposal create`",
        silent=_WORKER,
    ),
    _K.REVISION_REFUSED: AlertRule(
        _S.CRITICAL,
        "fix what the alert names, or go back with `swapproof route rollback`; the old "
        "revision continues to serve",
        silent=_REPORTED_ONCE,
    ),
    _K.OBSERVATIONS_DROPPED: AlertRule(
        _S.CRITICAL,
        "bring back the database and free the disk under `home`; canaries hold while "
        "observations are missing",
        silent=_REPORTED_ONCE,
    ),
    _K.SPOOL_FULL: AlertRule(
        _S.WARNING,
        "bring back the database: routers hold observations in memory, and lose them when the "
        "memory is full or the router ends",
        silent=_REPORTED_ONCE,
    ),
    _K.ROLLED_BACK: AlertRule(
        _S.CRITICAL,
        "`swapproof canary status` and the Canary page show the evidence; callers are on the "
        "incumbent",
        lasting=False,
    ),
    _K.LOCAL_ABORT: AlertRule(
        _S.CRITICAL,
        "check that the control plane runs: it makes the rollback final as soon as it can; "
        "callers are already on the incumbent",
        lasting=False,
    ),
    _K.CANARY_HELD: AlertRule(
        _S.WARNING,
        "fix what the alert names, or wait until the freeze ends: the canary then "
        "continues by itself; `swapproof canary status` shows its state",
    ),
    _K.WAY_BACK_GONE: AlertRule(
        _S.WARNING,
        "`swapproof route history` lists former incumbents: `swapproof route rollback "
        "--to-version N` restores another one if the present model fails. Add a fallback with "
        "`swapproof route fallback add`; `swapproof canary finish` ends a bake that compares "
        "nothing",
        remind=timedelta(days=7),
    ),
    _K.PROMOTED: AlertRule(
        _S.INFO,
        "nothing; `swapproof route rollback` restores the former model",
        lasting=False,
    ),
    _K.CANARY_PAUSED: AlertRule(
        _S.WARNING,
        "look at the Canary page, then `swapproof canary resume` or `abort`",
    ),
    _K.AWAITING_APPROVAL: AlertRule(
        _S.WARNING,
        "read the comparison, then `swapproof proposal approve` or `reject`",
    ),
    _K.SAMPLE_RATIO: AlertRule(
        _S.CRITICAL,
        "the canary cannot advance: check that all routers serve one revision, and that "
        "nothing between clients and routers retries or caches requests",
    ),
    _K.SHARED_KEY: AlertRule(
        _S.INFO,
        "send a key for each person or conversation, in `safety_identifier`, `user` or the "
        "header x-swapproof-sticky; until then each conversation is assigned separately",
        silent=_WORKER,
    ),
    _K.LEARNED_REPAIR: AlertRule(
        _S.INFO,
        "nothing, if answers may lack the field; else leave out a field of the combination, or "
        "send such requests to another target. Page Providers and `swapproof doctor` list the "
        "combinations",
        silent=_WORKER,
        remind=timedelta(days=7),
    ),
    _K.KEY_BUDGET: AlertRule(
        _S.WARNING,
        "`swapproof key list` shows each key's spending; `swapproof key limits` changes "
        "budgets",
        lasting=False,
    ),
    _K.SPENDING_CAP: AlertRule(
        _S.WARNING,
        "`swapproof spending` shows the spending by purpose; raise `spending.monthly_cap_usd` "
        "and send the control process a SIGHUP, or wait for the next month",
    ),
    _K.WAIVER_EXPIRED: AlertRule(
        _S.WARNING,
        "remove the target with `swapproof route fallback remove`, or give it a verdict or a "
        "new waiver with `add`; until then the route's settings and chain cannot change",
    ),
    _K.MIXED_VECTORS: AlertRule(
        _S.CRITICAL,
        "remove the other model with `swapproof route fallback remove`, or end its canary with "
        "`swapproof canary abort`. If one index may hold the vectors of both models, set "
        "`comparable_vectors: true` on the route",
    ),
    _K.BREAK_GLASS: AlertRule(
        _S.CRITICAL,
        "`swapproof route break-glass list` shows who is responsible; `end` restores the "
        "former model early. If that model cannot serve, repair its provider, or restore "
        "another former model with `swapproof route rollback`",
        remind=timedelta(hours=4),
    ),
    _K.JOB_FAILED: AlertRule(
        _S.CRITICAL, "see the control process's log, and `swapproof doctor`"
    ),
    _K.AUDIT_BROKEN: AlertRule(
        _S.CRITICAL,
        "`swapproof audit verify` names the event or the row: compare it with a backup",
    ),
    _K.DRIFT: AlertRule(
        _S.CRITICAL,
        "`swapproof drift status ROUTE` shows the changed answers: accept the new answers with "
        "`swapproof drift accept`, or propose another model",
    ),
    _K.SERVED_MODEL: AlertRule(
        _S.WARNING,
        "ask the provider what it changed; `swapproof drift run` measures at once, "
        "`swapproof drift accept` makes the new model the reference",
    ),
    _K.MODEL_ENDS: AlertRule(
        _S.WARNING,
        "run the command in the alert: it proposes the successor, or shows the candidates; "
        "`swapproof model list` shows when each model ends",
        remind=timedelta(days=7),
    ),
    _K.MODEL_ENDED: AlertRule(
        _S.CRITICAL,
        "the provider may refuse the model at any time: propose the successor now, and check "
        "that the route's fallbacks are other models",
    ),
    _K.SIGN_IN_ENDED: AlertRule(
        _S.CRITICAL,
        "a person with the account runs `swapproof provider key login PROVIDER`; until then "
        "fallbacks answer",
    ),
    _K.TOKEN_NOT_RENEWED: AlertRule(
        _S.WARNING,
        "check that the control process reaches the address in the alert; Swapproof tries "
        "again at least once a minute",
    ),
    _K.EVIDENCE_MISMATCH: AlertRule(
        _S.CRITICAL,
        "somebody changed scores or verdicts in the database: compare it with a backup; "
        "`swapproof gate replay` and `swapproof db check` show the differences",
        lasting=False,
    ),
    _K.MODEL_SWITCH: AlertRule(
        _S.WARNING,
        "read the question on the page Sessions or with `swapproof agent requests`, then "
        "`swapproof agent approve` or `reject`",
    ),
    _K.INTERNAL_ERROR: AlertRule(
        _S.CRITICAL,
        "report it with the router's log, which names the line of code; the route's canary "
        "takes no step until a person runs `swapproof canary resume`",
    ),
    _K.DATABASE_RESTORED: AlertRule(
        _S.CRITICAL,
        "bring the newer database back, or accept the restored database with "
        "`swapproof db accept-restore --reason WHY`",
        silent=_WORKER,
    ),
    _K.NEW_CANDIDATE: AlertRule(
        _S.INFO,
        "nothing; `swapproof route candidates ROUTE` shows the measurements and their times",
        lasting=False,
    ),
    _K.RETIREMENT_WAITS: AlertRule(
        _S.WARNING,
        "run the command in the alert: it approves the swap, or compares a spare with the "
        "model that ends; `swapproof route fallback spares` lists the spares",
        remind=timedelta(days=7),
    ),
    _K.BETTER_CANDIDATE: AlertRule(
        _S.INFO,
        "read the comparison, then propose the swap with `swapproof proposal create`",
        lasting=False,
    ),
    _K.SHADOW_VERDICT: AlertRule(
        _S.INFO,
        "`swapproof shadow status` shows the verdict, and the next commands: a shadow's "
        "verdict opens no canary",
        lasting=False,
    ),
    _K.EVAL_WAITS: AlertRule(
        _S.WARNING,
        "bring a provider back that is away. Where callers come first, wait, raise the "
        "account's limit, or give the candidate a key of another account. `swapproof proposal "
        "retry` tries at once, and `swapproof proposal cancel` ends the comparison",
    ),
    _K.LABELS_WAIT: AlertRule(
        _S.WARNING,
        "label the pairs by the command in the alert, or on the page Labels; `swapproof "
        "proposal cancel` ends the comparison",
    ),
    _K.SPLIT: AlertRule(
        _S.CRITICAL,
        "do what the alert says; before you change the shares in the gateway yourself, end "
        "`swapproof serve drive`",
        silent=_WORKER,
        by_router=False,
    ),
    _K.TEST: AlertRule(_S.INFO, "nothing: this is a test", lasting=False),
}


class AlertEvent(StrEnum):
    RAISED = "raised"
    STILL = "still"  # the cause lasts; the alert's count does not rise
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Alert:
    """Reports a condition or its end. Never contains a request's content or a secret."""

    kind: AlertKind
    subject: str  # such as `target openai/gpt-6-sol`
    key: str  # alerts with the same key share one record
    title: str
    text: str
    at: datetime
    source: str  # the process that detected it; an end counts only for its own source
    news: AlertEvent = AlertEvent.RAISED
    details: Mapping[str, Any] = field(default_factory=dict)  # the figures in its text, as JSON

    @property
    def severity(self) -> Severity:
        return ALERT_RULES[self.kind].severity

    @property
    def next_step(self) -> str:
        return find_next_step(self.kind, self.subject)

    def now(self, news: AlertEvent, at: datetime) -> "Alert":
        return replace(self, news=news, at=at)


def find_next_step(kind: AlertKind, subject: str) -> str:
    """Returns the kind's next step. If the subject is a provider, the step contains
    its name.
    """
    noun, _, name = subject.partition(" ")
    step = ALERT_RULES[kind].next_step
    return step.replace(PROVIDER_PLACEHOLDER, name) if noun == "provider" and name else step
