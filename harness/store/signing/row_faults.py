"""Finds the signed rows that do not verify, and breaks in the chains of route versions:
`row_faults` in all tables and the manifest, `working_faults` among what control works on now,
`faults_behind` page by page, and `remaining_faults` of rows that were found before.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import RUNNABLE_STATES
from harness.domain.operations.principals import LOCAL_PRINCIPAL
from harness.domain.operations.row_signatures import RowFault, RowPlace, VerifiedRows
from harness.store.schema.columns import SIGNATURE, Row
from harness.store.schema.evals import eval_run
from harness.store.schema.operations import principal
from harness.store.schema.proposals import (
    HAS_NOT_ENDED,
    LIVE_STATE_VALUES,
    proposal,
    rollout,
)
from harness.store.schema.routing import route_fallback, route_version
from harness.store.schema.signed_tables import SIGNED, SignedTable
from harness.store.unit_of_work import Unit

# Of a table at a time: the texts of what is verified are not held for long.
ROWS_PER_PAGE: Final = 1_000
CHAINS: Final = sa.select(route_fallback).order_by(*route_fallback.primary_key.columns)
_CHAIN: Final = [route_fallback.c.project, route_fallback.c.route, route_fallback.c.version]
WORKING: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    proposal.name: HAS_NOT_ENDED,
    rollout.name: sa.or_(
        rollout.c.state.in_(LIVE_STATE_VALUES), rollout.c.bake_ends_at.is_not(None)
    ),
    eval_run.name: eval_run.c.state.in_([state.value for state in RUNNABLE_STATES]),
}
Chains = dict[tuple[str, str, int], list[list[str]]]


def chains_of(unit: Unit, rows: Sequence[Row]) -> Chains:
    """Reads the fallbacks of route versions that follow one another, as their signatures cover
    them.
    """
    chains: Chains = defaultdict(list)
    if rows:
        first, last = ([row.project, row.route, row.version] for row in (rows[0], rows[-1]))
        between = sa.tuple_(*_CHAIN).between(_tuple(_CHAIN, first), _tuple(_CHAIN, last))
        for row in unit.read(CHAINS.where(between)):
            chains[row.project, row.route, row.version].append([row.target, row.evidence])
    return chains


def working_faults(unit: Unit) -> Iterator[RowFault]:
    """Faults of what control works on: open proposals, live rollouts, runs that go on."""
    for name, where in WORKING.items():
        rows = unit.read(_covered(SIGNED[name]).where(where)).all()
        yield from _page_faults(unit, SIGNED[name], rows, None).values()


def row_faults(unit: Unit) -> Iterator[RowFault]:
    """Finds all faults, table by table. The manifest's comes last, with an empty key."""
    place: RowPlace | None = None
    while True:
        part = faults_behind(unit, place)
        yield from part.faults.values()
        if part.last is None:
            break
        place = part.last
    yield from _whole_faults(unit).values()


def faults_behind(unit: Unit, place: RowPlace | None) -> VerifiedRows:
    """Verifies a page of rows: those behind `place`, or the first ones. A page has rows of one
    table.
    """
    names = [*SIGNED]
    for name in names[names.index(place.table) if place else 0 :]:
        signed = SIGNED[name]
        page = _covered(signed).order_by(*_key(signed)).limit(ROWS_PER_PAGE)
        behind = place is not None and place.table == name
        if behind and place is not None:
            page = page.where(sa.tuple_(*_key(signed)) > _tuple(_key(signed), place.key))
        if rows := unit.read(page).all():
            before = _rows_at(unit, signed, place.key) if behind and place else ()
            faults = _page_faults(unit, signed, rows, next(iter(before), None))
            return VerifiedRows(len(rows), faults, _place(signed, rows[-1]))
    return VerifiedRows(0, {}, None)


def remaining_faults(unit: Unit, places: Iterable[RowPlace]) -> Mapping[RowPlace, RowFault]:
    """Finds which of these rows are at fault still, and faults of the manifest."""
    found: dict[RowPlace, RowFault] = {}
    for place in places:
        if place.table not in SIGNED:
            continue
        signed = SIGNED[place.table]
        if rows := _rows_at(unit, signed, place.key):
            found |= _page_faults(unit, signed, rows, _row_before(unit, signed, place.key))
    return {**found, **_whole_faults(unit)}


def _whole_faults(unit: Unit) -> Mapping[RowPlace, RowFault]:
    """Faults that are no row's."""
    found = {}
    local = (LOCAL_PRINCIPAL.id,)
    if not _rows_at(unit, SIGNED[principal.name], local):
        gone = RowFault(principal.name, local, "it is gone", unsigned=False)
        found[RowPlace(principal.name, local)] = gone
    try:
        unit.check_manifest()
    except SignatureInvalid as error:
        fault = RowFault("manifest", (), str(error), unsigned=False)
        found[RowPlace("manifest", ())] = fault
    return found


def _page_faults(
    unit: Unit, signed: SignedTable, rows: Sequence[Row], before: Row | None
) -> dict[RowPlace, RowFault]:
    """before: the row that precedes the first, which a route's version stands on."""
    found = {}
    versions = signed.table is route_version
    chains = chains_of(unit, rows) if versions else {}
    for row in rows:
        more: dict[str, object] = {}
        if versions:
            more = {"fallbacks": chains.get((row.project, row.route, row.version), [])}
        fault = unit.fault(signed.table, row, **more)
        if fault is None and versions and (why := _break(before, row)):
            key = tuple(map(str, _place(signed, row).key))
            fault = RowFault(signed.table.name, key, why, unsigned=False)
        if fault is not None:
            found[_place(signed, row)] = fault
        before = row
    return found


def _row_before(unit: Unit, signed: SignedTable, key: tuple[object, ...]) -> Row | None:
    if signed.table is not route_version:
        return None
    columns = _key(signed)
    newest = [column.desc() for column in columns]
    earlier = sa.tuple_(*columns) < _tuple(columns, key)
    return unit.read(_covered(signed).where(earlier).order_by(*newest).limit(1)).first()


def _rows_at(unit: Unit, signed: SignedTable, key: tuple[object, ...]) -> Sequence[Row]:
    same = [column == value for column, value in zip(_key(signed), key, strict=True)]
    return unit.read(_covered(signed).where(*same)).all()


def _covered(signed: SignedTable) -> sa.Select[*tuple[Any, ...]]:
    """What a signature is over, without the texts of samples."""
    keys = [column for column in _key(signed) if column not in signed.covered]
    return sa.select(*signed.covered, *keys, signed.table.c[SIGNATURE])


def _key(signed: SignedTable) -> list[sa.Column[Any]]:
    return list(signed.table.primary_key.columns)


def _place(signed: SignedTable, row: Row) -> RowPlace:
    values = row._asdict()
    return RowPlace(signed.table.name, tuple(values[name] for name in signed.key))


def _tuple(columns: Sequence[sa.Column[Any]], key: Sequence[object]) -> sa.Tuple:
    pairs = zip(columns, key, strict=True)
    return sa.tuple_(*(sa.literal(value, column.type) for column, value in pairs))


def _break(before: Row | None, row: Row) -> str:
    if before is None or (before.project, before.route) != (row.project, row.route):
        first = row.version == 1 and row.prev_signature is None
        return "" if first else "the versions before it are missing"
    if before.version + 1 != row.version or before.signature != row.prev_signature:
        return "it does not follow the version before it, which was removed or replaced"
    return ""
