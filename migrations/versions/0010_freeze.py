"""Freezes that people set: times in which no canary of a route goes on."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = "route_freeze"
# What refers to the table; the version before installs its own.
VERSIONS = "route_version_proof_guard"


def upgrade() -> None:
    op.create_table(
        NAME,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f(f"ck_{NAME}_reason_not_blank")),
        sa.CheckConstraint("starts_at < ends_at", name=op.f(f"ck_{NAME}_starts_first")),
        sa.CheckConstraint(
            "(lifted_at IS NULL) = (lifted_by IS NULL)", name=op.f(f"ck_{NAME}_lifted_by_whom")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_route_freeze_ends_at", NAME, ["ends_at"])


def downgrade() -> None:
    db = op.get_bind()
    live = db.execute(
        sa.text("SELECT COUNT(*) FROM route_freeze WHERE lifted_at IS NULL AND ends_at > :now"),
        {"now": time.time_ns() // 1_000},
    ).scalar_one()
    if live:
        raise RuntimeError(
            f"{live} freezes are not over; the version before knows none, so that canaries "
            "would go on: lift them first (`swapgate route freezes`)"
        )
    sqlite = db.dialect.name == "sqlite"
    db.exec_driver_sql(
        f"DROP TRIGGER IF EXISTS {VERSIONS}"
        if sqlite
        else f"DROP FUNCTION IF EXISTS {VERSIONS}() CASCADE"
    )
    op.drop_table(NAME)
    if not sqlite:
        for trigger in ("guard", "no_rewrite", "no_delete", "never_emptied"):
            db.exec_driver_sql(f"DROP FUNCTION IF EXISTS {NAME}_{trigger}() CASCADE")
