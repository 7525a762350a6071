"""What people's signing in left behind; alerts when it ends, or is not renewed."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0027"
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
    "model_ends",
    "model_ended",
)
OURS = ("sign_in_ended", "token_not_renewed")
TEST = ("test",)


def upgrade() -> None:
    op.create_table(
        "sign_in",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("signed_in_at", sa.BigInteger(), nullable=False),
        sa.Column("signed_in_by", sa.Text(), nullable=False),
        sa.Column("renewed_at", sa.BigInteger(), nullable=False),
        sa.Column("account_due", sa.BigInteger(), nullable=True),
        sa.Column("access_due", sa.BigInteger(), nullable=True),
        sa.Column("access_ends", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "trim(ciphertext) <> ''", name=op.f("ck_sign_in_ciphertext_not_blank")
        ),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_sign_in_provider")
        ),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_sign_in")),
    )
    change_kinds((*KINDS, *TEST), (*KINDS, *OURS, *TEST))


def downgrade() -> None:
    ours = f"SELECT id FROM alert WHERE kind IN ({listed(OURS)})"
    op.execute(f"DELETE FROM delivery WHERE alert IN ({ours})")
    op.execute(f"DELETE FROM alert WHERE kind IN ({listed(OURS)})")
    change_kinds((*KINDS, *OURS, *TEST), (*KINDS, *TEST))
    op.drop_table("sign_in")


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
        raise RuntimeError(f"the table alert has no check {CHECK} as 0024 made it")
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")
