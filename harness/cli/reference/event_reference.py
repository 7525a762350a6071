"""Writes the reference of exit codes with the errors that give them, of alerts, and of the
audit log's actions, from their registries.

Says what each kind of alert means, for the generated docs/reference/events.md.

Every action that the audit log may hold, with what it records; docs/reference/events.md is
written from it.

An action is `subject.verb`. Those of a canary and of a proposal end in the signal or the event
that moved it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final

from harness.cli.reference.metric_reference import code, link, page, table
from harness.domain import errors
from harness.domain.errors import SwapgateError
from harness.domain.formatting import format_quantity
from harness.domain.operations.alerts import ALERT_RULES, AlertKind
from harness.domain.privacy.stored_content import BEYOND, COLUMNS, FILES, USERS, ContentColumn

HEADS = ("Place", "What it holds", "Ends", "Deletion of a user")


def privacy_page() -> str:
    """Writes the page of every place with content."""
    return page(
        "Where content is",
        "Every column and file that can hold what people and models wrote, or that tells one "
        f"user from another. How to use it: {link('how-to/privacy', 'privacy')}. A test holds "
        "this page against the schema of the database: no column of text is missing.",
        "## Content",
        table(HEADS, _rows(COLUMNS)),
        "## Users",
        table(HEADS, _rows(USERS)),
        "## Files",
        table(
            HEADS,
            ((f.place, f.holds, f.ends, f.deletion) for f in FILES),
        ),
        "## What a deletion does not reach",
        "\n".join(f"- {sentence[0].upper()}{sentence[1:]}." for sentence in BEYOND),
    )


def _rows(columns: Iterable[ContentColumn]) -> Iterable[tuple[str, ...]]:
    for column in columns:
        place = code(f"{column.table}.{column.column}")
        yield place, column.holds, column.ends, column.deletion


AUDIT_ACTIONS: Final[Mapping[str, str]] = {
    "agent.grant": "an agent may use a model",
    "agent.grant_end": "grants of agents ended with their time",
    "agent.grant_revoke": "a person took a grant back",
    "agent.purge": "the sessions of a user were removed",
    "agent.switch_approve": "a person let an agent go on with another model",
    "agent.switch_reject": "a person refused it",
    "canary.abort": "a person aborted a canary, or took its promotion back",
    "canary.acknowledge": "a person acknowledged a router's faults in a canary",
    "canary.advance": "a person raised a canary's share by one step",
    "canary.baked": "the bake ended, and the candidate keeps the route",
    "canary.base_changed": "a canary or its bake ended, since the route was changed by another",
    "canary.enough": "a step has its units, and its evidence is measured",
    "canary.finish": "a person ended the bake",
    "canary.harm": "a canary was rolled back by evidence of harm",
    "canary.pause": "a person paused a canary",
    "canary.promote": "the candidate became the route's model, by its evidence or by hand",
    "canary.proven": "a canary was promoted: its last step is certified",
    "canary.resume": "a person resumed a canary",
    "canary.silent": "a canary was paused: it gets no traffic",
    "canary.stale": "a canary ended since the candidate's name stands for another model",
    "canary.step_done": "a canary's share rose",
    "canary.undecided": "a canary was paused: a step's time is over without enough evidence",
    "capture.export": "captured requests were written to a file",
    "capture.purge": "captured requests were removed",
    "capture.read": "somebody read captured requests",
    "credential.login": "somebody signed in at a provider",
    "credential.logout": "that sign-in was given up",
    "credential.put": "a provider's key was stored",
    "credential.remove": "a provider's stored key was removed",
    "credential.rotate_encryption": "stored keys were encrypted with a new key",
    "dashboard.link": "a link to sign in to the dashboard was made",
    "dashboard.end": "an admin ended somebody's session",
    "dashboard.link_replayed": "such a link was opened a second time, and refused",
    "dashboard.sign_in": "somebody signed in to the dashboard",
    "dashboard.sign_out": "somebody signed out",
    "database.accept_restore": "a restored database was accepted",
    "database.remove_forged": "forged rows were removed, by hand",
    "database.sign_again": "rows were signed with a new key",
    "drift.baseline": "a watch began, or a person accepted what the model answers now",
    "drift.found": "a watched model answers otherwise than it did",
    "drift.run": "a watched model was asked again",
    "eval.cancel": "a person cancelled an eval run",
    "eval.run": "an eval run was ordered",
    "judge.calibrated": "a judge's agreement with people was measured",
    "break_glass.confirm": "a second person let a model serve a route without proof",
    "break_glass.end": "a break-glass ended; where it served, the former model is back",
    "break_glass.propose": "a person asked that a model serve a route without proof",
    "freeze.add": "a route, or all of them, was frozen",
    "freeze.lift": "a freeze was ended before its time",
    "key.create": "a data key or a management key was made",
    "key.limits": "the limits of a data key were changed",
    "key.opt_outs": "what a data key opts out of was changed",
    "key.revoke": "a key was revoked",
    "model.add": "a target was added",
    "person.link": "an admin declared that two principals are one person",
    "person.separate": "an admin declared that a principal is nobody else here",
    "proposal.approve": "a person approved a proposal",
    "proposal.approved": "an approved proposal goes on",
    "proposal.base_changed": "a proposal ended since the route was changed by another",
    "proposal.cancelled": "a person cancelled a proposal",
    "proposal.create": "a swap was proposed; its rules are registered here",
    "proposal.expired": "a proposal waited too long for a person",
    "proposal.failed": "the gate refused it",
    "proposal.frozen": "it passed, and its canary waits for the end of a freeze",
    "proposal.harm": "a shadow or a canary ended it by evidence of harm",
    "proposal.harness_mismatch": "it loses by format, not by content",
    "proposal.healthy": "its canary is over, and the candidate has the route",
    "proposal.inconclusive": "the planned items do not decide",
    "proposal.infra_error": "the infrastructure failed; it is measured again",
    "proposal.infra_limit": "the infrastructure failed too often",
    "proposal.mirror": "its shadow began",
    "proposal.not_chosen": "it passed, and another candidate of its selection was better",
    "proposal.passed": "the gate passed it",
    "proposal.passed_needs_approval": "the gate passed it, and a person is asked",
    "proposal.refused": "a person rejected it",
    "proposal.retry": "it is measured once more",
    "proposal.shadowed": "its shadow is over",
    "proposal.stale": "its verdict is no proof any more",
    "proposal.start": "its eval runs began",
    "provider.discover": "a provider's list of models was read",
    "provider.put": "a provider was added or changed",
    "provider.remove": "a provider was removed",
    "route.create": "a route was created",
    "route.fallbacks": "a route's fallback chain was changed",
    "route.rollback": "a person put a route back to an earlier model",
    "route.settings": "a route's settings were changed",
    "shadow.start": "requests are mirrored to a candidate",
    "shadow.stop": "they are mirrored no more",
    "signing_key.retire": "a key that signs rows was retired",
    "signing_key.rotate": "rows are signed with a new key from here on",
    "suite.add": "a suite was added in the dashboard, by its data or by labels",
    "spending.cap": "the monthly cap was changed in the configuration file",
    "switch.lift": "a kill switch was lifted",
    "switch.throw": "a kill switch was thrown",
    "verdict": "the gate decided; the event has the verdict's id",
    "user.delete": "what a user said and got was deleted",
    "waiver.add": "a fallback may serve without a verdict, for a time",
}


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
    _K.SHARED_KEY: (
        "one sticky key carries more than 5 % of a route's requests, so a canary draws its "
        "conversations"
    ),
    _K.LEARNED_REPAIR: (
        "a target refused a field of requests, or what another target wrote, so the router "
        "changes it, or leaves it out, for a day; answers name it in `x-swapgate-degraded`"
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


EXIT_CODES: Final[Mapping[int, str]] = {
    0: "passed, or done",
    1: "an error",
    2: "wrong usage, or invalid input: the message names file and line",
    3: "the gate failed, or the canary must be rolled back",
    4: "not enough evidence",
    5: "timeout",
    6: "a conflict: somebody else was first, or the route is busy",
    7: "denied",
    130: "interrupted",
}
EXIT_CODES_INTRODUCTION: Final = """\
Every command ends with one of these, so that a script need not read its text."""
ERRORS_INTRODUCTION: Final = """\
With `--json` an error is `{"error": {"kind", "message", "exit_code", "retryable"}}` on stdout,
and one sentence on stderr as always. Where `retryable` is yes, the same call, unchanged, may
yet succeed."""
EVENTS_INTRODUCTION: Final = """\
What Swapgate tells people (alerts), and what it writes down for good (the audit log)."""
ALERTS_INTRODUCTION: Final = """\
Each links to its section of the runbook. `swapgate alert list --open` and `GET /api/v1/alerts`
show what is wrong now; ALERTS says who is told, and when. An alert that
lasts goes on until its cause is over, and people are told again after the time named here;
one that does not is over as it happens."""
AUDIT_INTRODUCTION: Final = """\
`swapgate audit tail` shows the log, and `swapgate audit verify` finds out whether it was
changed. Every event has a number, a time, who did it (with the key), an action, a subject,
details with the reason, and the rows that it wrote.

