"""Revisions go on above what routers had served before a database was restored."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


GUARD = "route_version_guard"
WITH_FLOOR = re.compile(r"1 \+ \(SELECT CASE WHEN m\.revision_floor.*? FROM (\S+) v\) n\)")
WITHOUT = r"(SELECT COALESCE(MAX(revision), 0) + 1 FROM \1)"


def upgrade() -> None:
    op.add_column(
        "meta", sa.Column("revision_floor", sa.BigInteger(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """The guard that names the column was installed with the newest revision."""
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        text = db.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (GUARD,)
        ).scalar_one()
        op.execute(f"DROP TRIGGER {GUARD}")
    else:
        query = sa.text("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = :name")
        text = db.execute(query, {"name": GUARD}).scalar_one()
    op.drop_column("meta", "revision_floor")
    db.exec_driver_sql(WITH_FLOOR.sub(WITHOUT, text).replace("%", "%%"))
