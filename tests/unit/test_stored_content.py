"""Every place of content is named once."""

import pytest
import sqlalchemy as sa

from harness.domain.privacy.stored_content import COLUMNS, OTHER_COLUMNS, USERS
from harness.store.schema import metadata
from harness.store.schema.columns import Day, UtcTime

pytestmark = pytest.mark.req("G4")


def test_each_column_that_can_hold_text_is_classified() -> None:
    listed = [(row.table, row.column) for row in (*COLUMNS, *USERS)]
    listed += [
        (table, name) for table, names in OTHER_COLUMNS.items() for name in names.split()
    ]
    stored = [
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if not isinstance(column.type, sa.BigInteger | sa.Boolean | sa.Double | Day | UtcTime)
    ]
    assert sorted(listed) == sorted(stored)
