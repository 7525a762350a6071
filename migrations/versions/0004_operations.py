"""What happens while it runs: blocks, traffic, audit log, keys, the installation."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "block",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("weight_bps", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("canary_units", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("canary_failures", sa.BigInteger(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "failures >= 0 AND canary_failures BETWEEN 0 AND canary_units AND failures -"
            " canary_failures BETWEEN 0 AND units - canary_units",
            name=op.f("ck_block_failures_range"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_block_number_least")),
        sa.CheckConstraint(
            "units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units",
            name=op.f("ck_block_units_range"),
        ),
        sa.CheckConstraint(
            "weight_bps BETWEEN 0 AND 10000", name=op.f("ck_block_weight_bps_range")
        ),
        sa.PrimaryKeyConstraint("rollout", "number", name=op.f("pk_block")),
        sa.UniqueConstraint("rollout", "worker", "sequence", name="uq_block_sent_once"),
    )
    op.create_table(
        "traffic",
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("streams", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Text(), nullable=False),
        sa.CheckConstraint("arm IN ('incumbent', 'canary')", name=op.f("ck_traffic_arm_known")),
        sa.CheckConstraint("charged >= 0", name=op.f("ck_traffic_charged_least")),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_traffic_cost_usd_amount")
        ),
        sa.CheckConstraint("failed >= 0", name=op.f("ck_traffic_failed_least")),
        sa.CheckConstraint("input_tokens >= 0", name=op.f("ck_traffic_input_tokens_least")),
        sa.CheckConstraint("output_tokens >= 0", name=op.f("ck_traffic_output_tokens_least")),
        sa.CheckConstraint("requests >= 0", name=op.f("ck_traffic_requests_least")),
        sa.CheckConstraint("streams >= 0", name=op.f("ck_traffic_streams_least")),
        sa.PrimaryKeyConstraint(
            "route", "minute", "worker", "arm", "target", "revision", name=op.f("pk_traffic")
        ),
    )
    op.create_index("ix_traffic_minute", "traffic", ["minute"], unique=False)
    op.create_table(
        "audit_event",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_audit_event_number_least")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_event")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("role", sa.BigInteger(), nullable=True),
        sa.Column("routes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("role BETWEEN 1 AND 4", name=op.f("ck_api_key_role_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_key_hash")),
    )
    op.create_table(
        "meta",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_meta_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meta")),
    )
    op.execute(
        sa.insert(
            sa.table("meta", sa.column("id"), sa.column("installation"), sa.column("changes"))
        ).values(id=1, installation=secrets.token_hex(16), changes=0)
    )


def downgrade() -> None:
    op.drop_table("meta")
    op.drop_table("api_key")
    op.drop_table("audit_event")
    op.drop_table("traffic")
    op.drop_table("block")
