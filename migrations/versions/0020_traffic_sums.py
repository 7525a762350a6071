"""Sums of traffic by the hour and by the day, which triggers keep from here on. What was
recorded before is summed up after this step, an hour at a time (`traffic_backfill`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
# A version of before writes minutes, which the triggers sum up.
compatible_from = "0016"

KEY = ("begins_at", "route", "worker", "arm", "target")
COUNTS = (
    "requests",
    "failed",
    "charged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "unpriced",
    "internal_errors",
)


def upgrade() -> None:
    db = op.get_bind()
    if db.dialect.name == "postgresql":
        # No minute is added between the mark below and the triggers.
        op.execute("LOCK TABLE traffic IN SHARE ROW EXCLUSIVE MODE")
    _create("traffic_hour", sa.Column("latency_ms", sa.Text(), nullable=False))
    _create("traffic_day")
    since = sa.Column("traffic_summed_since", sa.BigInteger(), nullable=True)
    op.add_column("meta", since)
    op.execute(
        "UPDATE meta SET traffic_summed_since = COALESCE((SELECT"
        " MAX(minute) - MAX(minute) % 3600000000 + 3600000000 FROM traffic), 0)"
    )


def _create(table: str, *more: sa.Column[str]) -> None:
    op.create_table(
        table,
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in KEY[1:]),
        sa.Column("first_minute", sa.BigInteger(), nullable=False),
        sa.Column("last_minute", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        *more,
        *(
            sa.CheckConstraint(f"{name} >= 0", name=op.f(f"ck_{table}_{name}_least"))
            for name in (*COUNTS, "cost_usd")
        ),
        sa.PrimaryKeyConstraint(*KEY, name=op.f(f"pk_{table}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{table}_route", table, ["route", "begins_at"])


def downgrade() -> None:
    # Else they would refuse each minute, as the tables are gone.
    sqlite = op.get_bind().dialect.name == "sqlite"
    for event in ("insert", "update"):
        name = f"traffic_summed_{event}"
        op.execute(
            f"DROP TRIGGER IF EXISTS {name}"
            if sqlite
            else f"DROP FUNCTION IF EXISTS {name}() CASCADE"
        )
    op.drop_column("meta", "traffic_summed_since")
    op.drop_table("traffic_day")
    op.drop_table("traffic_hour")
