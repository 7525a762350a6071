"""`swapgate alert` lists alerts with what to do about each, and sends a test through every
sink.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.command import command, opt, page_of
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.operations import alerts, queries
from harness.domain.pagination import PageRequest


@click.group()
def alert() -> None:
    """Alerts: what is wrong now, and who was notified."""


@command(alert, "list")
def list_alerts(
    session: Session,
    *,
    open_only: bool = opt("Only alerts whose cause persists.", "--open"),
    search: str = opt("Only alerts that have this text in them.", default=""),
    page_request: PageRequest = page_of(50),
) -> None:
    """List alerts, the most recent first, with what to do about each."""
    found = queries.list_alerts(
        session.context, page_request, open_only=open_only, search=search
    )
    output.listing(
        found,
        lambda row: {
            "LAST SEEN": timestamp(row.last_seen),
            "SEVERITY": row.severity.name.lower(),
            "STATE": "open" if row.open else "over",
            "TIMES": row.count,
            "ALERT": f"{row.title} ({row.kind.value})",
            "TOLD": _delivery_counts(row),
            "NEXT STEP": row.next_step if row.open else " ",
        },
        empty="no alert is open" if open_only else "there were no alerts",
    )
    if any(row.open for row in found) and not session.json:
        output.note("what to do, step by step: `swapgate docs open runbook`")


@command(alert)
def test(session: Session) -> int:
    """Send a test through every sink of the configuration, with this command's environment.

    Exit code 1 when a sink did not accept it.
    """
    tried = alerts.send_test(session.context, session.actor)
    output.listing(
        tried,
        lambda attempt: {
            "SINK": attempt.sink,
            "DELIVERED": "yes" if attempt.delivered else "NO",
            "WHY NOT": attempt.error,
        },
        empty="",
    )
    return 0 if all(attempt.delivered for attempt in tried) else 1


def _delivery_counts(view: alerts.AlertView) -> str:
    counts = {"sent": view.delivered, "waiting": view.waiting, "given up": view.given_up}
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nobody"
