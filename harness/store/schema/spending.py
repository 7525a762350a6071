"""Tables of what Swapgate itself spends on models: the monthly cap (one row), and the sums of
each month and purpose; their rows as domain objects.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.operations.spending import PurposeSpending
from harness.store.schema.columns import (
    amount,
    at_least,
    columns_of,
    day,
    metadata,
    number,
    time,
)
from harness.store.schema.stored_row import Record

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


spending_month = sa.Table(
    "spending_month",
    metadata,
    *columns_of(
        PurposeSpending,
        day("first_day"),
    ),
    sa.PrimaryKeyConstraint("first_day", "purpose"),
    amount("spent_usd"),
    amount("refused_usd"),
    *(at_least(column, 0) for column in ("calls", "unpriced")),
    sa.CheckConstraint("(refused_usd IS NULL) = (refused_at IS NULL)", name="refused_when"),
)


SPENDING: Final = Record.by_fields(spending_month, PurposeSpending)
