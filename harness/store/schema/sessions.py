"""Tables of agents' sessions, of their turns and messages, and of answers by idempotency key;
their rows as domain objects and back. What a row alone cannot show is held by triggers
(`store/guards/agents`).
"""

from dataclasses import asdict

import sqlalchemy as sa

from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import (
    MessageRecord,
    MessageRole,
    MessageState,
    MessageUsage,
    ServedBy,
    SessionMessage,
)
from harness.domain.agents.turn_lease import (
    IdempotencyKey,
    IdempotentAnswer,
    SessionTurn,
    TurnState,
)
from harness.store.schema.agents import (
    agent,
    model_columns,
    model_from_row,
    model_to_row,
    of_project,
)
from harness.store.schema.columns import (
    Row,
    Values,
    amount,
    at_least,
    count,
    json_value,
    metadata,
    not_blank,
    number,
    one_of,
    project,
    text,
    time,
    words,
)

# A literal model has its grant, no other needs one (triggers).
agent_session = sa.Table(
    "agent_session",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    text("agent"),
    words("user_id"),
    json_value("metadata"),
    *model_columns(),
    text("grant_id", nullable=True),
    text("state"),
    text("parent", nullable=True),
    count("depth"),
    number("cost_usd"),
    time("created_at"),
    time("last_at"),
    not_blank("id"),
    one_of("state", SessionState),
    at_least("depth", 0),
    amount("cost_usd"),
    sa.CheckConstraint("(parent IS NULL) = (depth = 0)", name="depth_of_a_child"),
    sa.CheckConstraint(
        "(model_kind = 'literal' AND grant_id IS NOT NULL)"
        " OR (model_kind = 'route' AND grant_id IS NULL) OR model_kind = 'auto'",
        name="literal_granted",
    ),
    sa.UniqueConstraint("id", "project", name="uq_agent_session_project"),
    of_project("agent", agent),
    sa.ForeignKeyConstraint(
        ["parent", "project"],
        ["agent_session.id", "agent_session.project"],
        name="fk_agent_session_parent",
    ),
    sa.Index("ix_agent_session_agent", "agent", "created_at", "id"),
    sa.Index("ix_agent_session_user_id", "user_id"),
    sa.Index("ix_agent_session_parent", "parent"),
    sa.Index("ix_agent_session_last_at", "last_at"),
)

