"""Reads at once rows that a list would ask for one by one. The unit of work keeps them as they
are stored, and the repository that takes a row verifies it.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import Row
from harness.frame.records.transaction import Transaction

# SQLite may take no more than 999 parameters.
NAMES_AT_ONCE: Final = 400

NAMES: Final = "names"


def among(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(NAMES, expanding=True))


def row_key(table: sa.Table, id_: str) -> tuple[str, ...]:
    return (table.name, "id", id_)


def newest_key(table: sa.Table, group: str) -> tuple[str, ...]:
    return (table.name, "newest", group)


def rows_key(table: sa.Table, group: str) -> tuple[str, ...]:
    return (table.name, "all", group)


def read_named(
    tx: Transaction,
    query: sa.Select[Any],
    names: Collection[str],
    more: Mapping[str, object] | None = None,
    *,
    stored: sa.Table | None = None,
) -> Iterator[Row]:
    """Reads what a query finds of `names`, however many. more: its other parameters. stored:
    the table whose `stored_columns` it reads.
    """
    wanted = sorted(set(names))
    for first in range(0, len(wanted), NAMES_AT_ONCE):
        asked = {NAMES: wanted[first : first + NAMES_AT_ONCE], **(more or {})}
        if stored is None:
            yield from tx.read(query, asked)
        else:
            yield from tx.read_stored(stored, query, asked)
