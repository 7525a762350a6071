"""How far each sink outside the database has got the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NAME = "audit_export"


def upgrade() -> None:
    op.create_table(
        NAME,
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.CheckConstraint("number >= 0", name=op.f(f"ck_{NAME}_number_least")),
        sa.CheckConstraint("failures >= 0", name=op.f(f"ck_{NAME}_failures_least")),
        sa.CheckConstraint("trim(sink) <> ''", name=op.f(f"ck_{NAME}_sink_not_blank")),
        sa.PrimaryKeyConstraint("sink", name=op.f(f"pk_{NAME}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    # Sinks get the log again from its beginning.
    op.drop_table(NAME)