# One runs at a time in a session; ends once (triggers).
agent_turn = sa.Table(
    "agent_turn",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    text("session"),
    text("owner"),
    time("lease_until"),
    text("state"),
    time("begun_at"),
    time("ended_at", nullable=True),
    not_blank("id"),
    not_blank("owner"),
    one_of("state", TurnState),
    sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended_when"),
    of_project("session", agent_session),
    sa.Index("ix_agent_turn_session", "session", "begun_at"),
    sa.Index(
        "uq_agent_turn_running",
        "session",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
    sa.Index(
        "ix_agent_turn_lease",
        "lease_until",
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

# Numbered without gaps; an answer under way ends once, and nothing changes after it (triggers).
agent_message = sa.Table(
    "agent_message",
    metadata,
    project(),
    text("session"),
    count("position"),
    text("id"),
    sa.Column("turn", sa.ForeignKey(agent_turn.c.id), nullable=False),
    text("role"),
    text("state"),
    words("response_to"),
    text("body"),
    sa.Column("encrypted", sa.Boolean, nullable=False),
    words("asked"),
    words("route"),
    words("target"),
    words("request_id"),
    words("fallback_from"),
    words("served_reason"),
    count("input_tokens"),
    count("output_tokens"),
    count("cached_tokens"),
    number("cost_usd", nullable=True),
    time("created_at"),
    time("done_at", nullable=True),
    sa.PrimaryKeyConstraint("session", "position"),
    sa.UniqueConstraint("id"),
    not_blank("id"),
    at_least("position", 1),
    one_of("role", MessageRole),
    one_of("state", MessageState),
    at_least("input_tokens", 0),
    at_least("output_tokens", 0),
    at_least("cached_tokens", 0),
    amount("cost_usd"),
    sa.CheckConstraint("(state = 'streaming') = (done_at IS NULL)", name="done_when"),
    sa.CheckConstraint("state = 'complete' OR role = 'assistant'", name="only_answers_fail"),
    of_project("session", agent_session),
    sa.Index("ix_agent_message_turn", "turn"),
)

# Answered once (triggers), and forgotten after a while.
agent_idempotency = sa.Table(
    "agent_idempotency",
    metadata,
    project(),
    text("scope"),
    words("key"),
    text("request_hash"),
    text("session", nullable=True),
    text("turn", nullable=True),
    count("status", nullable=True),
    sa.Column("answer", sa.Text, nullable=True),
    sa.Column("encrypted", sa.Boolean, nullable=False),
    time("created_at"),
    sa.PrimaryKeyConstraint("project", "scope", "key"),
    not_blank("key"),
    not_blank("request_hash"),
    sa.CheckConstraint("(status IS NULL) = (answer IS NULL)", name="answer_whole"),
    sa.CheckConstraint("status BETWEEN 100 AND 599", name="status_range"),
    sa.CheckConstraint("turn IS NULL OR session IS NOT NULL", name="turn_of_a_session"),
    sa.Index("ix_agent_idempotency_session", "session"),
    sa.Index("ix_agent_idempotency_turn", "turn"),
    sa.Index("ix_agent_idempotency_created_at", "created_at"),
)


def session_to_row(session: AgentSession) -> Values:
    return {
        "id": session.id,
        "agent": session.agent,
        "user_id": session.user_id,
        "metadata": dict(session.metadata),
        **model_to_row(session.model),
        "grant_id": session.grant or None,
        "state": session.state.value,
        "parent": session.parent,
        "depth": session.depth,
        "cost_usd": session.cost_usd,
        "created_at": session.created_at,
        "last_at": session.last_at,
    }


def session_from_row(row: Row) -> AgentSession:
    return AgentSession(
        id=row.id,
        agent=row.agent,
        model=model_from_row(row),
        created_at=row.created_at,
        last_at=row.last_at,
        user_id=row.user_id,
        metadata=row.metadata,
        state=SessionState(row.state),
        grant=row.grant_id or "",
        parent=row.parent,
        depth=row.depth,
        cost_usd=row.cost_usd,
    )


def turn_to_row(turn: SessionTurn) -> Values:
    return {**asdict(turn), "state": turn.state.value}


def turn_from_row(row: Row) -> SessionTurn:
    return SessionTurn(
        id=row.id,
        session=row.session,
        owner=row.owner,
        begun_at=row.begun_at,
        lease_until=row.lease_until,
        state=TurnState(row.state),
        ended_at=row.ended_at,
    )


def message_to_row(record: MessageRecord) -> Values:
    message = record.message
    served, usage = message.served, message.usage
    return {
        "session": message.session,
        "position": message.position,
        "id": message.id,
        "turn": message.turn,
        "role": message.role.value,
        "state": message.state.value,
        "response_to": message.response_to,
        "body": record.body,
        "encrypted": record.encrypted,
        "asked": served.asked,
        "route": served.route,
        "target": served.target,
        "request_id": served.request_id,
        "fallback_from": served.fallback_from,
        "served_reason": served.reason,
        **asdict(usage),
        "created_at": message.created_at,
        "done_at": message.done_at,
    }


def message_from_row(row: Row) -> MessageRecord:
    message = SessionMessage(
        session=row.session,
        position=row.position,
        id=row.id,
        role=MessageRole(row.role),
        created_at=row.created_at,
        response_to=row.response_to,
        state=MessageState(row.state),
        served=ServedBy(
            row.asked,
            row.route,
            row.target,
            row.request_id,
            row.fallback_from,
            row.served_reason,
        ),
        usage=MessageUsage(
            row.input_tokens, row.output_tokens, row.cached_tokens, row.cost_usd
        ),
        done_at=row.done_at,
        turn=row.turn,
    )
    return MessageRecord(message, row.body, bool(row.encrypted))


def idempotent_answer_to_row(answer: IdempotentAnswer) -> Values:
    return {
        **asdict(answer.key),
        "session": answer.session or None,
        "turn": answer.turn or None,
        "status": answer.status,
        "answer": answer.body if answer.status is not None else None,
        "encrypted": answer.encrypted,
        "created_at": answer.created_at,
    }


def idempotent_answer_from_row(row: Row) -> IdempotentAnswer:
    return IdempotentAnswer(
        IdempotencyKey(row.scope, row.key, row.request_hash),
        row.created_at,
        row.session or "",
        row.turn or "",
        row.status,
        row.answer or "",
        bool(row.encrypted),
    )
