"""Creates, changes and deletes agents, and opens and closes their sessions.

An `AgentsClient` sends the requests. No route's proof covers a literal model, so a person
consents to it with a signed grant that expires.

This module does not run turns (`turns`, `conversation`) and does not decide switch requests
(`switches`), but a session that closes ends both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.agents.context import AgentsContext
from harness.agents.message import MessageState
from harness.agents.records import (
    AgentGrants,
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.frame.errors import Conflict, NotAllowed, NotFound
from harness.frame.people.access import OPERATOR, Actor, ApiKey, Role
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.providers.registry import named_models
from harness.providers.target import Target, is_at_least_as_strict, may_see
from harness.routing.agent import (
    Agent,
    AgentGrant,
    AgentSession,
    GrantKind,
    ModelChoice,
    SessionState,
)
from harness.routing.records.routes import Routing
from harness.routing.table import Route

_GRANT_KIND_BY_FIELD: Final = {
    "model": GrantKind.CHANGE,
    "fallback_model": GrantKind.FALLBACK,
}


@dataclass(frozen=True, slots=True)
class AgentsClient:
    """The sender of a request: a client key, a person or service with a management key, or this
    machine's operator, who needs no key over loopback.
    """

    key: str | None = None  # the client key's id
    routes: frozenset[str] = frozenset()  # routes that the client key may use; empty for all
    actor: Actor | None = None  # None for a client key
    is_open: bool = False  # whether the request came without a key

    @classmethod
    def of_data_key(cls, key: ApiKey) -> "AgentsClient":
        return cls(key=key.id, routes=key.routes)

    @classmethod
    def of_person(cls, actor: Actor) -> "AgentsClient":
        return cls(actor=actor)

    @classmethod
    def of_operator(cls) -> "AgentsClient":
        """Builds the operator's client: an approver, since any local user may be the sender."""
        return cls(actor=replace(OPERATOR, role=Role.APPROVER), is_open=True)

    @property
    def name(self) -> str:
        """The client's unique name, for example to keep idempotency keys apart."""
        if self.key is not None:
            return f"key:{self.key}"
        return f"principal:{self.actor.principal if self.actor else ''}"

    def sees(self, agent: Agent) -> bool:
        """Returns whether the client may know that the agent exists.

        A client key sees the agents that it created. A person with a management key sees all
        agents. The operator, who sends no key, does not see agents of client keys.
        """
        if self.key is not None:
            return agent.owner_key == self.key
        return not (self.is_open and agent.owner_key is not None)

    def find_agent(
        self,
        tx: Transaction,
        id_: str,
        *,
        lock: bool = False,
    ) -> Agent:
        """Finds an agent of this client.

        Args:
            lock: other processes cannot change it until the transaction ends.

        Raises NotFound for a deleted agent and for another client's agent.
        """
        agent = Agents(tx).lock(id_) if lock else Agents(tx).get(id_)
        if not self.sees(agent):
            raise NotFound(f"there is no agent {id_}", code="agent_not_found")
        if agent.deleted_at is not None:
            raise NotFound(f"agent {id_} is deleted", code="agent_not_found")
        return agent

    def require_write(self) -> None:
        """Raises NotAllowed for a viewer."""
        if self.actor is not None:
            self.actor.require(Role.PROPOSER)

    def require_route(self, route: str) -> None:
        """Raises NotAllowed for a route that the client key may not use."""
        if self.routes and route not in self.routes:
            raise NotAllowed(
                f"model: this key does not open the route {route!r}; name another one",
                code="route_not_allowed",
            )

    def require_consent(self) -> Actor:
        """Returns the person who consents to a literal model. Raises NotAllowed."""
        if self.actor is None:
            raise NotAllowed(
                "model: a model named as PROVIDER:MODEL has no proof for any route, so a "
                "person consents to it: send a management key of an approver, or name a route",
                code="approval_needed",
            )
        self.actor.require(Role.APPROVER)
        return self.actor


