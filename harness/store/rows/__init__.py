"""Rows to domain and back, by subject. Each pair of functions loses nothing on the way."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

# A row to write, by column.
Values = dict[str, object]
# A row that was read: the columns' types are only known to the tables.
Row = sa.Row[Any]
# A decoded JSON object.
JsonIn = Mapping[str, Any]
