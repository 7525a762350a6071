"""Batches of observations that were stored: one that is sent again is counted once."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
# A router of before sends batches without an id, which are stored as ever.
compatible_from = "0016"

NAME = "observation_batch"


def upgrade() -> None:
    op.create_table(
        NAME,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{NAME}_at", NAME, ["at"])


def downgrade() -> None:
    op.drop_table(NAME)
