"""Which keys a rollout has counted, and what a block counted of keys that were never seen."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seen_keys",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("page BETWEEN 0 AND 4095", name=op.f("ck_seen_keys_page_range")),
        sa.PrimaryKeyConstraint("rollout", "page", name=op.f("pk_seen_keys")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.add_column("block", sa.Column("never_seen", sa.Text(), nullable=True))


def downgrade() -> None:
    # What was decided by evidence that is carried over periods cannot be decided again.
    op.drop_column("block", "never_seen")
    op.drop_table("seen_keys")
