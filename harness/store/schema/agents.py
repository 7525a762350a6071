"""Tables of agents, of the switch requests of their sessions, and of the signed grants by which
a literal target answers; their rows as domain objects and back.

What one row shows is a CHECK or a foreign key here; what needs another row, or the one before
the change, is a trigger (`store/guards/agents`). Sessions are deleted for privacy, so that
grants and switch requests name one without a foreign key.
"""

from dataclasses import asdict

import sqlalchemy as sa

from harness.domain.agents.agent import Agent, AgentTool
from harness.domain.agents.grant import AgentGrant, GrantKind
from harness.domain.agents.model_choice import ModelChoice, ModelKind
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.store.schema.columns import (
    JsonIn,
    Row,
    Values,
    json_value,
    metadata,
    not_blank,
    one_of,
    project,
    signature,
    text,
    time,
    words,
)
from harness.store.schema.evals import target


def model_columns() -> tuple[sa.schema.SchemaItem, ...]:
    """A `ModelChoice`: as it was asked for, its kind, and its route or its target."""
    return (
        words("model"),
        text("model_kind"),
        text("model_route"),
        text("model_target"),
        one_of("model_kind", ModelKind),
        sa.CheckConstraint(
            "(model_kind = 'literal') = (model_target <> '')"
            " AND (model_kind = 'literal') = (model_route = '')",
            name="model_whole",
        ),
    )


def of_project(column: str, table: sa.Table) -> sa.ForeignKeyConstraint:
    """The column holds the id of a row of the same project."""
    return sa.ForeignKeyConstraint([column, "project"], [table.c.id, table.c.project])


# Deleted agents stay, marked, while a session, grant or switch request names them (triggers).
agent = sa.Table(
    "agent",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    words("name"),
    words("description"),
    words("instructions"),
    *model_columns(),
    json_value("tools"),
    json_value("fallback_model", nullable=True),
    words("data_class"),
    # No foreign key: an admin who takes out a forged key takes no conversation with it.
    text("owner_key", nullable=True),
    time("created_at"),
    time("updated_at"),
    time("deleted_at", nullable=True),
    not_blank("id"),
    not_blank("name"),
    sa.CheckConstraint("owner_key <> ''", name="owner_key_named"),
    sa.UniqueConstraint("id", "project", name="uq_agent_project"),
    sa.Index("ix_agent_owner_key", "owner_key", "created_at", "id"),
)

