"""The leader among control processes: its term fences units of work of an earlier one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NAME = "leadership"


def upgrade() -> None:
    table = op.create_table(
        NAME,
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("term >= 0", name=op.f(f"ck_{NAME}_term_least")),
        sa.CheckConstraint("id = 1", name=op.f(f"ck_{NAME}_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.bulk_insert(table, [{"id": 1, "term": 0, "owner": "", "since": None}])


def downgrade() -> None:
    op.drop_table(NAME)
    db = op.get_bind()
    if db.dialect.name != "sqlite":
        for trigger in ("guard", "no_return", "no_delete"):
            db.exec_driver_sql(f"DROP FUNCTION IF EXISTS {NAME}_{trigger}() CASCADE")
