"""What Swapgate itself spends on models: the monthly cap, each month's sums, what is held."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spending_cap",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cap_usd", sa.Double(), nullable=True),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_spending_cap_one_row")),
        _amount("spending_cap", "cap_usd"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spending_cap")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spending_month",
        sa.Column("first_day", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("spent_usd", sa.Double(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.Column("refused_usd", sa.Double(), nullable=True),
        sa.Column("refused_at", sa.BigInteger(), nullable=True),
        _amount("spending_month", "spent_usd"),
        _amount("spending_month", "refused_usd"),
        sa.CheckConstraint("calls >= 0", name=op.f("ck_spending_month_calls_least")),
        sa.CheckConstraint("unpriced >= 0", name=op.f("ck_spending_month_unpriced_least")),
        sa.CheckConstraint(
            "(refused_usd IS NULL) = (refused_at IS NULL)",
            name=op.f("ck_spending_month_refused_when"),
        ),
        sa.PrimaryKeyConstraint("first_day", "purpose", name=op.f("pk_spending_month")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spending_hold",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("first_day", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("held_usd", sa.Double(), nullable=False),
        sa.Column("lapses_at", sa.BigInteger(), nullable=False),
        _amount("spending_hold", "held_usd"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spending_hold")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_spending_hold_first_day", "spending_hold", ["first_day"])


def _amount(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(
        f"{column} >= 0 AND {column} < 1e15", name=op.f(f"ck_{table}_{column}_amount")
    )


def downgrade() -> None:
    # The version before knows no cap and spends on; what was spent is forgotten.
    for table in ("spending_hold", "spending_month", "spending_cap"):
        op.drop_table(table)
