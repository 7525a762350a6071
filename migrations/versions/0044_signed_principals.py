"""Signatures of principals; control's word on revoked keys and the audit log's end.

Who was there before has none: `swapgate db sign`. The local operator is the same everywhere.
"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0042"
branch_labels = None
depends_on = None

SAID = ("revoked", "log_end")
# The newest revision installs them (harness/store/guards), and they name what older ones lack.
GUARDS = {
    table: (f"{table}_guard", f"{table}_no_return", f"{table}_no_delete")
    for table in ("manifest", "meta")
} | {"alert": ("alert_readable_insert", "alert_readable_update")}


def upgrade() -> None:
    op.add_column("principal", sa.Column("signature", sa.Text(), nullable=True))
    for column in SAID:
        op.add_column(
            "manifest", sa.Column(column, sa.Text(), nullable=False, server_default="")
        )


def downgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table, names in GUARDS.items():
        for name in names:
            of_table = "" if on_sqlite else f" ON {table}"
            op.execute(f"DROP TRIGGER IF EXISTS {name}{of_table}")
            if not on_sqlite:
                op.execute(f"DROP FUNCTION IF EXISTS {name}()")
    for column in SAID:
        op.drop_column("manifest", column)
    op.drop_column("principal", "signature")
