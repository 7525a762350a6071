"""Tables of agents' sessions, of their turns and messages, and of answers by idempotency key;
their rows as domain objects and back. Triggers (`store/guards/agents`) hold the rules about
several rows.

The table of requests to the management API that came with an `Idempotency-Key`; its rows as
domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import (
    MessageRole,
    MessageState,
    SessionMessage,
    decode_body,
    encode_body,
)
from harness.domain.agents.turn import (
    IdempotencyKey,
    IdempotentAnswer,
    SessionTurn,
    TurnState,
)
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.store.schema.agents import agent
from harness.store.schema.columns import (
    Row,
    Values,
    amount,
    at_least,
    columns_of,
    count,
    free_text,
    metadata,
    number,
    one_of,
    text,
    time,
    unique_where,
)
from harness.store.schema.stored_row import Record, record_of, values_of

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
    ),
    one_of("state", TurnState),
    sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended_when"),
    sa.Index("ix_agent_turn_session", "session"),
    unique_where("uq_agent_turn_running", IS_RUNNING, "session"),
)

# Numbered without gaps; an answer under way ends once, and nothing changes after it (triggers).
agent_message = sa.Table(
    "agent_message",
    metadata,
    sa.Column("session", sa.ForeignKey(agent_session.c.id), nullable=False),
    count("position"),
    text("id"),
    sa.Column("turn", sa.ForeignKey(agent_turn.c.id), nullable=False),
    text("role"),
    text("state"),
    free_text("response_to"),
    text("body"),
    free_text("model_requested"),
    free_text("route"),
    free_text("target"),
    free_text("request_id"),
    free_text("fallback_from"),
    free_text("reason"),
    count("input_tokens"),
    count("output_tokens"),
    count("cached_tokens"),
    number("cost_usd", nullable=True),
    time("created_at"),
    time("done_at", nullable=True),
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

# Forgotten after a while.
agent_idempotency = sa.Table(
    "agent_idempotency",
    metadata,
    text("scope"),
    free_text("key"),
    text("request_hash"),
    text("session"),
    text("turn"),
    count("status", nullable=True),
    text("body"),
    time("created_at"),
    sa.PrimaryKeyConstraint("scope", "key"),
    sa.Index("ix_agent_idempotency_session", "session"),
    sa.Index("ix_agent_idempotency_turn", "turn"),
    sa.Index("ix_agent_idempotency_created_at", "created_at"),
)


def message_from_row(row: Row) -> SessionMessage:
    return decode_body(record_of(SessionMessage, row, agent_message), row.body)


def idempotent_answer_to_row(answer: IdempotentAnswer) -> Values:
    key = values_of(answer.key, agent_idempotency)
    return values_of(answer, agent_idempotency, **key)


def idempotent_answer_from_row(row: Row) -> IdempotentAnswer:
    key = IdempotencyKey(row.scope, row.key, row.request_hash)
    return record_of(IdempotentAnswer, row, agent_idempotency, key=key)


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


IDEMPOTENT_ANSWER: Final = Record(
    agent_idempotency, idempotent_answer_from_row, idempotent_answer_to_row
)
# The rest of a message is in its body.
AGENT_MESSAGE: Final = Record.by_fields(
    agent_message,
    SessionMessage,
    read=message_from_row,
    also=lambda message: {"body": encode_body(message)},
)
AGENT_SESSION: Final = Record.by_fields(agent_session, AgentSession)
AGENT_TURN: Final = Record.by_fields(agent_turn, SessionTurn)
IDEMPOTENT_REQUEST: Final = Record.by_fields(idempotent_request, IdempotentRequest)
