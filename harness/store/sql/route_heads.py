"""Reads each route's current version with its time (`heads`), and finds which of those that a
router served are not stored (`lacking`): so a router notices that the database was put back
from a backup.

Two histories that part after a backup give one version's number to two rows, never with the
same microsecond; a forged one has no signature. Signatures change when rows are signed anew.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from harness.store.schema.routing import route_version
from harness.store.sql.routing import LATEST
from harness.store.unit_of_work import Unit

HEAD: Final = sa.select(
    route_version.c.route,
    route_version.c.version,
    # As it is stored, and signed.
    sa.type_coerce(route_version.c.at, sa.BigInteger).label("at"),
)
CURRENT_HEADS: Final = HEAD.where(route_version.c.version == LATEST)
# Below what SQLite takes of parameters in one statement.
AT_A_TIME: Final = 400


def heads(unit: Unit) -> dict[str, str]:
    """Route to `version:time`, as in `Lineage.heads`."""
    return {row.route: _text(row) for row in unit.read(CURRENT_HEADS)}


def lacking(unit: Unit, heads_: Mapping[str, str]) -> Sequence[str]:
    """The routes whose version with that time is not stored. heads_: as `heads` gives them."""
    found: set[tuple[str, str]] = set()
    names = sorted(heads_)
    for first in range(0, len(names), AT_A_TIME):
        wanted = [
            (name, int(heads_[name].partition(":")[0]))
            for name in names[first : first + AT_A_TIME]
        ]
        key = sa.tuple_(route_version.c.route, route_version.c.version)
        found |= {(row.route, _text(row)) for row in unit.read(HEAD.where(key.in_(wanted)))}
    return [name for name in names if (name, heads_[name]) not in found]


def head_text(version: object, at: object) -> str:
    """at: microseconds since 1970 UTC."""
    return f"{version}:{at}"


def _text(row: sa.Row[tuple[str, int, int]]) -> str:
    return head_text(row.version, row.at)
