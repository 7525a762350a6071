"""Traffic of a third arm: requests that keep another target warm."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CHECK = "ck_traffic_arm_known"
BEFORE = "arm IN ('incumbent', 'canary')"
AFTER = "arm IN ('incumbent', 'canary', 'keep_warm')"
COUNTS = ("charged", "failed", "input_tokens", "output_tokens", "requests", "streams")
KEY = ("route", "minute", "worker", "arm", "target", "revision")


def upgrade() -> None:
    change_check(BEFORE, AFTER)


def downgrade() -> None:
    op.execute("DELETE FROM traffic WHERE arm = 'keep_warm'")
    change_check(AFTER, BEFORE)


def change_check(before: str, after: str) -> None:
    """SQLite copies the table, and has to be told what it is: it does not read its checks."""
    with op.batch_alter_table("traffic", copy_from=traffic(before)) as table:
        table.drop_constraint(op.f(CHECK), type_="check")
        table.create_check_constraint(op.f(CHECK), after)


def traffic(arms: str) -> sa.Table:
    return sa.Table(
        "traffic",
        sa.MetaData(),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("streams", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Text(), nullable=False),
        sa.CheckConstraint(arms, name=CHECK),
        *(
            sa.CheckConstraint(f"{each} >= 0", name=f"ck_traffic_{each}_least")
            for each in COUNTS
        ),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name="ck_traffic_cost_usd_amount"
        ),
        sa.PrimaryKeyConstraint(*KEY, name="pk_traffic"),
        sa.Index("ix_traffic_minute", "minute"),
    )
