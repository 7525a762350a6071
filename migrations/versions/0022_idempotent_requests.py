"""Requests to the management API that came with an `Idempotency-Key`, known to all control
processes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
# A version of before keeps such keys in its memory.
compatible_from = "0016"


def upgrade() -> None:
    op.create_table(
        "idempotent_request",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("took_effect", sa.Boolean(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(status IS NULL) = (body = '')",
            name=op.f("ck_idempotent_request_answered_whole"),
        ),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotent_request")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotent_request_claimed_at", "idempotent_request", ["claimed_at"])


def downgrade() -> None:
    op.drop_table("idempotent_request")
