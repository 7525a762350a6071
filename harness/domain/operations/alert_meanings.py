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
    _K.OBSERVATIONS_DROPPED: "database, disk and memory take no observations",
    _K.SPOOL_FULL: "the database is away and the spool at its cap",
    _K.ROLLED_BACK: (
        "a canary, or a promotion in its bake, was ended by harm to users, or because the "
        "candidate's name stands for another model; the incumbent serves all, and a harmful "
        "candidate leaves the fallback chain (the text says so where it could not)"
    ),
    _K.LOCAL_ABORT: (
        "a router stopped a canary by its own evidence; its users are on the incumbent"
    ),
    _K.CANARY_HELD: (
        "a canary goes no further while something is wrong with its data; the text names it"
    ),
    _K.SHADOW_HELD: (
        "a shadow that comes before a canary cannot go on, or its money is spent; no user"
        " gets the candidate meanwhile"
    ),
    _K.PROMOTED: "a route has a new model",
    _K.CANARY_PAUSED: "a canary waits for a person",
    _K.AWAITING_APPROVAL: "a swap has passed and waits for a person",
    _K.SAMPLE_RATIO: (
        "a canary gets another share of traffic than planned, so it cannot advance"
    ),
    _K.KEY_BUDGET: "a data key came near its budget, or reached it",
    _K.WAIVER_EXPIRED: (
        "a fallback's waiver has ended; it serves on, and nobody can change the route and"
        " keep it"
    ),
    _K.JOB_FAILED: "a job of the control process raised an error",
    _K.AUDIT_BROKEN: "the audit log does not fit its chain",
    _K.STATE_UNRECORDED: (
        "a row has no audit event that wrote it, or is not as its event left it"
    ),
    _K.DATABASE_RESTORED: (
        "the database holds less than routers served: it was restored from a backup, or "
        "is an old copy; routers serve what they have, and the control plane moves "
        "nothing"
    ),
    _K.EVIDENCE_MISMATCH: "stored scores no longer give a verdict that a canary stands on",
    _K.DRIFT: (
        "an incumbent answers a suite otherwise than it did; the text has the figures and"
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
        "the vendor of an OAuth provider renews nothing any more: somebody revoked the "
        "application, or the account"
    ),
    _K.TOKEN_NOT_RENEWED: (
        "the vendor's server does not answer as it should, three times and more; the text"
        " names it"
    ),
    _K.MODEL_SWITCH: (
        "an agent asks to go on with another model; the message has both prices, the "
        "measured quality, the agent's reason and a link to decide"
    ),
    _K.INTERNAL_ERROR: (
        "the router itself failed in a request; the text has the place in the code, and "
        "no content. Of a canary's route it is open until somebody resumes, else it ends "
        "an hour after the last one"
    ),
    _K.LEADER_SILENT: (
        "the control process that leads on a SQLite file is stopped or hangs, and no other "
        "can take its place"
    ),
    _K.AUDIT_EXPORT: (
        "a receiver of copies of the audit log fails, or has an event that the log lacks"
    ),
    _K.TEST: "somebody ran `swapgate alert test`",
}
