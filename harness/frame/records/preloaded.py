"""Reads at once rows that a list would ask for one by one. The unit of work keeps them as they
are stored, and the repository that takes a row verifies it.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from harness.frame.records.columns import Row
from harness.frame.records.transaction import Transaction


class LookUp(sa.Join):
    """A join that goes through the left side and looks up what belongs to it on the right."""

    inherit_cache = True


@compiles(LookUp, "sqlite")
def _in_this_order(join: LookUp, compiler: SQLCompiler, **options: Any) -> str:
    # SQLite keeps the order of a CROSS JOIN alone. It takes JSON for cheap to read, and else
    # reads all of it for each row of the table.
    return _as_planned(join, compiler, **options).replace(" JOIN ", " CROSS JOIN ", 1)


@compiles(LookUp)
def _as_planned(join: LookUp, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.visit_join(join, **options))  # type: ignore[no-untyped-call]


def look_up(
    rows: sa.FromClause, table: sa.FromClause, same: sa.ColumnElement[bool]
) -> sa.FromClause:
    """Joins rows of JSON with those of a table; the condition is best over one of its keys."""
    return LookUp(rows, table, same)


def json_rows(
    parameter: str, columns: Mapping[str, sa.types.TypeEngine[Any]], dialect: str
) -> sa.FromClause:
    """Returns a table of a JSON array's objects. columns: the objects' keys."""
    if dialect == "postgresql":
        text = sa.cast(sa.bindparam(parameter, type_=sa.Text()), sa.JSON)
        made = (sa.column(name, type_) for name, type_ in columns.items())
        return (
            sa.func.json_to_recordset(text)
            .table_valued(*made)
            .render_derived(name=parameter, with_types=True)
        )
    rows = sa.func.json_each(sa.bindparam(parameter, type_=sa.Text())).table_valued("value")
    values = (
        sa.func.json_extract(rows.c.value, f"$.{name}", type_=type_).label(name)
        for name, type_ in columns.items()
    )
    return sa.select(*values).subquery(parameter)


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
