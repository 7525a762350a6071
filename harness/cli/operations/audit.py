"""`swapgate audit` shows the newest events (`tail`), and checks the log's chain and the
signatures of rows (`verify`).
"""

import json

import click

from harness.cli.frame import formatting, output, paging
from harness.cli.frame.session import Session, pass_session
from harness.cli.operations.database import print_faults
from harness.control.operations import queries
from harness.domain.pagination import PageRequest


@click.group()
def audit() -> None:
    """The audit log: append-only, hash-chained."""


@audit.command()
@paging.page_options_with(20, "-n")
@pass_session
def tail(session: Session, page_request: PageRequest) -> None:
    """Show the newest events, the newest last."""
    audit_events = queries.list_audit_events(session.context, page_request)
    paging.note_page(audit_events)
    events = list(reversed(audit_events))
    if session.json:
        output.document(events)
        return
    output.table(
        ["NUMBER", "AT (UTC)", "WHO", "DID", "TO", "DETAILS"],
        [
            [
                event.number,
                formatting.timestamp(event.at),
                f"{event.actor} ({event.key})" if event.key else event.actor,
                event.action,
                event.subject,
                _short(json.dumps(dict(event.details), ensure_ascii=False)),
            ]
            for event in events
        ],
        empty="nothing was done yet",
    )


@audit.command()
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Check the chain from its first event, and the signature of every row that was decided.

    Exit code 1 where the chain is broken or a signature does not hold.
    """
    session = ctx.ensure_object(Session)
    faults = queries.list_signature_faults(session.context)
    broken = queries.find_audit_break(session.context)
    events = queries.list_audit_events(session.context, PageRequest(1)).total
    if session.json:
        output.document(
            {
                "whole": broken is None,
                "events": events,
                "first_break": broken,
                "rows": [{"row": fault.name, "why": fault.why} for fault in faults],
            }
        )
    elif broken is None:
        click.echo(f"the audit log is whole: {events} events")
    else:
        click.echo(
            f"the audit log is broken at event {broken}: it, or one before, was changed or "
            "is missing"
        )
    if not session.json:
        print_faults(faults)
    ctx.exit(0 if broken is None and not faults else 1)


def _short(text: str, width: int = 100) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
