"""Two kinds of alerts: a model in use ends soon, or has ended."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0021"
branch_labels = None
depends_on = None

CHECK = "ck_alert_kind_known"
KINDS = (
    "breaker_open",
    "our_key",
    "quota",
    "model_unknown",
    "revision_refused",
    "observations_dropped",
    "spool_full",
    "rolled_back",
    "promoted",
    "canary_paused",
    "awaiting_approval",
    "sample_ratio",
    "key_budget",
    "waiver_expired",
    "job_failed",
    "audit_broken",
    "drift",
    "served_model",
    "local_abort",
    "canary_held",
    "shadow_held",
)
OURS = ("model_ends", "model_ended")
TEST = ("test",)


def upgrade() -> None:
    change_kinds((*KINDS, *TEST), (*KINDS, *OURS, *TEST))


def downgrade() -> None:
    ours = f"SELECT id FROM alert WHERE kind IN ({listed(OURS)})"
    op.execute(f"DELETE FROM delivery WHERE alert IN ({ours})")
    op.execute(f"DELETE FROM alert WHERE kind IN ({listed(OURS)})")
    change_kinds((*KINDS, *OURS, *TEST), (*KINDS, *TEST))


def change_kinds(before: Sequence[str], after: Sequence[str]) -> None:
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        rewrite(db, f"(kind IN ({listed(before)}))", f"(kind IN ({listed(after)}))")
        return
    op.execute(f"ALTER TABLE alert DROP CONSTRAINT {CHECK}")
    op.execute(f"ALTER TABLE alert ADD CONSTRAINT {CHECK} CHECK (kind IN ({listed(after)}))")


def listed(kinds: Sequence[str]) -> str:
    return ", ".join(f"'{each}'" for each in kinds)


def rewrite(db: sa.Connection, before: str, after: str) -> None:
    """SQLite's own way for a CHECK (lang_altertable, section 7): the text of the schema."""
    version = db.exec_driver_sql("PRAGMA schema_version").scalar_one()
    db.exec_driver_sql("PRAGMA writable_schema = ON")
    done = db.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
        "WHERE type = 'table' AND name = 'alert' AND instr(sql, ?) > 0",
        (before, after, before),
    )
    if done.rowcount != 1:
        raise RuntimeError(f"the table alert has no check {CHECK} as 0021 made it")
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")