def create_agent(
    ctx: AgentsContext,
    client: AgentsClient,
    name: str,
    model: ModelChoice,
    reason: str = "",
    **settings: Any,
) -> Agent:
    """Creates an agent, and the grants of its literal models.

    Args:
        reason: why the person consents to a literal model.
        settings: further fields of the agent.

    Raises NotAllowed for a literal model without an approver, a route that the key may not use,
    and a target or route that may not see the data class.
    Raises NotFound for an unknown class, target or provider, Conflict for too many grants.
    """
    client.require_write()
    id_ = ctx.chance.token("ag_")
    now = ctx.clock.now()
    agent = Agent(
        id_,
        name,
        model,
        now,
        now,
        owner_key=client.key,
        **settings,
    )
    if (data_class := agent.data_class) and data_class not in ctx.data_classes:
        hint = did_you_mean(data_class, ctx.data_classes)
        raise NotFound(f"dataClass: there is no data class {data_class!r}{hint}")
    with ctx.store.write() as tx:
        Agents(tx).add(agent)
        _permit_model(ctx, tx, client, agent, model, GrantKind.BASELINE, reason)
        if agent.fallback_model is not None:
            _permit_model(
                ctx,
                tx,
                client,
                agent,
                agent.fallback_model,
                GrantKind.FALLBACK,
                reason,
            )
    return agent


def load_agent(
    ctx: AgentsContext,
    client: AgentsClient,
    id_: str,
) -> Agent:
    """Loads an agent that this client sees. Raises NotFound as `AgentsClient.find_agent`."""
    with ctx.store.read() as tx:
        return client.find_agent(tx, id_)


def owner_of(tx: Transaction, agent: Agent) -> AgentsClient:
    """Finds the client that owns the agent. Raises NotAllowed if the client's key is
    revoked.
    """
    if agent.owner_key is None:
        return AgentsClient.of_operator()
    key = ApiKeys(tx).find(agent.owner_key)
    if key is None or key.revoked_at is not None:
        raise NotAllowed("the key of this agent is revoked: create an agent with another key")
    return AgentsClient.of_data_key(key)


def change_agent(
    ctx: AgentsContext,
    client: AgentsClient,
    id_: str,
    reason: str = "",
    **changes: Any,
) -> Agent:
    """Changes an agent; open sessions keep their model.

    Args:
        changes: the new values of its fields.

    Raises as `create_agent`, and NotFound.
    """
    client.require_write()
    with ctx.store.write() as tx:
        stored = client.find_agent(tx, id_, lock=True)
        changed = replace(stored, **changes, updated_at=ctx.clock.now())
        for field, kind in _GRANT_KIND_BY_FIELD.items():
            model = changes.get(field)
            if model is None:
                continue
            is_over = model.is_literal and not find_grant(ctx, tx, id_, "", model.target)
            if is_over or model != getattr(stored, field):
                _permit_model(ctx, tx, client, changed, model, kind, reason)
        Agents(tx).save(changed)
    return changed


def delete_agent(
    ctx: AgentsContext,
    client: AgentsClient,
    id_: str,
) -> None:
    """Deletes an agent and closes its open sessions.

    The row stays with `deleted_at`, because sessions, grants and switch requests name it.
    Raises NotAllowed for a viewer, NotFound.
    """
    client.require_write()
    with ctx.store.write() as tx:
        agent = client.find_agent(tx, id_, lock=True)
        for session in Sessions(tx).open_ids(id_):
            close_in_transaction(ctx, tx, session, "its agent was deleted")
        Agents(tx).save(replace(agent, deleted_at=ctx.clock.now()))


def _permit_model(
    ctx: AgentsContext,
    tx: Transaction,
    client: AgentsClient,
    agent: Agent,
    model: ModelChoice,
    kind: GrantKind,
    reason: str,
) -> None:
    """Checks whether an agent may use a model: a route by its data class, a literal
    model by a person's consent. Stores the grant of a literal model. Raises as
    `create_agent`.
    """
    if not model.is_literal:
        client.require_route(model.route)
        require_route(ctx, tx, agent, model.route)
        return
    actor = client.require_consent()
    reason = reason.strip() or f"{kind.value} of agent {agent.name}"
    grant_literal(ctx, tx, actor, agent, model.target, kind, reason)


