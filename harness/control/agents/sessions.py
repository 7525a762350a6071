"""Opens, loads and closes the sessions of agents, for their clients. Closing one ends what runs
in it, in the sessions that it spawned, and what waits for a person's decision.

An `AgentsClient` is on whose behalf a request about agents is made, which agents it sees, and
who of it may consent to a literal model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.control.context import Context
from harness.domain.agents.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    ModelChoice,
    SessionState,
)
from harness.domain.agents.message import MessageState
from harness.domain.agents.switch_request import SwitchState
from harness.domain.errors import NotAllowed, NotFound
from harness.domain.operations.access import Actor, ApiKey, Role
from harness.domain.operations.principals import OPERATOR
from harness.store.sql.agents import (
    AgentGrants,
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.store.transaction import Transaction

CLOSED = "the session was closed"


@dataclass(frozen=True, slots=True)
class AgentsClient:
    """A data key, a person or service with a management key, or this machine's operator, who
    asks over loopback without one.
    """

    # The data key's id; None for the others.
    key: str | None = None
    routes: frozenset[str] = frozenset()  # that the data key opens; empty for all
    actor: Actor | None = None  # None for a data key
    is_open: bool = False  # without any key

    @classmethod
    def of_data_key(cls, key: ApiKey) -> "AgentsClient":
        return cls(key=key.id, routes=key.routes)

    @classmethod
    def of_person(cls, actor: Actor) -> "AgentsClient":
        return cls(actor=actor)

    @classmethod
    def of_operator(cls) -> "AgentsClient":
        """An approver at most: it is not known who asks."""
        return cls(actor=replace(OPERATOR, role=Role.APPROVER), is_open=True)

    @property
    def name(self) -> str:
        """What tells clients apart, such as their idempotency keys."""
        if self.key is not None:
            return f"key:{self.key}"
        return f"principal:{self.actor.principal if self.actor else ''}"

    def sees(self, agent: Agent) -> bool:
        if self.key is not None:
            return agent.owner_key == self.key
        return not (self.is_open and agent.owner_key is not None)

    def find_agent(self, tx: Transaction, id_: str, *, lock: bool = False) -> Agent:
        """Finds an agent of this client. Raises NotFound for a deleted agent, and for one of
        another client. lock: no other process changes it before the transaction ends.
        """
        agent = Agents(tx).lock(id_) if lock else Agents(tx).get(id_)
        if not self.sees(agent):
            raise NotFound(f"there is no agent {id_}", code="agent_not_found")
        if agent.deleted_at is not None:
            raise NotFound(f"agent {id_} is deleted", code="agent_not_found")
        return agent

    def require_write(self) -> None:
        """Checks the role. Raises NotAllowed for a person who may only look."""
        if self.actor is not None:
            self.actor.require(Role.PROPOSER)

    def require_route(self, route: str) -> None:
        """Checks that the data key opens a route. Raises NotAllowed."""
        if self.routes and route not in self.routes:
            raise NotAllowed(
                f"model: this key does not open the route {route!r}; name another one",
                code="route_not_allowed",
            )

    def require_consent(self) -> Actor:
        """Returns the person who may consent to a literal model. Raises NotAllowed."""
        if self.actor is None:
            raise NotAllowed(
                "model: a literal model has no proof for any route, so a person consents to "
                "it: send a management key of an approver, or name a route",
                code="approval_needed",
            )
        self.actor.require(Role.APPROVER)
        return self.actor


def open_session(
    ctx: Context,
    client: AgentsClient,
    agent: str,
    user_id: str = "",
    metadata: Mapping[str, object] | None = None,
) -> AgentSession:
    """Opens a session. Raises NotFound, NotAllowed for a literal model whose grant is over."""
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
        Sessions(tx).add(session)
    return session


def open_child(
    ctx: Context, tx: Transaction, parent: AgentSession, model: ModelChoice
) -> AgentSession:
    """A session that another one spawned, in the caller's unit of work. model: where it is a
    literal one, the caller has found its grant.
    """
    parent.require_open()
    id_, now = ctx.chance.token("se_"), ctx.clock.now()
    child = AgentSession(
        id_, parent.agent, model, now, now, parent.user_id, parent.metadata, parent=parent.id
    )
    Sessions(tx).add(child)
    return child


def find_grant(
    ctx: Context, tx: Transaction, agent: str, session: str, target_name: str
) -> AgentGrant | None:
    """The grant in force of a literal model that ends last. session: empty for those of all."""
    now = ctx.clock.now()
    fits = [
        grant
        for grant in AgentGrants(tx).not_revoked(agent=agent)
        if grant.target_name == target_name and grant.opens(agent, session, now)
    ]
    return max(fits, key=lambda grant: grant.expires_at, default=None)


def load_session(ctx: Context, client: AgentsClient, agent: str, id_: str) -> AgentSession:
    """Loads a session. Raises NotFound, also for a session of another agent."""
    with ctx.store.read() as tx:
        return _require_session(tx, client, agent, id_)


def _require_session(
    tx: Transaction, client: AgentsClient, agent: str, id_: str
) -> AgentSession:
    client.find_agent(tx, agent)
    session = Sessions(tx).get(id_)
    if session.agent != agent:
        raise NotFound(f"there is no session {id_} of agent {agent}", code="session_not_found")
    return session


def close_session(ctx: Context, client: AgentsClient, agent: str, id_: str) -> AgentSession:
    """Closes a session and all below it; a closed one stays as it is. Raises NotFound,
    NotAllowed.
    """
    client.require_write()
    with ctx.store.write() as tx:
        _require_session(tx, client, agent, id_)
        close_in_unit(ctx, tx, id_, CLOSED)
        return Sessions(tx).get(id_)


def close_in_unit(ctx: Context, tx: Transaction, id_: str, reason: str) -> None:
    # First of all: the lock of decisions comes before those of sessions, in every unit.
    for request in SwitchRequests(tx).pending(session=id_):
        now = ctx.clock.now()
        is_over = request.state_at(now) is SwitchState.EXPIRED
        state = SwitchState.EXPIRED if is_over else SwitchState.CANCELLED
        SwitchRequests(tx).decide(request.end(state, now, reason))
    session = Sessions(tx).lock(id_)
    if session.state is SessionState.CLOSED:
        return
    end_turn_early(ctx, tx, id_, reason)
    Sessions(tx).save(replace(session, state=SessionState.CLOSED))


def end_turn_early(ctx: Context, tx: Transaction, id_: str, reason: str) -> None:
    """Interrupts the turn of a locked session, and closes the sessions that it spawned."""
    for child in Sessions(tx).children(id_):
        close_in_unit(ctx, tx, child, reason)
    session, now = Sessions(tx).get(id_), ctx.clock.now()
    if not session.turn:
        return
    under_way = SessionMessages(tx).streaming(id_)
    if under_way is not None:
        cut = replace(under_way, state=MessageState.INTERRUPTED, error=reason, done_at=now)
        SessionMessages(tx).end(cut)
    Sessions(tx).hold(session.without_turn())
