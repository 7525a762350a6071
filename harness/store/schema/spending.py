"""Tables of what Swapgate itself spends on models: the monthly cap (one row), the sums of each
month and purpose, and what processes hold for calls under way; their rows as domain objects.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.operations.spending import (
    PurposeSpending,
    SpendingHold,
    SpendingPurpose,
)
from harness.store.schema.columns import (
    Row,
    amount,
    at_least,
    count,
    day,
    free_text,
    metadata,
    number,
    text,
    time,
)

spending_cap = sa.Table(
    "spending_cap",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    number("cap_usd", nullable=True),
    time("set_at"),
    sa.CheckConstraint("id = 1", name="one_row"),
    amount("cap_usd"),
)
THE_CAP: Final = 1


def _month_table(name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        day("first_day"),
        text("purpose"),
        number("spent_usd"),
        count("calls"),
        count("unpriced"),
        number("refused_usd", nullable=True),
        time("refused_at", nullable=True),
        sa.PrimaryKeyConstraint("first_day", "purpose"),
        amount("spent_usd"),
        amount("refused_usd"),
        *(at_least(column, 0) for column in ("calls", "unpriced")),
        sa.CheckConstraint("(refused_usd IS NULL) = (refused_at IS NULL)", name="refused_when"),
    )


def _hold_table(name: str) -> sa.Table:
    """Its rows are deleted when they are over; the months' sums keep what came of them."""
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        day("first_day"),
        text("purpose"),
        free_text("subject"),
        number("held_usd"),
        time("lapses_at"),
        amount("held_usd"),
        sa.Index(f"ix_{name}_first_day", "first_day"),
    )


spending_month = _month_table("spending_month")
spending_hold = _hold_table("spending_hold")


def purpose_from_row(row: Row) -> PurposeSpending:
    return PurposeSpending(
        purpose=SpendingPurpose(row.purpose),
        spent_usd=row.spent_usd,
        calls=row.calls,
        unpriced=row.unpriced,
        refused_usd=row.refused_usd,
        refused_at=row.refused_at,
    )


def hold_to_row(hold: SpendingHold) -> dict[str, object]:
    return {
        "id": hold.id,
        "first_day": hold.month,
        "purpose": hold.purpose.value,
        "subject": hold.subject,
    }