def grant_literal(  # noqa: PLR0913 - the parts of a consent
    ctx: AgentsContext,
    tx: Transaction,
    actor: Actor,
    agent: Agent,
    model: str,
    kind: GrantKind,
    reason: str,
    *,
    request: ModelSwitchRequest | None = None,
) -> None:
    """Stores a person's consent to a literal model: for the session of a switch request, or
    without a request for all sessions of the agent.

    Raises NotFound for an unknown provider, NotAllowed if the provider may not see the agent's
    data, Conflict for too many grants, ConfigError without the control plane's signing key.
    """
    target = named_models.register_model(ctx, tx, actor, model)
    check_target_data_class(ctx, agent.data_class, target)
    now = ctx.clock.now()
    lasts = ctx.agents.literal_duration if request is None else ctx.agents.switch_duration
    grant = AgentGrant(
        id=ctx.chance.token("gr_"),
        agent=agent.id,
        session="" if request is None else request.session,
        target=target.id,
        target_name=target.name,
        kind=kind,
        granted_by=actor.name,
        granted_with=actor.key,
        reason=reason,
        created_at=now,
        expires_at=now + lasts,
        data_class=agent.data_class,
        request="" if request is None else request.id,
    )
    AgentGrants(tx).add(grant)
    details = {
        "grant": grant.id,
        "kind": kind.value,
        "target": target.name,
        "session": grant.session or None,
        "reason": reason,
        "expires_at": grant.expires_at.isoformat(),
        "data_class": agent.data_class,
    }
    AuditLog(tx).append(actor, "agent.grant", f"agent {grant.agent}", details)
    # Counts after the insert, so that the later of two concurrent grants counts the earlier.
    in_force = [g for g in AgentGrants(tx).not_revoked() if now < g.expires_at]
    if len(in_force) > (limit := ctx.agents.max_literals):
        raise Conflict(
            f"{len(in_force) - 1} models named as PROVIDER:MODEL are granted, and "
            f"`agents.max_literals` is {limit}: use a route, or revoke a grant",
            code="too_many_literals",
        )


def revoke_grant(
    ctx: AgentsContext,
    actor: Actor,
    id_: str,
    reason: str = "",
) -> AgentGrant:
    """Revokes a grant; routers refuse its model within seconds. Raises NotAllowed below an
    approver, NotFound, Conflict for a revoked grant.
    """
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        if AgentGrants(tx).get(id_).revoked_at is not None:
            raise Conflict(f"the grant {id_} is revoked already")
        revoked = AgentGrants(tx).revoke(id_, ctx.clock.now())
        details = {
            "grant": id_,
            "target": revoked.target_name,
            "reason": reason,
        }
        AuditLog(tx).append(actor, "agent.grant_revoke", f"agent {revoked.agent}", details)
    return revoked


def check_target_data_class(
    ctx: AgentsContext,
    data_class: str,
    target: Target,
) -> None:
    """Raises NotAllowed if the target's provider may not see the agent's data."""
    if not may_see(ctx.data_classes, data_class, target.provider):
        raise NotAllowed(
            f"model: the agent has {data_class} data, and provider {target.provider!r} may "
            "not see it (`data_classes:` in the file)",
            code="data_class_not_allowed",
        )


def require_route(
    ctx: AgentsContext,
    tx: Transaction,
    agent: Agent,
    name: str,
) -> Route:
    """Finds a route for an agent. Raises NotFound, NotAllowed if the route's data class is less
    strict than the agent's. The route's targets follow the route's class.
    """
    route = Routing(tx).route(name)
    if route is None:
        raise NotFound(
            f"model: there is no route {name!r}; name another one, or PATCH the agent to "
            "another model",
            code="model_not_found",
        )
    route_class = route.settings.data_class
    if not is_at_least_as_strict(ctx.data_classes, route_class, than=agent.data_class):
        raise NotAllowed(
            f"model: the agent has {agent.data_class} data, and route {name!r} is for "
            f"{route_class or 'unclassified'} data: name a route that is as strict",
            code="data_class_not_allowed",
        )
    return route