# Decided once, never deleted; its words may be blanked (triggers).
agent_switch = sa.Table(
    "agent_switch",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    text("agent"),
    text("session"),
    words("asked"),
    json_value("targets"),
    words("reason"),
    sa.Column("for_children", sa.Boolean, nullable=False),
    json_value("omissions"),
    json_value("figures"),
    time("asked_at"),
    time("expires_at"),
    text("state"),
    time("decided_at", nullable=True),
    words("decided_by"),
    text("decided_with", nullable=True),
    words("decision_reason"),
    not_blank("id"),
    not_blank("session"),
    one_of("state", SwitchState),
    sa.CheckConstraint("expires_at > asked_at", name="expires_later"),
    sa.CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided_when"),
    sa.CheckConstraint(
        "state NOT IN ('approved', 'rejected') OR trim(decided_by) <> ''",
        name="decided_by_whom",
    ),
    sa.CheckConstraint(
        "state <> 'approved' OR (decided_at IS NOT NULL AND decided_at < expires_at)",
        name="approved_in_time",
    ),
    of_project("agent", agent),
    sa.UniqueConstraint("id", "project", "agent", "session", name="uq_agent_switch_whole"),
    sa.Index("ix_agent_switch_session", "session", "asked_at"),
    sa.Index(
        "ix_agent_switch_pending",
        "expires_at",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
)

# Revoked once, else never changed or deleted (triggers).
agent_grant = sa.Table(
    "agent_grant",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    text("agent"),
    text("session", nullable=True),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    words("target_name"),
    text("kind"),
    words("granted_by"),
    text("granted_with", nullable=True),
    words("reason"),
    words("data_class"),
    text("request", nullable=True),
    time("created_at"),
    time("expires_at"),
    time("revoked_at", nullable=True),
    signature(),
    not_blank("id"),
    not_blank("target_name"),
    not_blank("granted_by"),
    not_blank("reason"),
    one_of("kind", GrantKind),
    # No grant is for ever.
    sa.CheckConstraint("expires_at > created_at", name="expires_later"),
    sa.CheckConstraint("session <> ''", name="session_named"),
    sa.CheckConstraint("(kind = 'switch') = (request IS NOT NULL)", name="request_of_a_switch"),
    sa.CheckConstraint(
        "kind = 'auto' OR (kind = 'switch') = (session IS NOT NULL)",
        name="session_of_a_switch",
    ),
    of_project("agent", agent),
    # Where the request is NULL there is none to find.
    sa.ForeignKeyConstraint(
        ["request", "project", "agent", "session"],
        [agent_switch.c[name] for name in ("id", "project", "agent", "session")],
        name="fk_agent_grant_request",
    ),
    sa.UniqueConstraint("request", "target", name="uq_agent_grant_request"),
    sa.Index("ix_agent_grant_agent", "agent", "created_at"),
)


def model_to_row(model: ModelChoice) -> Values:
    return {
        "model": model.text,
        "model_kind": model.kind.value,
        "model_route": model.route,
        "model_target": model.target,
    }


def model_from_row(row: Row) -> ModelChoice:
    return ModelChoice(
        row.model, ModelKind(row.model_kind), route=row.model_route, target=row.model_target
    )


def _model_from_json(data: JsonIn) -> ModelChoice:
    return ModelChoice(**{**data, "kind": ModelKind(data["kind"])})


def agent_to_row(agent: Agent) -> Values:
    fallback = agent.fallback_model
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "instructions": agent.instructions,
        **model_to_row(agent.model),
        "tools": [asdict(tool) for tool in agent.tools],
        "fallback_model": asdict(fallback) if fallback is not None else None,
        "data_class": agent.data_class,
        "owner_key": agent.owner_key,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
        "deleted_at": agent.deleted_at,
    }


def agent_from_row(row: Row) -> Agent:
    fallback = row.fallback_model
    return Agent(
        id=row.id,
        name=row.name,
        model=model_from_row(row),
        created_at=row.created_at,
        updated_at=row.updated_at,
        description=row.description,
        instructions=row.instructions,
        tools=tuple(AgentTool(**tool) for tool in row.tools),
        fallback_model=_model_from_json(fallback) if fallback is not None else None,
        data_class=row.data_class,
        owner_key=row.owner_key,
        deleted_at=row.deleted_at,
    )


def switch_request_to_row(request: ModelSwitchRequest) -> Values:
    return {
        **asdict(request),
        "targets": list(request.targets),
        "omissions": list(request.omissions),
        "figures": dict(request.figures),
        "state": request.state.value,
    }


def switch_request_from_row(row: Row) -> ModelSwitchRequest:
    values = {name: getattr(row, name) for name in ModelSwitchRequest.__dataclass_fields__}
    read = {
        "targets": tuple(row.targets),
        "for_children": bool(row.for_children),
        "omissions": tuple(row.omissions),
        "state": SwitchState(row.state),
    }
    return ModelSwitchRequest(**{**values, **read})


def grant_to_row(grant: AgentGrant) -> Values:
    return {
        **asdict(grant),
        "kind": grant.kind.value,
        "session": grant.session or None,
        "request": grant.request or None,
    }


def grant_from_row(row: Row) -> AgentGrant:
    values = {name: getattr(row, name) for name in AgentGrant.__dataclass_fields__}
    read = {
        "kind": GrantKind(row.kind),
        "session": row.session or "",
        "request": row.request or "",
    }
    return AgentGrant(**{**values, **read})
