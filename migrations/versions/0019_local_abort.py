"""Two kinds of alerts: a router stopped a canary by itself, a canary is held."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
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
)
OURS = ("local_abort", "canary_held")
TEST = ("test",)
TOLD_WHEN = (
    "(told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0) AND messages >= 0"
)


def upgrade() -> None:
    change_kinds((*KINDS, *TEST), (*KINDS, *OURS, *TEST))


def downgrade() -> None:
    ours = ", ".join(f"'{each}'" for each in OURS)
    of_ours = f"SELECT id FROM alert WHERE kind IN ({ours})"  # noqa: S608 - constants
    op.execute(f"DELETE FROM delivery WHERE alert IN ({of_ours})")  # noqa: S608 - as above
    op.execute(f"DELETE FROM alert WHERE kind IN ({ours})")  # noqa: S608 - as above
    change_kinds((*KINDS, *OURS, *TEST), (*KINDS, *TEST))


def change_kinds(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """SQLite copies the table, and has to be told what it is: it does not read its checks."""
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(op.f(CHECK), "alert", type_="check")
        op.create_check_constraint(op.f(CHECK), "alert", known(after))
        return
    # Dropping the old table deletes its rows, and with them by cascade their deliveries.
    op.execute("CREATE TEMPORARY TABLE kept_delivery AS SELECT * FROM delivery")
    with op.batch_alter_table("alert", copy_from=alerts(known(before))) as table:
        table.drop_constraint(op.f(CHECK), type_="check")
        table.create_check_constraint(op.f(CHECK), known(after))
    op.execute("DELETE FROM delivery")
    op.execute("INSERT INTO delivery SELECT * FROM kept_delivery")
    op.execute("DROP TABLE kept_delivery")


def known(kinds: tuple[str, ...]) -> str:
    return f"kind IN ({', '.join(repr(each) for each in kinds)})"


def alerts(kinds: str) -> sa.Table:
    still_open = sa.text("resolved_at IS NULL")
    return sa.Table(
        "alert",
        sa.MetaData(),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sources", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("told", sa.Text(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("told_count", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(kinds, name=CHECK),
        sa.CheckConstraint("told IN ('raised', 'resolved')", name="ck_alert_told_known"),
        sa.CheckConstraint("count >= 1", name="ck_alert_count_least"),
        sa.CheckConstraint("last_seen >= first_seen", name="ck_alert_seen_in_order"),
        sa.CheckConstraint("told_count BETWEEN 0 AND count", name="ck_alert_told_count_range"),
        sa.CheckConstraint(TOLD_WHEN, name="ck_alert_told_when"),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
        sa.Index("ix_alert_key", "key", "first_seen"),
        sa.Index("ix_alert_last_seen", "last_seen"),
        sa.Index("uq_alert_open", "key", unique=True, sqlite_where=still_open),
    )