def open_session(
    ctx: AgentsContext,
    client: AgentsClient,
    agent: str,
    user_id: str = "",
    metadata: Mapping[str, object] | None = None,
) -> AgentSession:
    """Opens a session. Raises NotFound, NotAllowed if the model's grant has ended."""
    client.require_write()
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        # The lock keeps other processes from deleting the agent before its session is stored.
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
    ctx: AgentsContext,
    tx: Transaction,
    parent: AgentSession,
    model: ModelChoice,
) -> AgentSession:
    """Opens a session that `parent` spawned. The caller has checked the model's grant."""
    parent.require_open()
    id_ = ctx.chance.token("se_")
    now = ctx.clock.now()
    child = AgentSession(
        id_,
        parent.agent,
        model,
        now,
        now,
        parent.user_id,
        parent.metadata,
        parent=parent.id,
    )
    Sessions(tx).add(child)
    return child


def find_grant(
    ctx: AgentsContext,
    tx: Transaction,
    agent: str,
    session: str,
    target_name: str,
) -> AgentGrant | None:
    """Finds the valid grant that expires last.

    Args:
        session: empty for grants for all sessions.
    """
    now = ctx.clock.now()
    valid_grants = [
        grant
        for grant in AgentGrants(tx).not_revoked(agent=agent)
        if grant.target_name == target_name and grant.opens(agent, session, now)
    ]
    return max(valid_grants, key=lambda grant: grant.expires_at, default=None)


def load_session(
    ctx: AgentsContext,
    client: AgentsClient,
    agent: str,
    id_: str,
) -> AgentSession:
    """Loads a session of an agent that this client sees.

    Raises NotFound, also for a session of another agent.
    """
    with ctx.store.read() as tx:
        return _require_session(tx, client, agent, id_)


def _require_session(
    tx: Transaction,
    client: AgentsClient,
    agent: str,
    id_: str,
) -> AgentSession:
    client.find_agent(tx, agent)
    session = Sessions(tx).get(id_)
    if session.agent != agent:
        raise NotFound(
            f"there is no session {id_} of agent {agent}",
            code="session_not_found",
        )
    return session


def close_session(
    ctx: AgentsContext,
    client: AgentsClient,
    agent: str,
    id_: str,
) -> AgentSession:
    """Closes a session and returns it. Does nothing to a session that is closed already.

    Raises NotAllowed for a viewer, NotFound.
    """
    client.require_write()
    with ctx.store.write() as tx:
        _require_session(tx, client, agent, id_)
        close_in_transaction(ctx, tx, id_, "the session was closed")
        return Sessions(tx).get(id_)


def close_in_transaction(
    ctx: AgentsContext,
    tx: Transaction,
    id_: str,
    reason: str,
) -> None:
    """Closes a session, with its turn, its pending switch requests and its child sessions."""
    # Every transaction locks the decisions before it locks a session, so that no two wait for
    # each other.
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


def end_turn_early(
    ctx: AgentsContext,
    tx: Transaction,
    id_: str,
    reason: str,
) -> None:
    """Interrupts the turn of a locked session, and closes the sessions that it spawned."""
    for child in Sessions(tx).children(id_):
        close_in_transaction(ctx, tx, child, reason)
    session = Sessions(tx).get(id_)
    now = ctx.clock.now()
    if not session.turn:
        return
    streaming = SessionMessages(tx).streaming(id_)
    if streaming is not None:
        interrupted = replace(
            streaming,
            state=MessageState.INTERRUPTED,
            error=reason,
            done_at=now,
        )
        SessionMessages(tx).end(interrupted)
    Sessions(tx).save_turn(session.without_turn())
