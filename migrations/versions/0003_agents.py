"""Agents: their sessions, messages and turns, switch requests, and the signed grants by which a
literal target answers; and the models that providers list.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Each before those that refer to it.
TABLES = (
    "agent",
    "agent_idempotency",
    "agent_session",
    "agent_switch",
    "agent_grant",
    "agent_turn",
    "agent_message",
    "discovered_model",
)
GRANT = sa.table("agent_grant", sa.column("id"), sa.column("revoked_at"))


def upgrade() -> None:
    create_agent()
    create_agent_idempotency()
    create_agent_session()
    create_agent_switch()
    create_agent_grant()
    create_agent_turn()
    create_agent_message()
    create_discovered_model()


def downgrade() -> None:
    db = op.get_bind()
    # The manifest is signed over them, and the version before knows none.
    live = db.execute(sa.select(GRANT.c.id).where(GRANT.c.revoked_at.is_(None))).first()
    if live is not None:
        raise RuntimeError(
            f"grant {live.id} of an agent is in force: revoke all of them first, or the "
            "version before refuses the manifest"
        )
    functions = functions_of(db)
    for table in reversed(TABLES):
        op.drop_table(table)
    for function in functions:
        db.exec_driver_sql(f"DROP FUNCTION {function}")


def functions_of(db: sa.Connection) -> list[str]:
    """Of PostgreSQL: what only these tables' triggers call. SQLite's go with their table."""
    if db.dialect.name == "sqlite":
        return []
    found = sa.text(
        "SELECT p.oid::regprocedure::text FROM pg_trigger t"
        " JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace"
        " GROUP BY p.oid HAVING bool_and(c.relname = ANY(:tables)) ORDER BY p.oid"
    )
    return list(db.execute(found, {"tables": list(TABLES)}).scalars())


def create_agent() -> None:
    op.create_table(
        "agent",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_kind", sa.Text(), nullable=False),
        sa.Column("model_route", sa.Text(), nullable=False),
        sa.Column("model_target", sa.Text(), nullable=False),
        sa.Column("tools", sa.Text(), nullable=False),
        sa.Column("fallback_model", sa.Text(), nullable=True),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("owner_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_id_not_blank")),
        sa.CheckConstraint(
            "model_kind IN ('route', 'auto', 'literal')", name=op.f("ck_agent_model_kind_known")
        ),
        sa.CheckConstraint(
            "(model_kind = 'literal') = (model_target <> '')"
            " AND (model_kind = 'literal') = (model_route = '')",
            name=op.f("ck_agent_model_whole"),
        ),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_agent_name_not_blank")),
        sa.CheckConstraint("owner_key <> ''", name=op.f("ck_agent_owner_key_named")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent")),
        sa.UniqueConstraint("id", "project", name=op.f("uq_agent_project")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_owner_key", "agent", ["owner_key", "created_at", "id"], unique=False
    )


def create_agent_idempotency() -> None:
    op.create_table(
        "agent_idempotency",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("turn", sa.Text(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(status IS NULL) = (answer IS NULL)",
            name=op.f("ck_agent_idempotency_answer_whole"),
        ),
        sa.CheckConstraint("trim(key) <> ''", name=op.f("ck_agent_idempotency_key_not_blank")),
        sa.CheckConstraint(
            "trim(request_hash) <> ''", name=op.f("ck_agent_idempotency_request_hash_not_blank")
        ),
        sa.CheckConstraint(
            "status BETWEEN 100 AND 599", name=op.f("ck_agent_idempotency_status_range")
        ),
        sa.CheckConstraint(
            "turn IS NULL OR session IS NOT NULL",
            name=op.f("ck_agent_idempotency_turn_of_a_session"),
        ),
        sa.PrimaryKeyConstraint("project", "scope", "key", name=op.f("pk_agent_idempotency")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_idempotency_created_at", "agent_idempotency", ["created_at"], unique=False
    )
    op.create_index(
        "ix_agent_idempotency_session", "agent_idempotency", ["session"], unique=False
    )
    op.create_index("ix_agent_idempotency_turn", "agent_idempotency", ["turn"], unique=False)


def create_agent_session() -> None:
    op.create_table(
        "agent_session",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_kind", sa.Text(), nullable=False),
        sa.Column("model_route", sa.Text(), nullable=False),
        sa.Column("model_target", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("depth", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_agent_session_cost_usd_amount")
        ),
        sa.CheckConstraint("depth >= 0", name=op.f("ck_agent_session_depth_least")),
        sa.CheckConstraint(
            "(parent IS NULL) = (depth = 0)", name=op.f("ck_agent_session_depth_of_a_child")
        ),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_session_id_not_blank")),
        sa.CheckConstraint(
            "(model_kind = 'literal' AND grant_id IS NOT NULL)"
            " OR (model_kind = 'route' AND grant_id IS NULL) OR model_kind = 'auto'",
            name=op.f("ck_agent_session_literal_granted"),
        ),
        sa.CheckConstraint(
            "model_kind IN ('route', 'auto', 'literal')",
            name=op.f("ck_agent_session_model_kind_known"),
        ),
        sa.CheckConstraint(
            "(model_kind = 'literal') = (model_target <> '')"
            " AND (model_kind = 'literal') = (model_route = '')",
            name=op.f("ck_agent_session_model_whole"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'closed')", name=op.f("ck_agent_session_state_known")
        ),
        sa.ForeignKeyConstraint(
            ["agent", "project"],
            ["agent.id", "agent.project"],
            name=op.f("fk_agent_session_agent"),
        ),
        sa.ForeignKeyConstraint(
            ["parent", "project"],
            ["agent_session.id", "agent_session.project"],
            name=op.f("fk_agent_session_parent"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_session")),
        sa.UniqueConstraint("id", "project", name=op.f("uq_agent_session_project")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_session_agent", "agent_session", ["agent", "created_at", "id"], unique=False
    )
    op.create_index("ix_agent_session_last_at", "agent_session", ["last_at"], unique=False)
    op.create_index("ix_agent_session_parent", "agent_session", ["parent"], unique=False)
    op.create_index("ix_agent_session_user_id", "agent_session", ["user_id"], unique=False)


def create_agent_switch() -> None:
    op.create_table(
        "agent_switch",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("for_children", sa.Boolean(), nullable=False),
        sa.Column("omissions", sa.Text(), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_with", sa.Text(), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "state <> 'approved' OR (decided_at IS NOT NULL AND decided_at < expires_at)",
            name=op.f("ck_agent_switch_approved_in_time"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('approved', 'rejected') OR trim(decided_by) <> ''",
            name=op.f("ck_agent_switch_decided_by_whom"),
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (decided_at IS NULL)",
            name=op.f("ck_agent_switch_decided_when"),
        ),
        sa.CheckConstraint("expires_at > asked_at", name=op.f("ck_agent_switch_expires_later")),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_switch_id_not_blank")),
        sa.CheckConstraint(
            "trim(session) <> ''", name=op.f("ck_agent_switch_session_not_blank")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'expired', 'cancelled')",
            name=op.f("ck_agent_switch_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["agent", "project"],
            ["agent.id", "agent.project"],
            name=op.f("fk_agent_switch_agent"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_switch")),
        sa.UniqueConstraint(
            "id", "project", "agent", "session", name=op.f("uq_agent_switch_whole")
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_switch_pending",
        "agent_switch",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_agent_switch_session", "agent_switch", ["session", "asked_at"], unique=False
    )


def create_agent_grant() -> None:
    op.create_table(
        "agent_grant",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("granted_with", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "expires_at > created_at", name=op.f("ck_agent_grant_expires_later")
        ),
        sa.CheckConstraint(
            "trim(granted_by) <> ''", name=op.f("ck_agent_grant_granted_by_not_blank")
        ),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_grant_id_not_blank")),
        sa.CheckConstraint(
            "kind IN ('baseline', 'change', 'switch', 'fallback', 'auto')",
            name=op.f("ck_agent_grant_kind_known"),
        ),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_agent_grant_reason_not_blank")),
        sa.CheckConstraint(
            "(kind = 'switch') = (request IS NOT NULL)",
            name=op.f("ck_agent_grant_request_of_a_switch"),
        ),
        sa.CheckConstraint("session <> ''", name=op.f("ck_agent_grant_session_named")),
        sa.CheckConstraint(
            "kind = 'auto' OR (kind = 'switch') = (session IS NOT NULL)",
            name=op.f("ck_agent_grant_session_of_a_switch"),
        ),
        sa.CheckConstraint(
            "trim(target_name) <> ''", name=op.f("ck_agent_grant_target_name_not_blank")
        ),
        sa.ForeignKeyConstraint(
            ["agent", "project"],
            ["agent.id", "agent.project"],
            name=op.f("fk_agent_grant_agent"),
        ),
        sa.ForeignKeyConstraint(
            ["request", "project", "agent", "session"],
            [
                "agent_switch.id",
                "agent_switch.project",
                "agent_switch.agent",
                "agent_switch.session",
            ],
            name=op.f("fk_agent_grant_request"),
        ),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_agent_grant_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_grant")),
        sa.UniqueConstraint("request", "target", name=op.f("uq_agent_grant_request")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_grant_agent", "agent_grant", ["agent", "created_at"], unique=False
    )


def create_agent_turn() -> None:
    op.create_table(
        "agent_turn",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (ended_at IS NULL)", name=op.f("ck_agent_turn_ended_when")
        ),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_turn_id_not_blank")),
        sa.CheckConstraint("trim(owner) <> ''", name=op.f("ck_agent_turn_owner_not_blank")),
        sa.CheckConstraint(
            "state IN ('running', 'done', 'interrupted')",
            name=op.f("ck_agent_turn_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["session", "project"],
            ["agent_session.id", "agent_session.project"],
            name=op.f("fk_agent_turn_session"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_turn")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_agent_turn_lease",
        "agent_turn",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_agent_turn_session", "agent_turn", ["session", "begun_at"], unique=False
    )
    op.create_index(
        "uq_agent_turn_running",
        "agent_turn",
        ["session"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )


def create_agent_message() -> None:
    op.create_table(
        "agent_message",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("turn", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("response_to", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("fallback_from", sa.Text(), nullable=False),
        sa.Column("served_reason", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "cached_tokens >= 0", name=op.f("ck_agent_message_cached_tokens_least")
        ),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_agent_message_cost_usd_amount")
        ),
        sa.CheckConstraint(
            "(state = 'streaming') = (done_at IS NULL)", name=op.f("ck_agent_message_done_when")
        ),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_agent_message_id_not_blank")),
        sa.CheckConstraint(
            "input_tokens >= 0", name=op.f("ck_agent_message_input_tokens_least")
        ),
        sa.CheckConstraint(
            "state = 'complete' OR role = 'assistant'",
            name=op.f("ck_agent_message_only_answers_fail"),
        ),
        sa.CheckConstraint(
            "output_tokens >= 0", name=op.f("ck_agent_message_output_tokens_least")
        ),
        sa.CheckConstraint("position >= 1", name=op.f("ck_agent_message_position_least")),
        sa.CheckConstraint(
            "role IN ('system', 'user', 'assistant', 'tool')",
            name=op.f("ck_agent_message_role_known"),
        ),
        sa.CheckConstraint(
            "state IN ('streaming', 'complete', 'interrupted', 'failed')",
            name=op.f("ck_agent_message_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["session", "project"],
            ["agent_session.id", "agent_session.project"],
            name=op.f("fk_agent_message_session"),
        ),
        sa.ForeignKeyConstraint(
            ["turn"], ["agent_turn.id"], name=op.f("fk_agent_message_turn")
        ),
        sa.PrimaryKeyConstraint("session", "position", name=op.f("pk_agent_message")),
        sa.UniqueConstraint("id", name=op.f("uq_agent_message_id")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_agent_message_turn", "agent_message", ["turn"], unique=False)


def create_discovered_model() -> None:
    op.create_table(
        "discovered_model",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.Column("context_window", sa.BigInteger(), nullable=True),
        sa.Column("price", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "trim(model) <> ''", name=op.f("ck_discovered_model_model_not_blank")
        ),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_discovered_model_provider")
        ),
        sa.PrimaryKeyConstraint("provider", "model", name=op.f("pk_discovered_model")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
