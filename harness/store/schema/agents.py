"""Tables of agents and their sessions. Sessions are deleted for privacy, so that grants and
switch requests name one without a foreign key.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.agents.agent import Agent, AgentGrant, AgentSession, GrantKind, SessionState
from harness.domain.agents.message import MessageRole, MessageState, SessionMessage
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.store.schema.columns import (
    amount,
    at_least,
    index_where,
    json_value,
    not_blank,
    one_of,
    text,
)
from harness.store.schema.evals import target
from harness.store.schema.signed_tables import decide_by, sign_rows_of
from harness.store.schema.stored_row import record

TURN_GOES_ON = sa.text("turn <> ''")
WAITS = sa.text("state = 'pending'")
IS_KEPT = sa.text("deleted_at IS NULL")
IS_VALID = sa.text("revoked_at IS NULL")

# Deleted agents stay, marked, while a session, grant or switch request names them.
# owner_key is no foreign key: an admin who takes out a forged key keeps its conversations.
AGENT: Final = record(
    Agent,
    "agent",
    not_blank("name"),
    sa.Index("ix_agent_owner_key", "owner_key", "created_at", "id"),
    index_where("ix_agent_created_at", IS_KEPT, "created_at", "id"),
    free="name description instructions data_class",
)
agent = AGENT.table

# Decided once, never deleted; its words may be blanked (triggers).
AGENT_SWITCH: Final = record(
    ModelSwitchRequest,
    "agent_switch",
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
    index_where("ix_agent_switch_pending", WAITS, "expires_at"),
    refers={"agent": agent},
    free="model_requested reason decided_by decision_reason",
)
agent_switch = decide_by(AGENT_SWITCH.table)

# Revoked once, else never changed or deleted (triggers).
AGENT_GRANT: Final = record(
    AgentGrant,
    "agent_grant",
    text("request", nullable=True),
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
    refers={"agent": agent, "target": target, "request": agent_switch},
    signed=True,
    free="target_name granted_by reason data_class",
)
agent_grant = sign_rows_of(AGENT_GRANT.table, live=AGENT_GRANT.table.c.revoked_at.is_(None))

AGENT_SESSION: Final = record(
    AgentSession,
    "agent_session",
    one_of("state", SessionState),
    amount("cost_usd"),
    sa.CheckConstraint("(turn = '') = (lease_until IS NULL)", name="leased_when"),
    sa.Index("ix_agent_session_agent", "agent", "created_at", "id"),
    sa.Index("ix_agent_session_created_at", "created_at", "id"),
    sa.Index("ix_agent_session_user_id", "user_id"),
    sa.Index("ix_agent_session_parent", "parent"),
    sa.Index("ix_agent_session_last_at", "last_at"),
    index_where("ix_agent_session_running", TURN_GOES_ON, "lease_until"),
    refers={"agent": agent, "parent": "agent_session"},
    free="user_id turn owner",
)
agent_session = AGENT_SESSION.table

AGENT_MESSAGE: Final = record(
    SessionMessage,
    "agent_message",
    json_value("content"),
    sa.UniqueConstraint("id"),
    at_least("position", 1),
    one_of("role", MessageRole),
    one_of("state", MessageState),
    amount("cost_usd"),
    sa.CheckConstraint("(state = 'streaming') = (done_at IS NULL)", name="done_when"),
    sa.CheckConstraint("state = 'complete' OR role = 'assistant'", name="only_answers_fail"),
    key="session position",
    refers={"session": agent_session},
    flat="served usage sent",
    free="response_to model_requested route target request_id fallback_from reason error turn "
    "client key request_hash kept",
)
agent_message = AGENT_MESSAGE.table
