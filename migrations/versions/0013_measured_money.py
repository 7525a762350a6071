"""What money is reckoned from: cached tokens, requests without a price, what judges cost."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COUNTS = (
    ("traffic", "cached_tokens"),
    ("traffic", "unpriced"),
    ("sample", "cached_tokens"),
    ("sample", "judge_calls"),
)
COST = ("sample", "judge_cost_usd")


def upgrade() -> None:
    # With their checks, as one statement: SQLite need not copy the tables.
    whole = sa.BigInteger().compile(dialect=op.get_bind().dialect)
    for table, column in COUNTS:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN {column} {whole} DEFAULT '0' NOT NULL"
            f" CONSTRAINT ck_{table}_{column}_least CHECK ({column} >= 0)"
        )
    table, column = COST
    kind = sa.Double().compile(dialect=op.get_bind().dialect)
    op.execute(
        f"ALTER TABLE {table} ADD COLUMN {column} {kind}"
        f" CONSTRAINT ck_{table}_{column}_amount CHECK ({column} >= 0 AND {column} < 1e15)"
    )
    # So far the cost of a model without a price was written down as 0.
    op.execute(
        "UPDATE traffic SET unpriced = requests"
        " WHERE cost_usd = 0 AND input_tokens + output_tokens > 0"
    )


def downgrade() -> None:
    for table, column in (COST, *COUNTS):
        op.drop_column(table, column)
