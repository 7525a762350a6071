"""`swapgate route break-glass` lets a target serve a route without proof, for a limited time,
by the word of two people: `propose`, `confirm`, `list`, `end`.
"""

from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.duration import DurationType
from harness.cli.frame.output import note_page, page_options, timestamp
from harness.cli.frame.session import Session, pass_session
from harness.control.operations import queries
from harness.control.routing import break_glass as broken
from harness.domain.pagination import PageRequest


@click.group("break-glass")
def break_glass() -> None:
    """Serve a route without proof: two people, a reason and an expiry."""


@break_glass.command()
@click.argument("name")
@click.argument("target")
@click.option(
    "--for",
    "lasts",
    type=DurationType(),
    required=True,
    metavar="TIME",
    help="Duration: 2h, at most 7d. Then the former model returns.",
)
@click.option(
    "--reason", required=True, help="Reason, shown to everybody and recorded in the audit log."
)
@click.option(
    "--through-freeze", is_flag=True, help="Also while the route is frozen; else refused."
)
@pass_session
def propose(
    session: Session,
    name: str,
    target: str,
    lasts: timedelta,
    reason: str,
    *,
    through_freeze: bool,
) -> None:
    """Ask that TARGET serve without proof. Nothing changes before a second person confirms."""
    wanted = broken.BreakGlassRequest(name, target, reason, lasts, through_freeze)
    context = session.context_with_providers
    made = broken.propose_break_glass(context, session.deciding_actor, wanted)
    if session.json:
        output.document(made)
        return
    click.echo(made.id)
    last = timestamp(made.confirm_by)
    output.note(
        f"a second person, an admin, confirms it before {last} UTC: `swapgate "
        f"route break-glass confirm {made.id}`"
    )


@break_glass.command()
@click.argument("id_", metavar="ID")
@pass_session
def confirm(session: Session, id_: str) -> None:
    """Let the target serve, as the second person. Whoever asked for it cannot."""
    made = broken.confirm_break_glass(session.context, session.deciding_actor, id_)
    if session.json:
        output.document(made)
        return
    click.echo(
        f"route {made.route} is served without proof until "
        f"{timestamp(made.expires_at)} UTC ({made.id})"
    )


@break_glass.command()
@click.argument("id_", metavar="ID")
@click.option("--reason", required=True, help="Reason, recorded in the audit log.")
@pass_session
def end(session: Session, id_: str, reason: str) -> None:
    """End it before its time: the former model returns at once. One person is enough."""
    made = broken.end_break_glass(session.context, session.deciding_actor, id_, reason=reason)
    if session.json:
        output.document(made)
    else:
        click.echo(f"{made.id} has ended")


@break_glass.command("list")
@page_options
@pass_session
def list_break_glasses(session: Session, page_request: PageRequest) -> None:
    """List those that were asked for, newest first."""
    found = queries.list_break_glasses(session.context, page_request)
    note_page(found)
    if session.json:
        output.document(found.items)
        return
    names = queries.load_target_names(session.context, {record.target for record in found})
    output.table(
        ["ID", "ROUTE", "STATE", "TARGET", "UNTIL", "BY", "REASON"],
        [
            [
                record.id,
                record.route,
                record.ended_because or record.state,
                names.get(record.target, record.target),
                timestamp(record.expires_at),
                " and ".join(filter(None, (record.proposer, record.confirmer))),
                record.reason,
            ]
            for record in found
        ],
        empty="nobody asked for a break-glass yet",
    )
