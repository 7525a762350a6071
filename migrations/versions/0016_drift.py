"""The drift watch: watches, their checks, and two kinds of alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
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
)
OURS = ("drift", "served_model")
TEST = ("test",)
TOLD_WHEN = (
    "(told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0) AND messages >= 0"
)


def upgrade() -> None:
    change_kinds((*KINDS, *TEST), (*KINDS, *OURS, *TEST))
    watches()
    checks()


def watches() -> None:
    op.create_table(
        "drift_watch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("suite_digest", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.BigInteger(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('watching', 'drifted', 'closed')",
            name=op.f("ck_drift_watch_state_known"),
        ),
        sa.CheckConstraint("items >= 1", name=op.f("ck_drift_watch_items_least")),
        sa.CheckConstraint("epochs >= 1", name=op.f("ck_drift_watch_epochs_least")),
        sa.CheckConstraint("alpha > 0 AND alpha < 1", name=op.f("ck_drift_watch_alpha_share")),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL)",
            name=op.f("ck_drift_watch_closed_when"),
        ),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_drift_watch_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_watch")),
    )
    only_one("uq_drift_watch_open", "drift_watch", ["target", "suite"], "closed_at IS NULL")


def checks() -> None:
    op.create_table(
        "drift_check",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("served", sa.Text(), nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'counted', 'not_measured')",
            name=op.f("ck_drift_check_state_known"),
        ),
        sa.CheckConstraint("number >= 0", name=op.f("ck_drift_check_number_least")),
        sa.CheckConstraint(
            "(state = 'running') = (ended_at IS NULL)", name=op.f("ck_drift_check_ended_when")
        ),
        sa.ForeignKeyConstraint(
            ["watch"], ["drift_watch.id"], name=op.f("fk_drift_check_watch")
        ),
        sa.ForeignKeyConstraint(["run"], ["eval_run.id"], name=op.f("fk_drift_check_run")),
        sa.PrimaryKeyConstraint("watch", "number", name=op.f("pk_drift_check")),
        sa.UniqueConstraint("run", name=op.f("uq_drift_check_run")),
    )
    only_one("uq_drift_check_running", "drift_check", ["watch"], "state = 'running'")


def only_one(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        table,
        columns,
        unique=True,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def downgrade() -> None:
    op.drop_table("drift_check")
    op.drop_table("drift_watch")
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
