"""Says what each kind of alert means, for the generated docs/reference/events.md."""

from collections.abc import Mapping
from typing import Final

from harness.domain.operations.alerts import AlertKind

_K = AlertKind
ALERT_MEANINGS: Final[Mapping[AlertKind, str]] = {
    _K.BREAKER_OPEN: (
        "a target failed too often and gets no requests; the text names who carries each "
        "route's load"
    ),
    _K.OUR_KEY: "the provider refuses our key (401)",
    _K.QUOTA: "our account has no quota left, or is suspended (402, 403, `insufficient_quota`)",
    _K.MODEL_UNKNOWN: "the provider does not know the model any more",
    _K.REVISION_REFUSED: "a new routing revision does not validate; the old one serves",
    _K.OBSERVATIONS_DROPPED: (
        "a router can store observations neither in the database nor on disk nor in memory, "
        "and loses the oldest"
    ),
    _K.SPOOL_FULL: "the database cannot be reached, and the spool has reached its limit",
    _K.ROLLED_BACK: (
        "a canary, or a promotion in its bake, was ended by harm to users, or because the "
        "candidate's name stands for another model; the incumbent serves all, and a harmful "
        "candidate leaves the fallback chain (the text says so where it could not)"
    ),
    _K.LOCAL_ABORT: (
        "a router stopped a canary by its own evidence; its users are on the incumbent"
    ),
    _K.CANARY_HELD: (
        "a canary goes no further while its data cannot be trusted or its route is frozen; "
        "the text names the reason"
    ),
    _K.SHADOW_HELD: (
        "a shadow that has to precede a canary cannot go on, or its money is spent; no user"
        " gets the candidate meanwhile"
    ),
    _K.PROMOTED: "a route has a new model",
    _K.CANARY_PAUSED: "a canary waits for a person",
    _K.AWAITING_APPROVAL: "a swap has passed and waits for a person",
    _K.SAMPLE_RATIO: (
        "a canary gets another share of traffic than planned, so it cannot advance"
    ),
    _K.KEY_BUDGET: "a data key came near its budget, or reached it",
    _K.SPENDING_CAP: (
        "evals, judges, shadows or drift checks wait, or turns of agents are refused, since "
        "the monthly cap leaves too little; all other requests of users go on"
    ),
    _K.WAIVER_EXPIRED: (
        "a fallback's waiver has ended; the fallback goes on serving, but no change of the "
        "route can keep it"
    ),
    _K.BREAK_GLASS: (
        "two people let a model serve a route without proof, for a limited time; or that time "
        "is over, and the former model cannot return"
    ),
    _K.JOB_FAILED: "a job of the control process raised an error",
    _K.AUDIT_BROKEN: "the audit log does not fit its chain",
    _K.DATABASE_RESTORED: (
        "the database is behind what routers have served: it was restored from a backup, or "
        "is an old copy; routers keep their last table, and the control plane changes nothing"
    ),
    _K.EVIDENCE_MISMATCH: "stored scores no longer give a verdict that a canary stands on",
    _K.DRIFT: (
        "an incumbent no longer answers a suite as it did; the text has the figures and"
        " examples"
    ),
    _K.SERVED_MODEL: (
        "answers, also those to users, name another model than the drift watch's runs met"
    ),
    _K.MODEL_ENDS: (
        "a model in use has an announced end within 90 days; the text names its routes, "
        "and a successor with its price (models)"
    ),
    _K.MODEL_ENDED: "the announced day of a model that is still in use has come",
    _K.SIGN_IN_ENDED: (
        "the vendor of an OAuth provider refuses to renew a sign-in: somebody revoked the "
        "application or the account"
    ),
    _K.TOKEN_NOT_RENEWED: (
        "the vendor's token server failed to renew a token three times or more; the text"
        " names it"
    ),
    _K.MODEL_SWITCH: (
        "an agent asks to go on with another model; the message has both prices, the "
        "measured quality, the agent's reason and a link to decide"
    ),
    _K.INTERNAL_ERROR: (
        "the router itself failed in a request; the text has the place in the code, and "
        "no content. With a canary on the route it stays open until somebody resumes the "
        "canary, otherwise until an hour after the last error"
    ),
    _K.TEST: "somebody ran `swapgate alert test`",
}
