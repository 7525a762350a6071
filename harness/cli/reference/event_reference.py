"""Writes the reference of exit codes with the errors that give them, of alerts, and of the
audit log's actions, from their registries.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final

from harness.cli.reference.markdown_table import code, link, page, table
from harness.domain import errors
from harness.domain.errors import SwapgateError
from harness.domain.formatting import format_quantity
from harness.domain.operations.alert_meanings import ALERT_MEANINGS
from harness.domain.operations.alerts import ALERT_RULES
from harness.domain.operations.audit_actions import AUDIT_ACTIONS

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
