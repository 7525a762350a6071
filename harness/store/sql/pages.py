"""Pages of a list that goes from the newest to the oldest."""

from datetime import datetime
from typing import Protocol

import sqlalchemy as sa


class Listed(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def before(
    time: sa.Column[datetime], id_: sa.Column[str], last: Listed
) -> sa.ColumnElement[bool]:
    """What comes after `last`, the end of the page before: by time, then by id."""
    same = sa.and_(time == last.created_at, id_ < last.id)
    return sa.or_(time < last.created_at, same)
