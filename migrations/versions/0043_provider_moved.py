"""Since when a provider answers from where it is: NULL for one that has always been there."""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0045"
branch_labels = None
depends_on = None

GUARD = "evidence_approval_guard"
COLUMNS = ("answers_since", "moved_by", "moved_because")


def upgrade() -> None:
    dialect = op.get_bind().dialect
    # SQLite's strict tables know no other word for it.
    time = "INTEGER" if dialect.name == "sqlite" else sa.BigInteger().compile(dialect=dialect)
    for name, kind in zip(COLUMNS, (time, "TEXT", "TEXT"), strict=True):
        op.execute(f"ALTER TABLE provider ADD COLUMN {name} {kind}")


def downgrade() -> None:
    """The guard was installed with the newest revision; it names columns of older ones."""
    postgres = op.get_bind().dialect.name == "postgresql"
    op.execute(f"DROP TRIGGER {GUARD}{' ON evidence' if postgres else ''}")
    if postgres:
        op.execute(f"DROP FUNCTION {GUARD}()")
    for name in reversed(COLUMNS):
        op.drop_column("provider", name)
