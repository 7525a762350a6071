"""Tables of agents, of the switch requests of their sessions, and of the signed grants by which
a literal target answers; their rows as domain objects and back.

CHECKs and foreign keys hold the rules of one row; triggers (`store/guards/agents`) hold rules
about other rows and changes. Sessions are deleted for privacy, so that grants and switch
requests name one without a foreign key.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import Agent, AgentGrant, GrantKind
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.store.schema.columns import (
    columns_of,
    index_where,
    metadata,
    not_blank,
    one_of,
    signature,
)
from harness.store.schema.evals import target
from harness.store.schema.stored_row import Record

IS_PENDING = sa.text("state = 'pending'")
IS_KEPT = sa.text("deleted_at IS NULL")
IS_VALID = sa.text("revoked_at IS NULL")

# Deleted agents stay, marked, while a session, grant or switch request names them.
# owner_key is no foreign key: an admin who takes out a forged key keeps its conversations.
agent = sa.Table(
    "agent",
    metadata,
    *columns_of(
        Agent,
        sa.Column("id", sa.Text, primary_key=True),
        free=("name", "description", "instructions", "data_class"),
    ),
    not_blank("name"),
    sa.Index("ix_agent_owner_key", "owner_key", "created_at", "id"),
    index_where("ix_agent_created_at", IS_KEPT, "created_at", "id"),
)

# Decided once, never deleted; its words may be blanked (triggers).
agent_switch = sa.Table(
    "agent_switch",
    metadata,
    *columns_of(
        ModelSwitchRequest,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("agent", sa.ForeignKey(agent.c.id), nullable=False),
        free=("model_requested", "reason", "decided_by", "decision_reason"),
    ),
    one_of("state", SwitchState),
    sa.CheckConstraint("expires_at > asked_at", name="expires_later"),
    sa.CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided_when"),
    sa.CheckConstraint(
        "state NOT IN ('approved', 'rejected') OR trim(decided_by) <> ''",
        name="decided_by_whom",
    ),
    sa.CheckConstraint(
        "state <> 'approved' OR decided_at < expires_at", name="approved_in_time"
    ),
    sa.Index("ix_agent_switch_session", "session", "asked_at"),
    sa.Index("ix_agent_switch_asked_at", "asked_at", "id"),
    sa.Index("ix_agent_switch_state", "state", "asked_at", "id"),
    index_where("ix_agent_switch_pending", IS_PENDING, "expires_at"),
)

# Revoked once, else never changed or deleted (triggers).
agent_grant = sa.Table(
    "agent_grant",
    metadata,
    *columns_of(
        AgentGrant,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("agent", sa.ForeignKey(agent.c.id), nullable=False),
        sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
        sa.Column("request", sa.ForeignKey(agent_switch.c.id), nullable=True),
        signature(),
        free=("target_name", "granted_by", "reason", "data_class"),
    ),
    not_blank("granted_by"),
    not_blank("reason"),
    one_of("kind", GrantKind),
    # No grant is for ever.
    sa.CheckConstraint("expires_at > created_at", name="expires_later"),
    sa.CheckConstraint("(kind = 'switch') = (request IS NOT NULL)", name="request_of_a_switch"),
    sa.CheckConstraint("(kind = 'switch') = (session <> '')", name="session_of_a_switch"),
    sa.UniqueConstraint("request", "target"),
    sa.Index("ix_agent_grant_agent", "agent", "created_at"),
    sa.Index("ix_agent_grant_created_at", "created_at", "id"),
    index_where("ix_agent_grant_valid", IS_VALID, "expires_at"),
)


AGENT: Final = Record.by_fields(agent, Agent)
AGENT_SWITCH: Final = Record.by_fields(agent_switch, ModelSwitchRequest)
AGENT_GRANT: Final = Record.by_fields(agent_grant, AgentGrant)
