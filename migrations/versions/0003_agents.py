"""Agents: their sessions, messages and turns, switch requests, and the signed grants by which a
literal target answers; and the models that providers list.
"""

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Each before those that refer to it.
TABLES = (
    "agent",
    "agent_switch",
    "agent_grant",
    "agent_session",
    "agent_turn",
    "agent_message",
    "agent_idempotency",
    "discovered_model",
)
GRANT = sa.table("agent_grant", sa.column("id"), sa.column("revoked_at"))


def upgrade() -> None:
    create_agents()
    create_sessions()
    create_discovered_models()


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


def create_table(
    name: str,
    *items: sa.schema.SchemaItem,
    key: tuple[str, ...] = ("id",),
    refers: Mapping[str, str] | None = None,
    checks: Mapping[str, str] | None = None,
) -> None:
    """refers: from column to `TABLE.COLUMN`. checks: name to condition."""
    op.create_table(
        name,
        *items,
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_{name}_{check}"))
            for check, condition in (checks or {}).items()
        ),
        *(
            sa.ForeignKeyConstraint([column], [other], name=op.f(f"fk_{name}_{column}"))
            for column, other in (refers or {}).items()
        ),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_index(
    name: str, table: str, *columns: str, unique: bool = False, where: str | None = None
) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        table,
        columns,
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def project() -> sa.Column[str]:
    return sa.Column("project", sa.Text(), server_default="default", nullable=False)


def texts(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def whole_numbers(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=nullable) for name in names]


def create_agents() -> None:
    """Agents, and what people decide for them."""
    create_table(
        "agent",
        project(),
        *texts("id", "name", "description", "instructions", "model", "tools", "data_class"),
        *texts("fallback_model", "owner_key", nullable=True),
        *whole_numbers("created_at", "updated_at"),
        *whole_numbers("deleted_at", nullable=True),
        checks={"name_not_blank": "trim(name) <> ''"},
    )
    create_index("ix_agent_owner_key", "agent", "owner_key", "created_at", "id")
    create_table(
        "agent_switch",
        project(),
        *texts("id", "agent", "session", "model_requested", "targets", "reason"),
        *texts("omissions", "figures"),
        sa.Column("for_children", sa.Boolean(), nullable=False),
        *whole_numbers("asked_at", "expires_at"),
        *texts("state", "decided_by", "decision_reason"),
        *whole_numbers("decided_at", nullable=True),
        *texts("decided_with", nullable=True),
        refers={"agent": "agent.id"},
        checks={
            "state_known": (
                "state IN ('pending', 'approved', 'rejected', 'expired', 'cancelled')"
            ),
            "expires_later": "expires_at > asked_at",
            "decided_when": "(state = 'pending') = (decided_at IS NULL)",
            "decided_by_whom": (
                "state NOT IN ('approved', 'rejected') OR trim(decided_by) <> ''"
            ),
            "approved_in_time": "state <> 'approved' OR decided_at < expires_at",
        },
    )
    create_index("ix_agent_switch_session", "agent_switch", "session", "asked_at")
    create_index(
        "ix_agent_switch_pending", "agent_switch", "expires_at", where="state = 'pending'"
    )
    create_table(
        "agent_grant",
        project(),
        *texts("id", "agent", "session", "target", "target_name", "kind"),
        *texts("granted_by", "reason", "data_class"),
        *texts("granted_with", "request", "signature", nullable=True),
        *whole_numbers("created_at", "expires_at"),
        *whole_numbers("revoked_at", nullable=True),
        sa.UniqueConstraint("request", "target", name=op.f("uq_agent_grant_request")),
        refers={"agent": "agent.id", "target": "target.id", "request": "agent_switch.id"},
        checks={
            "granted_by_not_blank": "trim(granted_by) <> ''",
            "reason_not_blank": "trim(reason) <> ''",
            "kind_known": "kind IN ('baseline', 'change', 'switch', 'fallback', 'auto')",
            "expires_later": "expires_at > created_at",
            "request_of_a_switch": "(kind = 'switch') = (request IS NOT NULL)",
            "session_of_a_switch": "(kind = 'switch') = (session <> '')",
        },
    )
    create_index("ix_agent_grant_agent", "agent_grant", "agent", "created_at")


def create_sessions() -> None:
    """Sessions, with what is said in them."""
    create_table(
        "agent_session",
        project(),
        *texts("id", "agent", "user_id", "metadata", "model", "state"),
        *texts("parent", nullable=True),
        *whole_numbers("depth", "created_at", "last_at"),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        refers={"agent": "agent.id", "parent": "agent_session.id"},
        checks={
            "state_known": "state IN ('open', 'closed')",
            "cost_usd_amount": "cost_usd >= 0 AND cost_usd < 1e15",
            "depth_of_a_child": "(parent IS NULL) = (depth = 0)",
        },
    )
    create_index("ix_agent_session_agent", "agent_session", "agent", "created_at", "id")
    create_index("ix_agent_session_user_id", "agent_session", "user_id")
    create_index("ix_agent_session_parent", "agent_session", "parent")
    create_index("ix_agent_session_last_at", "agent_session", "last_at")
    create_table(
        "agent_turn",
        project(),
        *texts("id", "session", "owner", "state"),
        *whole_numbers("lease_until", "begun_at"),
        *whole_numbers("ended_at", nullable=True),
        refers={"session": "agent_session.id"},
        checks={
            "state_known": "state IN ('running', 'done', 'interrupted')",
            "ended_when": "(state = 'running') = (ended_at IS NULL)",
        },
    )
    create_index("ix_agent_turn_session", "agent_turn", "session")
    create_index(
        "uq_agent_turn_running", "agent_turn", "session", unique=True, where="state = 'running'"
    )
    create_table(
        "agent_message",
        project(),
        *texts("session", "id", "turn", "role", "state", "response_to", "body"),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        *texts("model_requested", "route", "target", "request_id", "fallback_from", "reason"),
        *whole_numbers("position", "input_tokens", "output_tokens", "cached_tokens"),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        *whole_numbers("created_at"),
        *whole_numbers("done_at", nullable=True),
        sa.UniqueConstraint("id", name=op.f("uq_agent_message_id")),
        key=("session", "position"),
        refers={"session": "agent_session.id", "turn": "agent_turn.id"},
        checks={
            "position_least": "position >= 1",
            "role_known": "role IN ('system', 'user', 'assistant', 'tool')",
            "state_known": "state IN ('streaming', 'complete', 'interrupted', 'failed')",
            "cost_usd_amount": "cost_usd >= 0 AND cost_usd < 1e15",
            "done_when": "(state = 'streaming') = (done_at IS NULL)",
            "only_answers_fail": "state = 'complete' OR role = 'assistant'",
        },
    )
    create_index("ix_agent_message_turn", "agent_message", "turn")
    create_table(
        "agent_idempotency",
        project(),
        *texts("scope", "key", "request_hash", "session", "turn", "body"),
        *whole_numbers("status", nullable=True),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        *whole_numbers("created_at"),
        key=("project", "scope", "key"),
    )
    for column in ("session", "turn", "created_at"):
        create_index(f"ix_agent_idempotency_{column}", "agent_idempotency", column)


def create_discovered_models() -> None:
    create_table(
        "discovered_model",
        *texts("provider", "model", "source"),
        *whole_numbers("found_at"),
        *whole_numbers("context_window", nullable=True),
        *texts("price", nullable=True),
        key=("provider", "model"),
        refers={"provider": "provider.name"},
        checks={"model_not_blank": "trim(model) <> ''"},
    )
