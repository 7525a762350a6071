"""Signs all rows anew with a new key (`sign_rows`, for `swapgate db retire-key`), and removes
forged rows with the rows that refer to them (`remove_rows`, for `swapgate db remove-forged`).

Both change rows that triggers protect: they run as the tables' owner, in one unit of work,
`without_triggers`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.operations.row_signatures import RowFault
from harness.store.schema import metadata
from harness.store.schema.columns import SIGNATURE, Row
from harness.store.schema.routing import route_fallback, route_version
from harness.store.schema.signed_tables import SIGNED
from harness.store.signing.row_faults import chains_of
from harness.store.unit_of_work import Unit

TRIGGERS_OF_SQLITE: Final = sa.text(
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
)


@contextmanager
def without_triggers(unit: Unit) -> Iterator[None]:
    """Takes away the triggers of signed tables, and of those that refer to them, until the
    block ends; only this unit sees it.
    """
    referring = {
        other.name for fault in SIGNED.values() for other, _ in _unsigned_referrers(fault.table)
    }
    tables = sorted({*SIGNED, route_fallback.name, *referring})
    if unit.dialect == "postgresql":
        for table in tables:
            unit.write(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        yield
        unit.write(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
        for table in tables:
            unit.write(sa.text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
        return
    triggers = unit.read(TRIGGERS_OF_SQLITE).all()
    for trigger in triggers:
        unit.write(sa.text(f'DROP TRIGGER "{trigger.name}"'))
    yield
    for trigger in triggers:
        # Not sa.text: a colon in a trigger's words is no parameter.
        unit.script(trigger.sql)


def sign_rows(unit: Unit) -> int:
    """Sign every row; how many. Called without triggers, when all rows hold."""
    count = 0
    for signed in SIGNED.values():
        table = signed.table
        rows = unit.read(sa.select(table).order_by(*table.primary_key.columns)).all()
        count += len(rows)
        if table is route_version:
            _sign_versions(unit, rows)
            continue
        for row in rows:
            values = row._asdict()
            _write(unit, table, values | {SIGNATURE: unit.signature(table, values)})
    return count


def _sign_versions(unit: Unit, rows: Sequence[Row]) -> None:
    chains = chains_of(unit, rows)
    before: dict[str, Any] = {}
    for row in rows:
        values = row._asdict()
        follows = before.get("route") == row.route
        values["prev_signature"] = before[SIGNATURE] if follows else None
        chain = chains.get((row.route, row.version), [])
        values[SIGNATURE] = unit.signature(route_version, values, fallbacks=chain)
        _write(unit, route_version, values, "prev_signature")
        before = values


def _write(unit: Unit, table: sa.Table, values: dict[str, Any], *columns: str) -> None:
    same = [column == values[column.name] for column in table.primary_key.columns]
    only = {name: values[name] for name in (*columns, SIGNATURE)}
    unit.write(sa.update(table).where(*same).values(only))


def remove_rows(unit: Unit, faults: Sequence[RowFault]) -> int:
    """Take out the rows; how many. Called without triggers.

    A version's chain goes with it, as do unsigned rows that point at one. Raises RowRefused
    where a signed row that stays needs one.
    """
    count = 0
    for table in reversed(metadata.sorted_tables):
        # Of versions the last one first: each stands on the one before it.
        row_faults = sorted(
            (fault for fault in faults if fault.table == table.name),
            key=lambda fault: int(fault.key[1]) if table is route_version else 0,
            reverse=True,
        )
        for fault in row_faults:
            if table is route_version:
                route, version = fault.key
                unit.write(
                    sa.delete(route_fallback).where(
                        route_fallback.c.route == route,
                        route_fallback.c.version == int(version),
                    )
                )
            same = [
                sa.cast(column, sa.Text) == value
                for column, value in zip(table.primary_key.columns, fault.key, strict=False)
            ]
            if same:
                _remove_referrers(unit, table, same)
                count += unit.write(sa.delete(table).where(*same))
    return count


def _remove_referrers(
    unit: Unit, table: sa.Table, where: Sequence[sa.ColumnElement[bool]]
) -> None:
    """Rows that nobody signs and that point at these: else they would keep them there."""
    for other, constraint in _unsigned_referrers(table):
        pairs = zip(constraint.columns, constraint.elements, strict=True)
        theirs = (mine == element.column for mine, element in pairs)
        points = sa.exists(sa.select(sa.literal(1)).select_from(table).where(*where, *theirs))
        found = [points.correlate(other)]
        _remove_referrers(unit, other, found)
        unit.write(sa.delete(other).where(*found))


def _unsigned_referrers(
    table: sa.Table,
) -> Iterator[tuple[sa.Table, sa.ForeignKeyConstraint]]:
    """A version's fallbacks are part of what its signature covers."""
    for other in metadata.sorted_tables:
        if other.name in SIGNED or other in (table, route_fallback):
            continue
        for constraint in sorted(other.foreign_key_constraints, key=lambda key: str(key.name)):
            if constraint.referred_table is table:
                yield other, constraint
