"""Reads the rows of many names with one statement, instead of a statement for each name."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from harness.frame.records.columns import Row
from harness.frame.records.transaction import Transaction


class LookUp(sa.Join):
    """A join that scans the left side and looks up the matching rows of the right side."""

    inherit_cache = True


@compiles(LookUp, "sqlite")
def _in_this_order(join: LookUp, compiler: SQLCompiler, **options: Any) -> str:
    # SQLite keeps only the order of a CROSS JOIN. Otherwise it would read the whole JSON for
    # each row of the table.
    return _as_planned(join, compiler, **options).replace(" JOIN ", " CROSS JOIN ", 1)


@compiles(LookUp)
def _as_planned(join: LookUp, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.visit_join(join, **options))  # type: ignore[no-untyped-call]


def look_up(
    rows: sa.FromClause, table: sa.FromClause, same: sa.ColumnElement[bool]
) -> sa.FromClause:
    """Joins rows of JSON with a table. same: a condition that should use a key of the table."""
    return LookUp(rows, table, same)


def json_rows(
    parameter: str, columns: Mapping[str, sa.types.TypeEngine[Any]], dialect: str
) -> sa.FromClause:
    """Returns the objects of a JSON array as a table. columns: the objects' keys."""
    if dialect == "postgresql":
        text = sa.cast(sa.bindparam(parameter, type_=sa.Text()), sa.JSON)
        typed = (sa.column(name, type_) for name, type_ in columns.items())
        return (
            sa.func.json_to_recordset(text)
            .table_valued(*typed)
            .render_derived(name=parameter, with_types=True)
        )
    rows = sa.func.json_each(sa.bindparam(parameter, type_=sa.Text())).table_valued("value")
    values = (
        sa.func.json_extract(rows.c.value, f"$.{name}", type_=type_).label(name)
        for name, type_ in columns.items()
    )
    return sa.select(*values).subquery(parameter)


# SQLite may limit a statement to 999 parameters.
NAMES_AT_ONCE: Final = 400
NAMES: Final = "names"


def among(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(NAMES, expanding=True))


def read_named(
    tx: Transaction,
    query: sa.Select[Any],
    names: Collection[str],
    more: Mapping[str, object] | None = None,
    *,
    stored: sa.Table | None = None,
) -> Iterator[Row]:
    """Reads the rows of `names` in several statements. more: further parameters of the query.
    stored: the table, if the query selects its `stored_columns`.
    """
    sorted_names = sorted(set(names))
    for first in range(0, len(sorted_names), NAMES_AT_ONCE):
        parameters = {NAMES: sorted_names[first : first + NAMES_AT_ONCE], **(more or {})}
        if stored is None:
            yield from tx.read(query, parameters)
        else:
            yield from tx.read_stored(stored, query, parameters)
