"""Gives a statement its caller's rows as one parameter of JSON. A statement with as many
parameters as there are rows would have to be built anew for each number of them.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler


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
