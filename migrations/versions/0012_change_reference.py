"""References of change requests: under which one a swap is proposed and approved."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = ("proposal", "approval")
# What refers to the columns; the version before installs its own.
TRIGGERS = (
    "proposal_proposer_fixed",
    "approval_change",
    "evidence_approval_guard",
)


def upgrade() -> None:
    for table in TABLES:
        op.add_column(
            table, sa.Column("change_reference", sa.Text(), nullable=False, server_default="")
        )


def downgrade() -> None:
    db = op.get_bind()
    for table in TABLES:
        named = sa.select(sa.column("id")).select_from(sa.table(table))
        row = db.execute(named.where(sa.column("change_reference") != "")).first()
        if row is not None:
            raise RuntimeError(
                f"{table} {row.id} names a change request, which its signature covers and the "
                "version before does not know: keep this version"
            )
    sqlite = db.dialect.name == "sqlite"
    for name in TRIGGERS:
        db.exec_driver_sql(
            f"DROP TRIGGER IF EXISTS {name}"
            if sqlite
            else f"DROP FUNCTION IF EXISTS {name}() CASCADE"
        )
    for table in TABLES:
        op.drop_column(table, "change_reference")
