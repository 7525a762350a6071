"""`swapproof agent` and `swapproof user`."""

import click

from harness.agents import switches
from harness.agents.operations import AGENTS
from harness.agents.switch_request import SwitchState
from harness.agents.switches import view_switch
from harness.frame.formatting import format_span
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import add_commands, operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations.operations import GRANT_LISTS, USERS

user = operation_group(USERS)


agent = operation_group(AGENTS)
add_commands(agent, GRANT_LISTS)


@command(agent, example="swapproof agent requests")
def requests(
    session: Session,
    *,
    show_all: bool = opt("Decided and expired requests, too.", "--all"),
    session_id: str | None = opt("Only this session's.", "--session", metavar="ID"),
    page_request: PageRequest = PAGE,
) -> None:
    """List the switch requests that wait for a person."""
    ctx = session.context
    now = session.context.clock.now()
    views = ctx.store.lists.switch_requests(
        page_request,
        session=session_id,
        pending_at=None if show_all else now,
    ).map(lambda request: view_switch(ctx, request))
    output.listing(
        views,
        lambda view: {
            "ID": view.id,
            "ASKED": timestamp(view.asked_at),
            "STATE": view.state.value,
            "TIME LEFT": format_span((view.expires_at - now).total_seconds())
            if view.state is SwitchState.PENDING
            else "",
            "QUESTION": view.question,
        },
        empty="no switch request waits for a person",
    )


@command(agent, example="swapproof agent show sw_4be0c7d1f2a89365")
def show(session: Session, request_id: str = arg("ID")) -> None:
    """Show a request with both models' prices and quality, and the agent's reason."""
    view = view_switch(session.context, switches.load_switch(session.context, request_id))
    if output.documented(view):
        return
    click.echo(view.question)
    output.facts((fact["name"], fact["text"]) for fact in view.facts)
    decided_at = timestamp(view.decided_at) if view.decided_at else None
    output.facts(
        [
            ("State", view.state.value),
            ("Decided", decided_at),
            ("Decided by", view.decided_by or None),
            ("Reason", view.decision_reason or None),
        ]
    )
