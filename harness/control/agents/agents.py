"""Creates, changes and deletes agents, for their clients. A literal model, which no
route's proof covers, comes with a person's consent: a signed grant that expires, in the same
unit of work.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Final

from harness.control.agents import sessions
from harness.control.agents.sessions import AgentsClient
from harness.control.context import Context
from harness.control.providers import named_models
from harness.domain.agents.agent import Agent, AgentGrant, AgentTool, GrantKind, ModelChoice
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.errors import Conflict, NotAllowed, NotFound
from harness.domain.operations.access import Actor, Role
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target, is_at_least_as_strict, may_see
from harness.domain.suggestions import did_you_mean
from harness.store.sql.agents import AgentGrants, Agents, Sessions
from harness.store.sql.audit import AuditLog
from harness.store.sql.operations import ApiKeys
from harness.store.sql.routing import Routing
from harness.store.transaction import Transaction

DELETED: Final = "its agent was deleted"


@dataclass(frozen=True, slots=True)
class AgentSpec:
    name: str
    model: ModelChoice
    description: str = ""
    instructions: str = ""
    tools: tuple[AgentTool, ...] = ()
    fallback_model: ModelChoice | None = None
    data_class: str = ""


def create_agent(
    ctx: Context, client: AgentsClient, spec: AgentSpec, reason: str = ""
) -> Agent:
    """Creates an agent and, for a literal model, the grant that opens it. reason: of the
    consent to a literal model.

    Raises NotAllowed for a literal model without an approver, a route that the key does not
    open, and a target or route that may not see the data class; NotFound for an unknown class,
    target or provider; Conflict for one literal model too many.
    """
    client.require_write()
    id_, now = ctx.chance.token("ag_"), ctx.clock.now()
    given = {field.name: getattr(spec, field.name) for field in fields(spec)}
    agent = Agent(id=id_, created_at=now, updated_at=now, owner_key=client.key, **given)
    if spec.data_class and spec.data_class not in ctx.data_classes:
        hint = did_you_mean(spec.data_class, ctx.data_classes)
        raise NotFound(f"dataClass: there is no data class {spec.data_class!r}{hint}")
    with ctx.store.write() as tx:
        Agents(tx).add(agent)
        _allow(ctx, tx, client, agent, agent.model, GrantKind.BASELINE, reason)
        if agent.fallback_model is not None:
            _allow(ctx, tx, client, agent, agent.fallback_model, GrantKind.FALLBACK, reason)
    return agent


def load_agent(ctx: Context, client: AgentsClient, id_: str) -> Agent:
    """Loads an agent. Raises NotFound for one that is deleted, or that another client owns."""
    with ctx.store.read() as tx:
        return client.find_agent(tx, id_)


def owner_of(tx: Transaction, agent: Agent) -> AgentsClient:
    """The client for whom the agent acts. Raises NotAllowed where its key was revoked."""
    if agent.owner_key is None:
        return AgentsClient.of_operator()
    key = ApiKeys(tx).find(agent.owner_key)
    if key is None or key.revoked_at is not None:
        raise NotAllowed("the key of this agent was revoked")
    return AgentsClient.of_data_key(key)


def change_agent(
    ctx: Context,
    client: AgentsClient,
    id_: str,
    change: Callable[[Agent], Agent],
    reason: str = "",
) -> Agent:
    """Changes an agent for sessions that are opened from now on; id, owner and data class stay.
    change: of the agent as it is, so that of two changes at once none is lost.

    Raises as `create_agent`, and NotFound.
    """
    client.require_write()
    with ctx.store.write() as tx:
        known = client.find_agent(tx, id_, lock=True)
        changed = replace(
            change(known),
            id=known.id,
            owner_key=known.owner_key,
            data_class=known.data_class,
            updated_at=ctx.clock.now(),
        )
        if _is_to_allow(ctx, tx, known, changed.model, known.model):
            _allow(ctx, tx, client, changed, changed.model, GrantKind.CHANGE, reason)
        fallback = changed.fallback_model
        if fallback and _is_to_allow(ctx, tx, known, fallback, known.fallback_model):
            _allow(ctx, tx, client, changed, fallback, GrantKind.FALLBACK, reason)
        Agents(tx).save(changed)
    return changed


def _is_to_allow(
    ctx: Context, tx: Transaction, agent: Agent, named: ModelChoice, former: ModelChoice | None
) -> bool:
    """A model that the change leaves alone is the same object."""
    if named is former:
        return False
    grant = sessions.find_grant(ctx, tx, agent.id, "", named.target)
    return named != former or (named.is_literal and grant is None)


def delete_agent(ctx: Context, client: AgentsClient, id_: str) -> None:
    client.require_write()
    with ctx.store.write() as tx:
        agent = client.find_agent(tx, id_, lock=True)
        for session in Sessions(tx).open_ids(id_):
            sessions.close_in_unit(ctx, tx, session, DELETED)
        Agents(tx).save(replace(agent, deleted_at=ctx.clock.now()))


def _allow(
    ctx: Context,
    tx: Transaction,
    client: AgentsClient,
    agent: Agent,
    model: ModelChoice,
    kind: GrantKind,
    reason: str,
) -> None:
    if not model.is_literal:
        client.require_route(model.route)
        require_route(ctx, tx, agent, model.route)
        return
    actor = client.require_consent()
    reason = reason.strip() or f"{kind.value} of agent {agent.name}"
    grant_literal(ctx, tx, actor, agent, model.target, kind, reason)


def grant_literal(  # noqa: PLR0913 - what a consent is made of
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    agent: Agent,
    model: str,
    kind: GrantKind,
    reason: str,
    *,
    request: ModelSwitchRequest | None = None,
) -> None:
    """Stores a person's consent to a literal model: for the session of a switch request, else
    for all of the agent's.

    Raises NotFound without its provider, NotAllowed where that may not see the agent's data,
    Conflict where the policy allows no further literal model, ConfigError where this process
    has no key of control's.
    """
    target = named_models.register_model(ctx, tx, actor, model)
    check_target_data_class(ctx, agent.data_class, target)
    now = ctx.clock.now()
    lasts = ctx.agents.literal_lasts if request is None else ctx.agents.switch_lasts
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
    # After the grant is added: of two at once, the second sees the first one's.
    in_force = [g for g in AgentGrants(tx).not_revoked() if now < g.expires_at]
    if len(in_force) > (most := ctx.agents.max_literals):
        raise Conflict(
            f"{len(in_force) - 1} literal models are granted, and `agents.max_literals` is "
            f"{most}: use a route, or revoke a grant",
            code="too_many_literals",
        )


def revoke_grant(ctx: Context, actor: Actor, id_: str, reason: str = "") -> AgentGrant:
    """Routers then refuse the model within seconds. Raises NotAllowed below an approver,
    NotFound, Conflict for one that is revoked.
    """
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        if AgentGrants(tx).get(id_).revoked_at is not None:
            raise Conflict(f"the grant {id_} is revoked already")
        revoked = AgentGrants(tx).revoke(id_, ctx.clock.now())
        details = {"grant": id_, "target": revoked.target_name, "reason": reason}
        AuditLog(tx).append(actor, "agent.grant_revoke", f"agent {revoked.agent}", details)
    return revoked


def check_target_data_class(ctx: Context, data_class: str, target: Target) -> None:
    """Checks that a target's provider may see an agent's data. Raises NotAllowed."""
    if not may_see(ctx.data_classes, data_class, target.provider):
        raise NotAllowed(
            f"model: the agent has {data_class} data, and provider {target.provider!r} may "
            "not see it (`data_classes:` in the file)",
            code="data_class_not_allowed",
        )


def require_route(ctx: Context, tx: Transaction, agent: Agent, name: str) -> Route:
    """The route, whose own data class holds for all that may ever answer on it. Raises
    NotAllowed where it is not as strict as the agent's, NotFound without the route.
    """
    route = Routing(tx).route(name)
    if route is None:
        raise NotFound(
            f"model: there is no route {name!r}; name another one, or PATCH the agent to "
            "another model",
            code="model_not_found",
        )
    carried = route.settings.data_class
    if not is_at_least_as_strict(ctx.data_classes, carried, than=agent.data_class):
        raise NotAllowed(
            f"model: the agent has {agent.data_class} data, and route {name!r} carries "
            f"{carried or 'no class of'} data: name a route that is as strict",
            code="data_class_not_allowed",
        )
    return route
