"""Alerts with the outbox of their messages; failovers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KINDS = (
    "breaker_open",
    "our_key",
    "quota",
    "model_unknown",
    "revision_refused",
    "observations_dropped",
    "spool_full",
    "rolled_back",
    "promoted",
    "canary_paused",
    "awaiting_approval",
    "sample_ratio",
    "key_budget",
    "waiver_expired",
    "job_failed",
    "audit_broken",
    "test",
)
ONE_STATE = (
    "(next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL)"
    " OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL)"
    " OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)"
)
TOLD_WHEN = (
    "(told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0) AND messages >= 0"
)


def upgrade() -> None:
    alerts()
    deliveries()
    failovers()


def alerts() -> None:
    kinds = ", ".join(f"'{each}'" for each in KINDS)
    op.create_table(
        "alert",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sources", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("told", sa.Text(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("told_count", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(f"kind IN ({kinds})", name=op.f("ck_alert_kind_known")),
        sa.CheckConstraint("told IN ('raised', 'resolved')", name=op.f("ck_alert_told_known")),
        sa.CheckConstraint("count >= 1", name=op.f("ck_alert_count_least")),
        sa.CheckConstraint("last_seen >= first_seen", name=op.f("ck_alert_seen_in_order")),
        sa.CheckConstraint(
            "told_count BETWEEN 0 AND count", name=op.f("ck_alert_told_count_range")
        ),
        sa.CheckConstraint(TOLD_WHEN, name=op.f("ck_alert_told_when")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    op.create_index("ix_alert_key", "alert", ["key", "first_seen"])
    op.create_index("ix_alert_last_seen", "alert", ["last_seen"])
    still_open = sa.text("resolved_at IS NULL")
    op.create_index(
        "uq_alert_open",
        "alert",
        ["key"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )


def deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("alert", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("gave_up_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "message IN ('raised', 'resolved')", name=op.f("ck_delivery_message_known")
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_delivery_number_least")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_delivery_attempts_least")),
        sa.CheckConstraint(ONE_STATE, name=op.f("ck_delivery_one_state")),
        sa.CheckConstraint(
            "delivered_at IS NULL OR attempts > 0",
            name=op.f("ck_delivery_delivered_by_attempt"),
        ),
        sa.ForeignKeyConstraint(
            ["alert"], ["alert.id"], name=op.f("fk_delivery_alert"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alert", "number", "sink", name=op.f("pk_delivery")),
    )
    op.create_index("ix_delivery_next_attempt_at", "delivery", ["next_attempt_at"])


def failovers() -> None:
    op.create_table(
        "failover",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("tools", sa.BigInteger(), nullable=False),
        sa.Column("user_hash", sa.Text(), nullable=False),
        sa.Column("next_target", sa.Text(), nullable=True),
        *(
            sa.CheckConstraint(f"{column} >= 0", name=op.f(f"ck_failover_{column}_least"))
            for column in ("attempts", "body_bytes", "messages", "tools")
        ),
        sa.CheckConstraint(
            "latency_ms >= 0 AND latency_ms < 1e15", name=op.f("ck_failover_latency_ms_amount")
        ),
        sa.PrimaryKeyConstraint("worker", "number", name=op.f("pk_failover")),
    )
    op.create_index("ix_failover_at", "failover", ["at"])
    op.create_index("ix_failover_user_hash", "failover", ["user_hash", "at"])


def downgrade() -> None:
    for table in ("failover", "delivery", "alert"):
        op.drop_table(table)
