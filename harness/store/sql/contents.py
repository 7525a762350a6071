"""Encrypts stored content anew, a few rows at a time, as it stands in the columns of content
(`SqlContents`): by the newest key, and what is still plain where content is to be encrypted.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import DecryptionFailed
from harness.store.content_cipher import ContentCipher
from harness.store.schema import metadata
from harness.store.schema.columns import ContentJson, ContentText
from harness.store.unit_of_work import Unit

COLUMNS: Final = {
    table.name: columns
    for table in metadata.sorted_tables
    if (columns := [c for c in table.c if isinstance(c.type, ContentJson | ContentText)])
}
_NOTHING: Final = frozenset({"", "[]", "{}"})


class SqlContents:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def tables(self) -> Sequence[str]:
        return sorted(COLUMNS)

    def renew(
        self, table: str, *, after: Sequence[Any] = (), limit: int
    ) -> tuple[int, Sequence[Any]]:
        contents = self._unit.contents
        if contents is None:
            return 0, ()
        key = list(metadata.tables[table].primary_key.columns)
        plain = [
            sa.type_coerce(column, sa.Text).label(column.name) for column in COLUMNS[table]
        ]
        query = sa.select(*key, *plain).order_by(*key).limit(limit)
        if after:
            query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
        rows = self._unit.read(query).mappings().all()
        count = sum(self._renew_row(contents, table, dict(row)) for row in rows)
        last = [rows[-1][column.name] for column in key] if len(rows) == limit else []
        return count, last

    def _renew_row(self, contents: ContentCipher, table: str, row: dict[str, Any]) -> int:
        changes: dict[str, str] = {}
        for column in COLUMNS[table]:
            stored = row[column.name]
            if stored is None or stored in _NOTHING:
                continue
            try:
                new = contents.renew(stored)
            except DecryptionFailed as error:
                named = ", ".join(str(row[c.name]) for c in metadata.tables[table].primary_key)
                raise DecryptionFailed(f"{column.name} of {table} {named}: {error}") from None
            if new is not None:
                changes[column.name] = new
        if not changes:
            return 0
        # As they were read: what was written or blanked meanwhile stays.
        same = [f'"{c.name}" = :{c.name}' for c in metadata.tables[table].primary_key]
        same += [f'"{name}" = :{name}' for name in changes]
        new_values = ", ".join(f'"{name}" = :new_{name}' for name in changes)
        statement = sa.text(f'UPDATE "{table}" SET {new_values} WHERE {" AND ".join(same)}')  # noqa: S608 - names of our tables
        new_of = {f"new_{name}": value for name, value in changes.items()}
        self._unit.write(statement, row | new_of, audited=False)
        return len(changes)
