"""Rows to domain and back, by subject. Each pair of functions loses nothing on the way."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

# A row to write, by column.
Values = dict[str, object]
# A row that was read: the columns' types are only known to the tables.
Row = sa.Row[Any]


def plain(row: Row, *also: str) -> dict[str, Any]:
    """The row's columns without its signature and project, and without those of `also`."""
    left_out = {"signature", "project", *also}
    return {name: value for name, value in row._asdict().items() if name not in left_out}


# A decoded JSON object.
JsonIn = Mapping[str, Any]
