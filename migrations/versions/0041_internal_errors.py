"""Faults of the router's own, beside what each minute's traffic counts."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0035"
branch_labels = None
depends_on = None

COLUMN = "internal_errors"


def upgrade() -> None:
    # With its check, as one statement: SQLite need not copy the table.
    dialect = op.get_bind().dialect
    # SQLite's strict tables know no other word for it.
    kind = "INTEGER" if dialect.name == "sqlite" else sa.BigInteger().compile(dialect=dialect)
    op.execute(
        f"ALTER TABLE traffic ADD COLUMN {COLUMN} {kind} DEFAULT '0' NOT NULL"
        f" CONSTRAINT ck_traffic_{COLUMN}_least CHECK ({COLUMN} >= 0)"
    )


def downgrade() -> None:
    op.drop_column("traffic", COLUMN)
