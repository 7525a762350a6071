"""What the turns of agents spend: sums and holds as in 0014, beside its tables, whose every row
the version before reads, and which it cannot read with a purpose that it does not know.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
# It does not look at the new tables, and goes on as if agents cost nothing.
compatible_from = "0016"

MONTH = "later_spending_month"
HOLD = "later_spending_hold"


def upgrade() -> None:
    op.create_table(
        MONTH,
        sa.Column("first_day", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("spent_usd", sa.Double(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.Column("refused_usd", sa.Double(), nullable=True),
        sa.Column("refused_at", sa.BigInteger(), nullable=True),
        _amount(MONTH, "spent_usd"),
        _amount(MONTH, "refused_usd"),
        sa.CheckConstraint("calls >= 0", name=op.f(f"ck_{MONTH}_calls_least")),
        sa.CheckConstraint("unpriced >= 0", name=op.f(f"ck_{MONTH}_unpriced_least")),
        sa.CheckConstraint(
            "(refused_usd IS NULL) = (refused_at IS NULL)",
            name=op.f(f"ck_{MONTH}_refused_when"),
        ),
        sa.PrimaryKeyConstraint("first_day", "purpose", name=op.f(f"pk_{MONTH}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        HOLD,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("first_day", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("held_usd", sa.Double(), nullable=False),
        sa.Column("lapses_at", sa.BigInteger(), nullable=False),
        _amount(HOLD, "held_usd"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{HOLD}")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{HOLD}_first_day", HOLD, ["first_day"])


def _amount(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(
        f"{column} >= 0 AND {column} < 1e15", name=op.f(f"ck_{table}_{column}_amount")
    )


def downgrade() -> None:
    # The version before does not count agents; what they spent is forgotten.
    for table in (HOLD, MONTH):
        op.drop_table(table)
