"""Break-glass: targets that serve without proof by the word of two people."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

NAME = "break_glass"
OPEN = sa.text("ended_at IS NULL")
# What refers to table or column; the version before installs its own.
TRIGGERS = ("route_version_guard", "route_version_break_glass")
OWN = ("guard", "no_rewrite", "no_delete")


def upgrade() -> None:
    op.add_column("route_version", sa.Column(NAME, sa.Text(), nullable=True))
    op.create_table(
        NAME,
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("through_freeze", sa.Boolean(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("proposer_principal", sa.Text(), nullable=False),
        sa.Column("proposer_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("confirm_by", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmer", sa.Text(), nullable=True),
        sa.Column("confirmer_principal", sa.Text(), nullable=True),
        sa.Column("confirmer_key", sa.Text(), nullable=True),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("waiver", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_because", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f(f"ck_{NAME}_reason_not_blank")),
        sa.CheckConstraint("trim(proposer) <> ''", name=op.f(f"ck_{NAME}_proposer_not_blank")),
        sa.CheckConstraint("incumbent <> target", name=op.f(f"ck_{NAME}_another_target")),
        sa.CheckConstraint(
            "(confirmed_at IS NULL) = (confirmer IS NULL)"
            " AND (confirmed_at IS NULL) = (confirmer_principal IS NULL)"
            " AND (confirmed_at IS NULL) = (waiver IS NULL)",
            name=op.f(f"ck_{NAME}_confirmed_whole"),
        ),
        sa.ForeignKeyConstraint(
            ["incumbent"], ["target.id"], name=op.f(f"fk_{NAME}_incumbent_target")
        ),
        sa.ForeignKeyConstraint(
            ["target"], ["target.id"], name=op.f(f"fk_{NAME}_target_target")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        f"ux_{NAME}_open",
        NAME,
        ["project", "route"],
        unique=True,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_index(f"ix_{NAME}_created_at", NAME, ["created_at", "id", "project"])


def downgrade() -> None:
    db = op.get_bind()
    used = db.execute(
        sa.text("SELECT COUNT(*) FROM route_version WHERE break_glass IS NOT NULL")
    ).scalar_one()
    if used:
        raise RuntimeError(
            f"{used} versions of routes name a break-glass, which their signatures cover and "
            "the version before does not know: keep this version"
        )
    sqlite = db.dialect.name == "sqlite"
    for name in (*TRIGGERS, *(f"{NAME}_{rule}" for rule in OWN)):
        db.exec_driver_sql(
            f"DROP TRIGGER IF EXISTS {name}"
            if sqlite
            else f"DROP FUNCTION IF EXISTS {name}() CASCADE"
        )
    op.drop_table(NAME)
    op.drop_column("route_version", NAME)
