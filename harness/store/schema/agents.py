"""Tables of agents, of their sessions with turns, messages and switch requests, and of the
signed grants by which a literal target answers; their rows as domain objects and back.

CHECKs and foreign keys hold the rules of one row; triggers (`store/guards/agents`) hold rules
about other rows and changes. Sessions are deleted for privacy, so that grants and switch
requests name one without a foreign key.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import Agent, AgentGrant, AgentSession, GrantKind, SessionState
from harness.domain.agents.message import MessageRole, MessageState, SessionMessage
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.agents.turn import SessionTurn, TurnState
from harness.store.schema.columns import (
    amount,
    at_least,
    columns_of,
    index_where,
    json_value,
    metadata,
    not_blank,
    one_of,
    signature,
    unique_where,
)
from harness.store.schema.evals import target
from harness.store.schema.stored_row import Record

IS_RUNNING = sa.text("state = 'running'")
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

agent_session = sa.Table(
    "agent_session",
    metadata,
    *columns_of(
        AgentSession,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("agent", sa.ForeignKey(agent.c.id), nullable=False),
        sa.Column("parent", sa.ForeignKey("agent_session.id"), nullable=True),
        free=("user_id",),
    ),
    one_of("state", SessionState),
    amount("cost_usd"),
    sa.Index("ix_agent_session_agent", "agent", "created_at", "id"),
    sa.Index("ix_agent_session_created_at", "created_at", "id"),
    sa.Index("ix_agent_session_user_id", "user_id"),
    sa.Index("ix_agent_session_parent", "parent"),
    sa.Index("ix_agent_session_last_at", "last_at"),
)

# A session has one running turn at a time.
agent_turn = sa.Table(
    "agent_turn",
    metadata,
    *columns_of(
        SessionTurn,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("session", sa.ForeignKey(agent_session.c.id), nullable=False),
        flat=("sent",),
        free=("key", "body"),
    ),
    one_of("state", TurnState),
    sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended_when"),
    sa.Index("ix_agent_turn_session", "session", "begun_at"),
    unique_where("uq_agent_turn_running", IS_RUNNING, "session"),
)

agent_message = sa.Table(
    "agent_message",
    metadata,
    *columns_of(
        SessionMessage,
        sa.Column("session", sa.ForeignKey(agent_session.c.id), nullable=False),
        sa.Column("turn", sa.ForeignKey(agent_turn.c.id), nullable=False),
        json_value("content"),
        flat=("served", "usage"),
        free=(
            "response_to",
            "model_requested",
            "route",
            "target",
            "request_id",
            "fallback_from",
            "reason",
            "error",
        ),
    ),
    sa.PrimaryKeyConstraint("session", "position"),
    sa.UniqueConstraint("id"),
    at_least("position", 1),
    one_of("role", MessageRole),
    one_of("state", MessageState),
    amount("cost_usd"),
    sa.CheckConstraint("(state = 'streaming') = (done_at IS NULL)", name="done_when"),
    sa.CheckConstraint("state = 'complete' OR role = 'assistant'", name="only_answers_fail"),
    sa.Index("ix_agent_message_turn", "turn"),
)


AGENT: Final = Record.by_fields(agent, Agent)
AGENT_SWITCH: Final = Record.by_fields(agent_switch, ModelSwitchRequest)
AGENT_GRANT: Final = Record.by_fields(agent_grant, AgentGrant)
AGENT_MESSAGE: Final = Record.by_fields(agent_message, SessionMessage)
AGENT_SESSION: Final = Record.by_fields(agent_session, AgentSession)
AGENT_TURN: Final = Record.by_fields(agent_turn, SessionTurn)
