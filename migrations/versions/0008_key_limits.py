"""Limits of data keys, and what each key spent by day."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("limits", sa.Text(), nullable=True))
    op.create_table(
        "key_spend",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_key_spend_cost_usd_amount")
        ),
        sa.CheckConstraint("requests >= 0", name=op.f("ck_key_spend_requests_least")),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_key_spend_tokens_least")),
        sa.CheckConstraint("unpriced >= 0", name=op.f("ck_key_spend_unpriced_least")),
        sa.PrimaryKeyConstraint("key", "day", "worker", name=op.f("pk_key_spend")),
    )
    op.create_index("ix_key_spend_day", "key_spend", ["day"], unique=False)


def downgrade() -> None:
    op.drop_table("key_spend")
    op.drop_column("api_key", "limits")
