"""Declarations that two principals are one person, for the four eyes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NAME = "person_link"
# What refers to the table; the version before installs its own.
APPROVALS = "approval_principals"


def upgrade() -> None:
    op.create_table(
        NAME,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_with", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("number >= 1", name=op.f(f"ck_{NAME}_number_least")),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f(f"ck_{NAME}_reason_not_blank")),
        sa.ForeignKeyConstraint(
            ["principal"], ["principal.id"], name=op.f(f"fk_{NAME}_principal")
        ),
        sa.ForeignKeyConstraint(["person"], ["principal.id"], name=op.f(f"fk_{NAME}_person")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sa.UniqueConstraint("principal", "number", name=op.f(f"uq_{NAME}_principal")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    db = op.get_bind()
    declared = db.execute(sa.text("SELECT COUNT(*) FROM person_link")).scalar_one()
    if declared:
        raise RuntimeError(
            f"{declared} declarations say who is one person; the version before knows none, so "
            "that these people could approve what they proposed: it is not installed"
        )
    sqlite = db.dialect.name == "sqlite"
    db.exec_driver_sql(
        f"DROP TRIGGER IF EXISTS {APPROVALS}"
        if sqlite
        else f"DROP FUNCTION IF EXISTS {APPROVALS}() CASCADE"
    )
    op.drop_table(NAME)
    if not sqlite:
        for trigger in ("guard", "no_update", "no_delete", "never_emptied"):
            db.exec_driver_sql(f"DROP FUNCTION IF EXISTS {NAME}_{trigger}() CASCADE")
