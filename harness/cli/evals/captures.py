"""`swapgate capture` lists, shows, exports and deletes requests captured from production,
redacted; an export is labelled by hand and becomes a suite (F9).
"""

import json
from datetime import timedelta
from pathlib import Path

import click

from harness.cli.frame import output
from harness.cli.frame.command import FILE, ONLY_ROUTE, PAGE, FiniteRange, arg, command, opt
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.operations import queries
from harness.control.privacy import captures
from harness.control.serialize import escape_surrogates
from harness.domain.errors import InputError
from harness.domain.pagination import PageRequest


@click.group()
def capture() -> None:
    """Captured requests: from production, redacted, to be labelled."""


@command(capture, "list")
def list_captures(
    session: Session, *, route: str | None = ONLY_ROUTE, page_request: PageRequest = PAGE
) -> None:
    """List captured requests, the newest first; never their content."""
    found = queries.list_captures(session.context, page_request, route=route)
    output.listing(
        found,
        lambda summary: {
            "CAPTURE": summary.id,
            "AT": timestamp(summary.at),
            "ROUTE": summary.route,
            "TARGET": summary.target,
            "MESSAGES": summary.messages,
            "TOOLS": summary.tools,
            "REDACTED": ", ".join(f"{name} {n}" for name, n in summary.redactions.items()),
            "SEEN": summary.seen,
            "EXPIRES": timestamp(summary.expires_at),
        },
        empty="nothing is captured: `swapgate route settings ROUTE --capture 1%` begins it",
    )


@command(capture)
def show(session: Session, capture_id: str = arg("CAPTURE")) -> None:
    """Show a captured request, with its content. The audit log notes who read it."""
    request = captures.read_capture(session.context, session.actor, capture_id)
    output.document(request if session.json else captures.build_export_line(request))


@command(capture)
def export(
    session: Session,
    file: Path = arg(type=FILE),
    *,
    route: str | None = ONLY_ROUTE,
    since: timedelta | None = opt("How far back: 2h, 7d."),
    near: float = opt(
        "Similarity from which a request counts as a duplicate; 1: identical texts.",
        type=FiniteRange(min=0, max=1, min_open=True),
        default=captures.NEAR_DUPLICATE_SIMILARITY,
    ),
) -> None:
    """Write captured requests to FILE, a JSON object a line, to be labelled.

    Fill in `label` and `label_author`, then `swapgate suite import FILE`.
    """
    capture_export = captures.export_captures(
        session.context, session.actor, route=route, since=since, near=near
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in capture_export.lines)
    try:
        with file.open("x", encoding="utf-8") as new:
            file.chmod(0o600)
            new.write(escape_surrogates(text))
    except FileExistsError:
        raise InputError(f"{file} is there already: its labels would be lost") from None
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
    done = {
        "file": str(file),
        "written": len(capture_export.lines),
        "near_duplicates": dict(capture_export.near),
    }
    alike = len(capture_export.near)
    output.answer(
        done,
        f"wrote {len(capture_export.lines)} to {file}",
        advice=f"left out {alike} that are much like others" if alike else "",
    )


@command(capture)
def purge(
    session: Session,
    *,
    capture_id: str | None = opt("This one.", "--id", metavar="CAPTURE"),
    route: str | None = opt("Of this route.", metavar="ROUTE"),
    user: str | None = opt("Only this user, by the name that the client sent.", metavar="ID"),
    everything: bool = opt("All of them.", "--all"),
) -> None:
    """Delete captured requests, for good: those that fit all options given."""
    gone = captures.purge_captures(
        session.context,
        session.actor,
        secret=session.installation.secret,
        id_=capture_id,
        route=route,
        user=user,
        everything=everything,
    )
    output.answer({"deleted": gone}, f"deleted {gone}")
