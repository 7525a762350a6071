"""`swapgate agent` and `swapgate user`."""

import click

from harness.agents import agents, switches
from harness.agents.switch_request import SwitchState
from harness.agents.switches import view_switch
from harness.frame.formatting import format_span
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    OPTIONAL_REASON,
    PAGE,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations.operations import USERS
from harness.routing.agent import AgentGrant

user = operation_group(USERS)


@click.group()
def agent() -> None:
    """Agents: their switch requests and grants."""


@command(agent)
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
    found = ctx.store.lists.switch_requests(
        page_request,
        session=session_id,
        pending_at=None if show_all else now,
    ).map(lambda request: view_switch(ctx, request))
    output.listing(
        found,
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


@command(agent)
def show(session: Session, request_id: str = arg("ID")) -> None:
    """Show a request with both models' prices and quality, and the agent's reason."""
    view = view_switch(session.context, switches.load_switch(session.context, request_id))
    if output.documented(view):
        return
    click.echo(view.question)
    output.facts((fact["name"], fact["text"]) for fact in view.facts)
    decided = timestamp(view.decided_at) if view.decided_at else None
    output.facts(
        [
            ("State", view.state.value),
            ("Decided", decided),
            ("Decided by", view.decided_by or None),
            ("Reason", view.decision_reason or None),
        ]
    )


@command(agent)
def approve(
    session: Session,
    request_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
) -> None:
    """Switch a session to the requested model, from its next message on."""
    request = session.decide(switches.approve_switch, request_id, reason)
    output.answer(request, f"{request.id} is approved")


@command(agent)
def reject(
    session: Session,
    request_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
) -> None:
    """Leave a session on its model; its agent gets the reason."""
    request = session.decide(switches.reject_switch, request_id, reason)
    output.answer(request, f"{request.id} is rejected")


@command(agent)
def grants(
    session: Session,
    *,
    agent_id: str | None = opt("Only this agent's.", "--agent", metavar="ID"),
    page_request: PageRequest = PAGE,
) -> None:
    """List the consents to agents' models with a name PROVIDER:MODEL."""
    found = session.context.store.lists.agent_grants(page_request, agent=agent_id)
    output.listing(
        found,
        lambda grant: {
            "ID": grant.id,
            "AGENT": grant.agent,
            "SESSION": grant.session or "all",
            "MODEL": grant.target_name,
            "KIND": grant.kind.value,
            "BY": grant.granted_by,
            "UNTIL": timestamp(grant.expires_at),
            "STATE": _state(session, grant),
        },
        empty="there are no grants",
    )


def _state(session: Session, grant: AgentGrant) -> str:
    if grant.revoked_at is not None:
        return "revoked"
    return "in force" if session.context.clock.now() < grant.expires_at else "expired"


@command(agent)
def revoke(
    session: Session,
    grant_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
) -> None:
    """Revoke a grant: routers refuse the model within seconds."""
    revoked = session.decide(agents.revoke_grant, grant_id, reason)
    output.answer(revoked, f"{revoked.id} is revoked: {revoked.target_name}")