The control plane prints each new event on stdout as a line of JSON: `{"audit": {…}}`. Several
control processes each print all events. Collect these lines, for example for a SIEM. Every hour
and at each promotion the control plane prints the chain's signed head: `{"audit_head": NUMBER,
…}`. Somebody who cuts the log's tail leaves a chain that holds, but the printed head is not in
it:

```sh
swapgate audit verify --head collected.log
```

The exit code is 1 where the log lacks the event of a printed head. `swapgate audit export`
writes the events that were recorded while no control process ran."""
ERROR_LINE: Final = re.compile(r"^[│├└─ ]+(\w+) +(.+)$", re.MULTILINE)


def exit_codes_page() -> str:
    """Writes docs/reference/exit-codes.md."""
    rows = [(str(number), meaning) for number, meaning in EXIT_CODES.items()]
    return page(
        "Exit codes and errors",
        EXIT_CODES_INTRODUCTION,
        table(("Exit code", "Means"), rows),
        "## Errors",
        ERRORS_INTRODUCTION,
        table(("Kind", "Exit code", "Retryable", "Means"), _error_rows()),
    )


def _error_rows() -> Iterator[tuple[str, str, str, str]]:
    """The classes in the order of the tree in their module's docstring."""
    classes = {cls.__name__: cls for cls in _below(SwapgateError)}
    for name, meaning in ERROR_LINE.findall(errors.__doc__ or ""):
        cls = classes[name]
        yield code(name), str(cls.exit_code), "yes" if cls.retryable else "no", meaning


def _below(cls: type[SwapgateError]) -> Iterable[type[SwapgateError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def events_page() -> str:
    """Writes docs/reference/events.md."""
    alerts = [
        (
            link(f"runbook#{kind}", code(kind)),
            rule.severity.name.lower(),
            f"yes, again after {_duration(rule.remind)}" if rule.lasting else "no",
            _sentence(ALERT_MEANINGS[kind]),
            _sentence(rule.next_step),
        )
        for kind, rule in ALERT_RULES.items()
    ]
    actions = [
        (code(action), _sentence(meaning)) for action, meaning in sorted(AUDIT_ACTIONS.items())
    ]
    return page(
        "Events",
        EVENTS_INTRODUCTION,
        "## Alerts",
        ALERTS_INTRODUCTION.replace("ALERTS", link("reference/alerts", "alerts")),
        table(("Kind", "Severity", "Lasts", "What it means", "What to do"), alerts),
        "## The audit log",
        AUDIT_INTRODUCTION,
        table(("Action", "What happened"), actions),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _duration(time: timedelta) -> str:
    hours = int(time.total_seconds() // 3_600)
    return format_quantity(time.days, "day") if hours > 24 else format_quantity(hours, "hour")
