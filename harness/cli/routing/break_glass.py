"""`swapgate route break-glass` lets a target serve a route without proof, for a limited time,
by the word of two people: `propose`, `confirm`, `list`, `end`.
"""

from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.duration import DurationType
from harness.cli.frame.output import page_options, timestamp
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
    made = broken.propose_break_glass(
        session.context_with_providers, session.deciding_actor, wanted
    )
    last = timestamp(made.confirm_by)
    output.answer(
        session,
        made,
        made.id,
        advice=f"a second person, an admin, confirms it before {last} UTC: `swapgate route "
        f"break-glass confirm {made.id}`",
    )


@break_glass.command()
@click.argument("id_", metavar="ID")
@pass_session
def confirm(session: Session, id_: str) -> None:
    """Let the target serve, as the second person. Whoever asked for it cannot."""
    made = session.decide(broken.confirm_break_glass, id_)
    until = timestamp(made.expires_at)
    text = f"route {made.route} is served without proof until {until} UTC ({made.id})"
    output.answer(session, made, text)


@break_glass.command()
@click.argument("id_", metavar="ID")
@click.option("--reason", required=True, help="Reason, recorded in the audit log.")
@pass_session
def end(session: Session, id_: str, reason: str) -> None:
    """End it before its time: the former model returns at once. One person is enough."""
    made = session.decide(broken.end_break_glass, id_, reason=reason)
    output.answer(session, made, f"{made.id} has ended")


@break_glass.command("list")
@page_options
@pass_session
def list_break_glasses(session: Session, page_request: PageRequest) -> None:
    """List those that were asked for, newest first."""
    found = session.context.store.lists.break_glasses(page_request)
    names = queries.load_target_names(session.context, {record.target for record in found})
    output.listing(
        session,
        found,
        lambda record: {
            "ID": record.id,
            "ROUTE": record.route,
            "STATE": record.ended_because or record.state,
            "TARGET": names.get(record.target, record.target),
            "UNTIL": timestamp(record.expires_at),
            "BY": " and ".join(filter(None, (record.proposer, record.confirmer))),
            "REASON": record.reason,
        },
        empty="nobody asked for a break-glass yet",
    )
