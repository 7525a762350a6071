"""Queries for the newest versions of routes, and `Preload`, which reads all rows of a list in
one statement. The transaction keeps the rows, and the repository that uses a row verifies it.

A preload changes only the number of statements, never a result. A repository must look up the
rows by the same keys (`newest_key`, `row_key`, `rows_key`).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from harness.frame.alerts.records import alert, delivery
from harness.frame.records.columns import Row
from harness.frame.records.repository import newest_key, row_key, rows_key
from harness.frame.records.signed_tables import is_signed, stored_columns
from harness.frame.records.transaction import Transaction
from harness.routing.records.proposals import rollout
from harness.routing.records.traffic_tables import block
from harness.routing.records.verdicts import verdict
from harness.routing.records.versions import route_fallback, route_version


class LookUp(sa.Join):
    """A join that scans the left side and looks up the matching rows of the right side."""

    inherit_cache = True


@compiles(LookUp, "sqlite")
def _compile_cross_join(
    join: LookUp,
    compiler: SQLCompiler,
    **options: Any,
) -> str:
    # Only CROSS JOIN keeps the order of tables in SQLite. In the other order, SQLite would read
    # the whole JSON for each row of the table.
    return _compile_join(join, compiler, **options).replace(" JOIN ", " CROSS JOIN ", 1)


@compiles(LookUp)
def _compile_join(
    join: LookUp,
    compiler: SQLCompiler,
    **options: Any,
) -> str:
    return str(compiler.visit_join(join, **options))  # type: ignore[no-untyped-call]


def look_up(
    rows: sa.FromClause,
    table: sa.FromClause,
    condition: sa.ColumnElement[bool],
) -> sa.FromClause:
    """Joins rows of JSON with a table.

    Args:
        condition: the join's condition, which should use a key.
    """
    return LookUp(rows, table, condition)


def json_rows(
    parameter: str,
    columns: Mapping[str, sa.types.TypeEngine[Any]],
    dialect: str,
) -> sa.FromClause:
    """Returns the objects of a JSON array as a table.

    Args:
        columns: the objects' keys.
    """
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
    """Returns the condition that a column is one of the bound NAMES."""
    return column.in_(sa.bindparam(NAMES, expanding=True))


def read_named(
    tx: Transaction,
    query: sa.Select[Any],
    names: Collection[str],
    more: Mapping[str, object] | None = None,
    *,
    stored: sa.Table | None = None,
) -> Iterator[Row]:
    """Reads the rows of `names` in several statements.

    Args:
        more: further parameters of the query.
        stored: the table, if the query selects its `stored_columns`.
    """
    sorted_names = sorted(set(names))
    for first in range(0, len(sorted_names), NAMES_AT_ONCE):
        batch_parameters = {
            NAMES: sorted_names[first : first + NAMES_AT_ONCE],
            **(more or {}),
        }
        if stored is None:
            yield from tx.read(query, batch_parameters)
        else:
            yield from tx.read_stored(stored, query, batch_parameters)


_VERSION = route_version.alias("named_version").c

_NAMED_VERSIONS = (
    sa.select(_VERSION.route, sa.func.max(_VERSION.version).label("version"))
    .where(among(_VERSION.route))
    .group_by(_VERSION.route)
    .cte("newest_version")
)

# The newest versions of named routes, and their chains.
VERSIONS_OF: Final = sa.select(*stored_columns(route_version)).where(
    *(route_version.c[column.name] == column for column in _NAMED_VERSIONS.c)
)

CHAINS_OF: Final = (
    sa.select(route_fallback)
    .where(*(route_fallback.c[column.name] == column for column in _NAMED_VERSIONS.c))
    .order_by(route_fallback.c.route, route_fallback.c.position)
)

_SERVED = route_version.alias("served")

_LAST_SERVED: Final = (
    sa.select(sa.func.coalesce(sa.func.max(_SERVED.c.version), 0))
    .where(
        _SERVED.c.route == rollout.c.route,
        _SERVED.c.incumbent == rollout.c.candidate,
    )
    .correlate(rollout)
    .scalar_subquery()
)

_LATER = route_version.alias("later")

# By rollout: the version that replaced its candidate for the last time. A break-glass does not
# count as a replacement, because the candidate returns at its end.
FIRST_AFTER: Final = sa.select(route_version, rollout.c.id.label("of_rollout")).where(
    among(rollout.c.id),
    route_version.c.route == rollout.c.route,
    route_version.c.version
    == sa.select(sa.func.min(_LATER.c.version))
    .where(
        _LATER.c.route == rollout.c.route,
        _LATER.c.version > _LAST_SERVED,
        _LATER.c.break_glass.is_(None),
    )
    .correlate(rollout)
    .scalar_subquery(),
)


def after_key(rollout_: str) -> tuple[str, ...]:
    """Returns the transaction's key of the version that replaced a rollout's candidate."""
    return (route_version.name, "after", rollout_)


@cache
def newest_rows(table: sa.Table, dialect: str) -> sa.Select[Any]:
    """Builds the query of the newest row of each group in the JSON of `names`. It finds each
    row by an index, because groups have many wide rows.
    """
    newest = _NEWEST[table]
    names = json_rows(NAMES, {"name": sa.Text()}, dialect)
    group_rows = table.alias("of_group").c
    newest_id = (
        sa.select(group_rows.id)
        .where(group_rows[newest.group] == names.c.name)
        .order_by(group_rows[newest.time].desc(), newest.tie(group_rows.id))
        .limit(1)
        .scalar_subquery()
    )
    columns = stored_columns(table) if is_signed(table) else table.c
    return sa.select(*columns).select_from(look_up(names, table, table.c.id == newest_id))


@dataclass(frozen=True, slots=True)
class _Newest:
    """The columns that find the newest row of a group in one table."""

    group: str  # the column with the group's name
    time: str
    tie: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]  # order at equal times


_NEWEST: Final = {
    verdict: _Newest("route", "decided_at", sa.desc),
    rollout: _Newest("route", "started_at", sa.desc),
    alert: _Newest("key", "first_seen", sa.asc),
}

VERDICTS_NAMED: Final = sa.select(*stored_columns(verdict)).where(among(verdict.c.id))

BLOCKS_OF: Final = (
    sa.select(block).where(among(block.c.rollout)).order_by(block.c.rollout, block.c.number)
)

DELIVERIES_OF: Final = (
    sa.select(delivery)
    .where(among(delivery.c.alert))
    .order_by(delivery.c.alert, delivery.c.number, delivery.c.sink)
)


class Preload:
    """Reads many rows at once for a `read()` transaction, instead of one by one. Results and
    errors stay the same. In a `write()` transaction it has no effect.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def routes(self, names: Collection[str]) -> None:
        """Keeps each route's newest version with its chain, None for an unknown route."""
        chains = self._grouped(CHAINS_OF, names, lambda row: row.route)
        versions = self._grouped(
            VERSIONS_OF, names, lambda row: row.route, stored=route_version
        )
        for name, rows in versions.items():
            newest = rows[0] if rows else None
            self._tx.keep(newest_key(route_version, name), (newest, chains[name]))

    def verdicts(self, ids: Collection[str]) -> None:
        """Keeps verdicts by id."""
        rows_by_id = self._grouped(VERDICTS_NAMED, ids, lambda row: row.id, stored=verdict)
        for id_, rows in rows_by_id.items():
            self._tx.keep(row_key(verdict, id_), rows[0] if rows else None)

    def newest_verdicts(self, routes: Collection[str]) -> None:
        """Keeps the newest verdict of each route."""
        self._keep_newest(verdict, routes)

    def newest_rollouts(self, routes: Collection[str]) -> None:
        """Keeps the newest rollout of each route."""
        self._keep_newest(rollout, routes)

    def newest_alerts(self, keys: Collection[str]) -> None:
        """Keeps the newest alert of each key."""
        self._keep_newest(alert, keys)

    def deliveries(self, alerts: Collection[str]) -> None:
        """Keeps the deliveries of each alert."""
        for id_, rows in self._grouped(DELIVERIES_OF, alerts, lambda row: row.alert).items():
            self._tx.keep(rows_key(delivery, id_), rows)

    def blocks(self, rollouts: Collection[str]) -> None:
        """Keeps all blocks of each rollout."""
        for id_, rows in self._grouped(BLOCKS_OF, rollouts, lambda row: row.rollout).items():
            self._tx.keep(rows_key(block, id_), rows)

    def first_after(self, rollouts: Collection[str]) -> None:
        """Keeps, for each rollout, the version that replaced its candidate."""
        rows_by_rollout = self._grouped(FIRST_AFTER, rollouts, lambda row: row.of_rollout)
        for id_, rows in rows_by_rollout.items():
            self._tx.keep(after_key(id_), rows[0] if rows else None)

    def _keep_newest(self, table: sa.Table, groups: Collection[str]) -> None:
        names = {NAMES: json.dumps([{"name": name} for name in sorted(set(groups))])}
        query = newest_rows(table, self._tx.dialect)
        rows = (
            self._tx.read_stored(table, query, names)
            if is_signed(table)
            else self._tx.read(query, names).all()
        )
        newest_rows_ = {getattr(row, _NEWEST[table].group): row for row in rows}
        for name in groups:
            self._tx.keep(newest_key(table, name), newest_rows_.get(name))

    def _grouped(
        self,
        query: sa.Select[Any],
        names: Collection[str],
        group: Callable[[Row], str],
        *,
        stored: sa.Table | None = None,
    ) -> dict[str, list[Row]]:
        """Reads rows of all names, and groups them; a name without rows gets an empty list."""
        rows_by_name: dict[str, list[Row]] = {name: [] for name in names}
        for row in read_named(self._tx, query, names, stored=stored):
            rows_by_name[group(row)].append(row)
        return rows_by_name
