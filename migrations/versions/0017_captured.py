"""Captured requests, redacted, each with its end."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "captured",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("user_hash", sa.Text(), nullable=False),
        sa.Column("share_bps", sa.BigInteger(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("redactions", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("seen >= 1", name=op.f("ck_captured_seen_least")),
        sa.CheckConstraint(
            "share_bps BETWEEN 1 AND 10000", name=op.f("ck_captured_share_bps_range")
        ),
        sa.CheckConstraint("expires_at > at", name=op.f("ck_captured_expires_later")),
        sa.CheckConstraint("length(rules) = 64", name=op.f("ck_captured_rules_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captured")),
    )
    op.create_index("ix_captured_route", "captured", ["route", "at"])
    op.create_index("ix_captured_expires_at", "captured", ["expires_at"])
    op.create_index("ix_captured_user_hash", "captured", ["user_hash"])


def downgrade() -> None:
    op.drop_table("captured")
