"""Tables of agents' sessions, and of their turns and messages; their rows as domain objects and
back. Triggers (`store/guards/agents`) hold the rules about several rows.

The table of requests to the management API that came with an `Idempotency-Key`; its rows as
domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import MessageRole, MessageState, SessionMessage
from harness.domain.agents.turn import SessionTurn, TurnState
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.schema.agents import agent
from harness.store.schema.columns import (
    amount,
    at_least,
    columns_of,
    json_value,
    metadata,
    one_of,
    unique_where,
)
from harness.store.schema.stored_row import Record

IS_RUNNING = sa.text("state = 'running'")

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
    sa.CheckConstraint("(parent IS NULL) = (depth = 0)", name="depth_of_a_child"),
    sa.Index("ix_agent_session_agent", "agent", "created_at", "id"),
    sa.Index("ix_agent_session_created_at", "created_at", "id"),
    sa.Index("ix_agent_session_user_id", "user_id"),
    sa.Index("ix_agent_session_parent", "parent"),
    sa.Index("ix_agent_session_last_at", "last_at"),
)

# A session has one running turn at a time. Each turn ends once (triggers).
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

# Numbered without gaps; an answer under way ends once, and nothing changes after it (triggers).
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

# Forgotten after a day. owner: of an attempt, which alone may let the request take effect.
idempotent_request = sa.Table(
    "idempotent_request",
    metadata,
    *columns_of(
        IdempotentRequest,
        free=("scope", "key"),
    ),
    sa.PrimaryKeyConstraint("scope", "key"),
    sa.CheckConstraint("(status IS NULL) = (body = '')", name="answered_whole"),
    sa.Index("ix_idempotent_request_claimed_at", "claimed_at"),
)


AGENT_MESSAGE: Final = Record.by_fields(agent_message, SessionMessage)
AGENT_SESSION: Final = Record.by_fields(agent_session, AgentSession)
AGENT_TURN: Final = Record.by_fields(agent_turn, SessionTurn)
IDEMPOTENT_REQUEST: Final = Record.by_fields(idempotent_request, IdempotentRequest)
