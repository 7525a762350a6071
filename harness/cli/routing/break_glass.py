"""`swapgate route break-glass` lets a target serve a route without proof, for a limited time,
by the word of two people: `propose`, `confirm`, `list`, `end`.
"""

from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.command import PAGE, REASON, SHOWN_REASON, arg, command, opt
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.operations import queries
from harness.control.routing import break_glass as broken
from harness.domain.pagination import PageRequest


@click.group("break-glass")
def break_glass() -> None:
    """Serve a route without proof: two people, a reason and an expiry."""


@command(break_glass)
def propose(
    session: Session,
    name: str,
    target: str,
    *,
    lasts: timedelta = opt("Duration: 2h, at most 7d. Then the former model returns.", "--for"),
    reason: str = SHOWN_REASON,
    through_freeze: bool = opt("Also while the route is frozen; else refused."),
) -> None:
    """Ask that TARGET serve without proof. Nothing changes before a second person confirms."""
    wanted = broken.BreakGlassRequest(name, target, reason, lasts, through_freeze)
    made = broken.propose_break_glass(
        session.context_with_providers, session.deciding_actor, wanted
    )
    last = timestamp(made.confirm_by)
    output.answer(
        made,
        made.id,
        advice=f"a second person, an admin, confirms it before {last} UTC: `swapgate route "
        f"break-glass confirm {made.id}`",
    )


@command(break_glass)
def confirm(session: Session, id_: str = arg("ID")) -> None:
    """Let the target serve, as the second person. Whoever asked for it cannot."""
    made = session.decide(broken.confirm_break_glass, id_)
    until = timestamp(made.expires_at)
    text = f"route {made.route} is served without proof until {until} UTC ({made.id})"
    output.answer(made, text)


@command(break_glass)
def end(session: Session, id_: str = arg("ID"), *, reason: str = REASON) -> None:
    """End it before its time: the former model returns at once. One person is enough."""
    made = session.decide(broken.end_break_glass, id_, reason=reason)
    output.answer(made, f"{made.id} has ended")


@command(break_glass, "list")
def list_break_glasses(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List those that were asked for, newest first."""
    found = session.context.store.lists.break_glasses(page_request)
    names = queries.load_target_names(session.context, {record.target for record in found})
    output.listing(
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
