"""Signs rows anew, or removes rows that do not verify, for an admin (`swapgate db sign`):
`sign_rows` signs those from before there were signatures, or all with a new key; `remove_rows`
takes out what nobody signed, with the rows that refer to it.

Both change rows that triggers protect: they run as the tables' owner, in one unit of work,
`without_triggers`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.operations.row_signatures import RowFault
from harness.store.schema import metadata
from harness.store.schema.columns import SIGNATURE
from harness.store.schema.evals import sample, text_digests
from harness.store.schema.routing import route_fallback, route_version
from harness.store.schema.signed_tables import SIGNED, manifest
from harness.store.signing.row_faults import chains_of
from harness.store.unit_of_work import Unit

# Rows of these show that the installation signs already.
PROOF: Final = ("route_version", "evidence", "verdict", "waiver", "provider", "api_key")
AGAIN: Final = (
    "rows of this installation are signed already: no unsigned row is accepted since. "
    "`swapgate db check` names those that do not hold; bring them back from a backup, or take "
    "them out with `swapgate db sign --remove`"
)
TRIGGERS_OF_SQLITE: Final = sa.text(
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
)


def check_first_time(unit: Unit) -> None:
    """Checks that no row was signed before; else raises Conflict."""
    signed = any(
        unit.read(
            sa.select(sa.literal(1))
            .select_from(SIGNED[name].table)
            .where(SIGNED[name].table.c.signature.is_not(None))
            .limit(1)
        ).first()
        for name in PROOF
    )
    if signed or unit.read(sa.select(manifest.c.id)).first() is not None:
        raise Conflict(AGAIN)


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


def sign_rows(unit: Unit, *, again: bool = False) -> int:
    """Sign every row that has no signature; how many. Called without triggers.

    again: the others, too, whoever signed them; the caller has seen that all of them hold.
    """
    count = 0
    for name, signed in SIGNED.items():
        if name == route_version.name:
            count += _sign_versions(unit, again=again)
            continue
        table = signed.table
        wanted = sa.select(table)
        if not again:
            wanted = wanted.where(table.c.signature.is_(None))
        for row in unit.read(wanted).all():
            values = row._asdict()
            first = table is sample and row.answer_sha256 is None
            more = text_digests(row.answer, row.prompt) if first else {}
            count += _update(unit, table, values, more)
    return count


def _sign_versions(unit: Unit, *, again: bool) -> int:
    count = 0
    rows = unit.read(
        sa.select(route_version).order_by(*route_version.primary_key.columns)
    ).all()
    chains = chains_of(unit, rows)
    before: dict[str, Any] = {}
    for row in rows:
        values = row._asdict()
        follows = all(before.get(name) == values[name] for name in ("project", "route"))
        previous = before[SIGNATURE] if follows else None
        chain = chains.get((row.project, row.route, row.version), [])
        if again or row.signature is None:
            values["prev_signature"] = previous
            values[SIGNATURE] = unit.signature(route_version, values, fallbacks=chain)
            _write(unit, route_version, values, ("prev_signature", SIGNATURE))
            count += 1
        before = values
    return count


def _update(unit: Unit, table: sa.Table, values: dict[str, Any], more: dict[str, str]) -> int:
    whole = values | more
    whole[SIGNATURE] = unit.signature(table, whole)
    _write(unit, table, whole, (*more, SIGNATURE))
    return 1


def _write(unit: Unit, table: sa.Table, values: dict[str, Any], columns: Sequence[str]) -> None:
    same = [column == values[column.name] for column in table.primary_key.columns]
    only = {name: values[name] for name in columns}
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
            key=lambda fault: int(fault.key[2]) if table is route_version else 0,
            reverse=True,
        )
        for fault in row_faults:
            if table is route_version:
                project, route, version = fault.key
                unit.write(
                    sa.delete(route_fallback).where(
                        route_fallback.c.project == project,
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
