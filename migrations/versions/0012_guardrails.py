"""What the guardrails of a canary saw in each block, beside its failures."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # By hand: alembic would copy SQLite's table for the check, and lose its triggers.
    kind = sa.BigInteger().compile(dialect=op.get_bind().dialect)
    op.execute(
        f"ALTER TABLE block ADD COLUMN period {kind} DEFAULT '1' NOT NULL"
        " CONSTRAINT ck_block_period_least CHECK (period >= 1)"
    )
    for name in ("counts", "ranks", "levels"):
        op.add_column("block", sa.Column(name, sa.Text(), nullable=True))


def downgrade() -> None:
    for name in ("levels", "ranks", "counts", "period"):
        op.drop_column("block", name)
