"""Opens, loads and closes the sessions of agents, for their clients. Closing one ends what runs
in it, in the sessions that it spawned, and what waits for a person's decision.
"""

from collections.abc import Mapping
from dataclasses import replace

from harness.control.agents.client import AgentsClient
from harness.control.context import Context
from harness.domain.agents.agent import (
    AgentGrant,
    AgentSession,
    ModelChoice,
    SessionState,
)
from harness.domain.agents.message import MessageState
from harness.domain.agents.switch_request import SwitchState
from harness.domain.agents.turn import TurnState
from harness.domain.errors import NotAllowed, NotFound
from harness.store.transaction import Transaction

CLOSED = "the session was closed"


def open_session(
    ctx: Context,
    client: AgentsClient,
    agent: str,
    user_id: str = "",
    metadata: Mapping[str, object] | None = None,
) -> AgentSession:
    """Opens a session with the agent's model. Raises NotFound, NotAllowed for a literal model
    whose grant is over.
    """
    client.require_write()
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        # Locked: nobody deletes the agent before its session is there to be closed.
        model = client.find_agent(tx, agent, lock=True).model
        if not model.is_literal:
            client.require_route(model.route)
        elif find_grant(ctx, tx, agent, "", model.target) is None:
            raise NotAllowed(
                f"model: the consent to {model.text} is over; have an approver PATCH the "
                "agent's model",
                code="model_not_approved",
            )
        id_ = ctx.chance.token("se_")
        session = AgentSession(id_, agent, model, now, now, user_id, metadata or {})
        tx.sessions.add(session)
    return session


def open_child(
    ctx: Context, tx: Transaction, parent: AgentSession, model: ModelChoice
) -> AgentSession:
    """A session that another one spawned, in the caller's unit of work; of its agent and user.
    model: where it is a literal one, the caller has found its grant.
    """
    parent.require_open()
    now = ctx.clock.now()
    child = AgentSession(
        id=ctx.chance.token("se_"),
        agent=parent.agent,
        model=model,
        created_at=now,
        last_at=now,
        user_id=parent.user_id,
        metadata=parent.metadata,
        parent=parent.id,
        depth=parent.depth + 1,
    )
    tx.sessions.add(child)
    return child


def find_grant(
    ctx: Context, tx: Transaction, agent: str, session: str, target_name: str
) -> AgentGrant | None:
    """The grant in force of a literal model that ends last. session: empty for those of all."""
    now = ctx.clock.now()
    fits = [
        grant
        for grant in tx.agent_grants.not_revoked(agent=agent)
        if grant.target_name == target_name and grant.opens(agent, session, now)
    ]
    return max(fits, key=lambda grant: grant.expires_at, default=None)


def load_session(ctx: Context, client: AgentsClient, agent: str, id_: str) -> AgentSession:
    """Loads a session of an agent. Raises NotFound, also for a session of another agent."""
    with ctx.store.read() as tx:
        return _require_session(tx, client, agent, id_)


def _require_session(
    tx: Transaction, client: AgentsClient, agent: str, id_: str
) -> AgentSession:
    session = tx.sessions.get(id_)
    if session.agent != agent:
        raise NotFound(f"there is no session {id_} of agent {agent}", code="session_not_found")
    client.find_agent(tx, agent)
    return session


def close_session(ctx: Context, client: AgentsClient, agent: str, id_: str) -> AgentSession:
    """Closes a session and all below it; a closed one stays as it is. Raises NotFound,
    NotAllowed.
    """
    client.require_write()
    with ctx.store.write() as tx:
        _require_session(tx, client, agent, id_)
        close_in_unit(ctx, tx, id_, CLOSED)
        return tx.sessions.get(id_)


def close_in_unit(ctx: Context, tx: Transaction, id_: str, reason: str) -> None:
    """Close the session and all below it, in the caller's unit of work."""
    # First of all: the lock of decisions comes before those of sessions, in every unit.
    for request in tx.switch_requests.pending(session=id_):
        now = ctx.clock.now()
        tx.switch_requests.decide(request.end(SwitchState.CANCELLED, now, reason))
    session = tx.sessions.lock(id_)
    if session.state is SessionState.CLOSED:
        return
    end_turn_early(ctx, tx, id_, reason)
    tx.sessions.save(replace(session, state=SessionState.CLOSED))


def end_turn_early(ctx: Context, tx: Transaction, id_: str, reason: str) -> None:
    """Interrupts the turn of a locked session, and closes the sessions that it spawned."""
    for child in tx.sessions.children(id_):
        close_in_unit(ctx, tx, child, reason)
    running, now = tx.turns.running(id_), ctx.clock.now()
    if running is None:
        return
    under_way = tx.session_messages.streaming(id_)
    if under_way is not None:
        cut = replace(under_way, state=MessageState.INTERRUPTED, error=reason, done_at=now)
        tx.session_messages.end(cut)
    tx.turns.end(running.id, TurnState.INTERRUPTED, now)
