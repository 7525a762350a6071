"""Reads the oldest rows of the tables that go into the archive, and deletes those that are in a
file (`SqlArchive`). Values that are JSON stay the text that is stored.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.operations.archive import ARCHIVED
from harness.store.schema import metadata
from harness.store.schema.columns import Day, UtcTime
from harness.store.unit_of_work import Unit

_KINDS: Final[Mapping[type, type]] = {UtcTime: datetime, sa.Boolean: bool, sa.Double: float}
_OF_COLUMN: Final = {
    name: {
        column.name: _KINDS.get(
            type(column.type), int if isinstance(column.type, sa.BigInteger) else str
        )
        for column in metadata.tables[name].columns
    }
    for name in ARCHIVED
}


class SqlArchive:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def columns(self, table: str) -> Mapping[str, type]:
        return _OF_COLUMN[table]

    def oldest(
        self, table: str, before: datetime, *, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        stored = metadata.tables[table]
        time = stored.c[ARCHIVED[table]]
        end = before.date() if isinstance(time.type, Day) else before
        wanted = [
            sa.type_coerce(column, sa.Text).label(column.name)
            if _OF_COLUMN[table][column.name] is str
            else column
            for column in stored.columns
        ]
        query = sa.select(*wanted).where(time < end).order_by(time).limit(limit)
        # Nobody writes to them until they are in the file, and gone.
        rows = self._unit.read(query.with_for_update()).mappings()
        return [dict(row) for row in rows]

    def delete(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        stored = metadata.tables[table]
        key = list(stored.primary_key.columns)
        same = [
            sa.type_coerce(column, sa.Text) == sa.bindparam(f"of_{column.name}")
            if _OF_COLUMN[table][column.name] is str
            else column == sa.bindparam(f"of_{column.name}", type_=column.type)
            for column in key
        ]
        keys = [{f"of_{column.name}": row[column.name] for column in key} for row in rows]
        count = sum(self._unit.write(sa.delete(stored).where(*same), one) for one in keys)
        if count != len(rows):
            raise Conflict(
                f"{len(rows) - count} rows of {table} were gone when they were to be archived: "
                "another process does it, too"
            )
