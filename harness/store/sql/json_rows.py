"""Gives a statement its caller's rows as one parameter of JSON (`json_rows`): a statement with
as many parameters as there are rows would have to be built anew for each number of them.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa


def json_rows(
    parameter: str, columns: Mapping[str, sa.types.TypeEngine[Any]], dialect: str
) -> sa.FromClause:
    """Returns a table of the objects in the JSON array that a parameter holds. columns: the
    objects' keys.
    """
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
