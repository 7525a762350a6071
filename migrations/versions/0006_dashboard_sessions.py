"""Sign-ins to the dashboard: one-time links and the sessions that they open."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NAME = "dashboard_session"
CHECKS = {
    "link_whole": "(link_hash IS NULL) = (link_expires_at IS NULL)",
    "cookie_whole": (
        "(cookie_hash IS NULL) = (opened_at IS NULL)"
        " AND (cookie_hash IS NULL) = (expires_at IS NULL)"
    ),
    "has_a_text": "link_hash IS NOT NULL OR cookie_hash IS NOT NULL",
    "link_expires_later": "link_expires_at > created_at",
    "expires_later": "expires_at > opened_at",
}


def upgrade() -> None:
    op.create_table(
        NAME,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_with", sa.Text(), nullable=True),
        sa.Column("link_hash", sa.Text(), nullable=True),
        sa.Column("link_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("cookie_hash", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_{NAME}_{name}"))
            for name, condition in CHECKS.items()
        ),
        sa.ForeignKeyConstraint(
            ["principal"], ["principal.id"], name=op.f(f"fk_{NAME}_principal")
        ),
        sa.ForeignKeyConstraint(["key"], ["api_key.id"], name=op.f(f"fk_{NAME}_key")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{NAME}")),
        sa.UniqueConstraint("link_hash", name=op.f(f"uq_{NAME}_link_hash")),
        sa.UniqueConstraint("cookie_hash", name=op.f(f"uq_{NAME}_cookie_hash")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    # Whoever is signed in signs in anew.
    op.drop_table(NAME)
    db = op.get_bind()
    if db.dialect.name != "sqlite":
        for trigger in ("guard", "no_rewrite"):
            db.exec_driver_sql(f"DROP FUNCTION IF EXISTS {NAME}_{trigger}() CASCADE")
