"""`swapproof audit` and `swapproof alert`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.pagination import PageRequest
from harness.frame.signing.audit import AuditFilter, AuditPosition
from harness.frame.signing.audit_sentences import describe_event
from harness.frame.text_files import read_text
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    FILE,
    arg,
    command,
    opt,
    page_of,
    taken_from,
)
from harness.interfaces.cli.frame.output import note_page, timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.operations.database import print_faults
from harness.operations import alert_delivery, integrity, queries

WRITERS: Final = {
    ".csv": integrity.write_csv,
    ".jsonl": integrity.write_json_lines,
}
DAY_OR_TIME: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def audit() -> None:
    """The audit log: append-only, hash-chained."""


def _build_filter(
    *,
    actor: str = opt(
        "Text in the actor's name, or a key's id.",
        metavar="TEXT",
        default="",
    ),
    action: str = opt("Text in the action.", metavar="TEXT", default=""),
    subject: str = opt("Text in the subject.", metavar="TEXT", default=""),
    since: datetime | None = opt("Only from this day or time, UTC.", type=DAY_OR_TIME),
    until: datetime | None = opt("Only before this day or time, UTC.", type=DAY_OR_TIME),
) -> AuditFilter:
    # Users enter UTC, because every printed time is UTC.
    begin, end = (time.replace(tzinfo=UTC) if time else None for time in (since, until))
    return AuditFilter(actor, action, subject, begin, end)


@command(audit, example="swapproof audit tail --action proposal")
def tail(
    session: Session,
    *,
    selection: AuditFilter = taken_from(_build_filter),
    page_request: PageRequest = page_of(20, "-n"),
) -> None:
    """Show the newest events as sentences, in the order in which they happened.

    `--json` prints all details.
    """
    audit_events = queries.list_audit_events(
        session.context, page_request, selection, reader=session.actor
    )
    note_page(audit_events)
    output.listing(
        list(reversed(audit_events)),
        lambda event: {
            "NUMBER": event.number,
            "AT (UTC)": timestamp(event.at),
            "EVENT": describe_event(event),
        },
        empty="the log has no such event",
    )


@command(audit, example="swapproof audit export audit.csv --since 2026-11-01")
def export(
    session: Session,
    file: Path = arg(type=FILE),
    *,
    selection: AuditFilter = taken_from(_build_filter),
) -> None:
    """Write events to FILE, newest first: .csv for spreadsheets, .jsonl for programs.

    The command overwrites no file.
    """
    write = WRITERS.get(file.suffix.lower())
    if write is None:
        raise InputError(f"{file}: the name must end in {' or '.join(WRITERS)}")
    events = queries.read_audit_events(session.context, selection, reader=session.actor)
    try:
        with file.open("x", encoding="utf-8", newline="") as stream:
            count = write(events, stream)
    except FileExistsError:
        raise InputError(f"{file} exists: delete it, or name another file") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}. Name a file in a folder that exists"
        ) from None
    if not output.documented({"file": str(file), "events": count}):
        output.note(f"{format_quantity(count, 'event')} written to {file}")


@command(audit, example="swapproof audit verify")
def verify(
    session: Session,
    *,
    head: str | None = opt(
        "A head that the control plane printed, or a file of heads.",
        metavar="HEAD",
    ),
) -> int:
    """Check the chain from its first event, and the signature of every signed row.

    Exit code 1 if a check fails, or if the log lacks an event that HEAD names.
    """
    faults = session.context.store.signature_faults()
    first_break = queries.find_audit_break(session.context)
    events = queries.list_audit_events(session.context, PageRequest(1)).total
    heads = [] if head is None else _read_heads(session, head)
    missing_event = integrity.find_missing_head(session.context, heads)
    if not output.documented(
        {
            "whole": first_break is None,
            "events": events,
            "first_break": first_break,
            "rows": [{"row": fault.name, "why": fault.why} for fault in faults],
            "heads": len(heads),
            "missing_head": missing_event,
        }
    ):
        _print_chain(first_break, events)
        if heads:
            _print_heads(len(heads), missing_event)
        print_faults(faults)
    return 0 if first_break is None and missing_event is None and not faults else 1


def _read_heads(session: Session, head: str) -> Sequence[AuditPosition]:
    text = head if head.lstrip().startswith("{") else read_text(head)
    return integrity.read_heads(text, session.installation.signatures)


def _print_chain(first_break: int | None, events: int) -> None:
    if first_break is None:
        click.echo(f"the audit log is whole: {events} events")
        return
    click.echo(
        f"the audit log is broken at event {first_break}: this event, or an earlier one, was "
        "changed or is missing"
    )


def _print_heads(heads: int, missing_event: int | None) -> None:
    if missing_event is None:
        click.echo(f"the log has the events of {format_quantity(heads, 'printed head')}")
        return
    click.echo(
        f"a printed head names event {missing_event}, but the log lacks it or holds other "
        "content: someone cut or changed the log"
    )


@click.group()
def alert() -> None:
    """Alerts: open faults, and who was notified."""


@command(alert, "list", example="swapproof alert list --open")
def list_alerts(
    session: Session,
    *,
    open_only: bool = opt("Only alerts whose cause persists.", "--open"),
    search: str = opt("Only alerts that contain this text.", default=""),
    page_request: PageRequest = page_of(50),
) -> None:
    """List alerts, most recent first, with the next step of each."""
    alerts = queries.list_alerts(
        session.context,
        page_request,
        open_only=open_only,
        search=search,
    )
    output.listing(
        alerts,
        lambda row: {
            "LAST SEEN": timestamp(row.last_seen),
            "SEVERITY": row.severity.name.lower(),
            "STATE": "open" if row.open else "over",
            "TIMES": row.count,
            "ALERT": f"{row.title} ({row.kind.value})",
            "TOLD": row.message_counts or "no message",
            "NEXT STEP": row.next_step if row.open else " ",
        },
        empty="no alert is open" if open_only else "there were no alerts",
    )
    if any(row.open for row in alerts) and not session.json:
        output.note("step by step: `swapproof docs open runbook`")


@command(alert, example="swapproof alert test")
def test(session: Session) -> int:
    """Send a test message to every sink, with this command's environment variables.

    Exit code 1 if a sink did not accept it.
    """
    attempts = alert_delivery.send_test(session.context, session.actor)
    output.listing(
        attempts,
        lambda attempt: {
            "SINK": attempt.sink,
            "DELIVERED": "yes" if attempt.delivered else "NO",
            "WHY NOT": attempt.error,
        },
        empty="",
    )
    return 0 if all(attempt.delivered for attempt in attempts) else 1
