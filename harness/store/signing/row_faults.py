"""Finds the signed rows that do not verify, and breaks in the chains of route versions:
`row_faults` in all tables and the manifest, `working_faults` among what control works on now.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import RUNNABLE_STATES
from harness.domain.operations.principals import LOCAL_PRINCIPAL
from harness.domain.operations.row_signatures import RowFault
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
_CHAIN: Final = [route_fallback.c.route, route_fallback.c.version]
WORKING: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    proposal.name: HAS_NOT_ENDED,
    rollout.name: sa.or_(
        rollout.c.state.in_(LIVE_STATE_VALUES), rollout.c.bake_ends_at.is_not(None)
    ),
    eval_run.name: eval_run.c.state.in_([state.value for state in RUNNABLE_STATES]),
}
Chains = dict[tuple[str, int], list[list[str]]]


def chains_of(unit: Unit, rows: Sequence[Row]) -> Chains:
    """Reads the fallbacks of route versions that follow one another, as their signatures cover
    them.
    """
    chains: Chains = defaultdict(list)
    if rows:
        first, last = ([row.route, row.version] for row in (rows[0], rows[-1]))
        between = sa.tuple_(*_CHAIN).between(_tuple(_CHAIN, first), _tuple(_CHAIN, last))
        for row in unit.read(CHAINS.where(between)):
            chains[row.route, row.version].append([row.target, row.evidence])
    return chains


def working_faults(unit: Unit) -> Iterator[RowFault]:
    """Faults of what control works on: open proposals, live rollouts, runs that go on."""
    for name, where in WORKING.items():
        rows = unit.read(_covered(SIGNED[name]).where(where)).all()
        yield from _page_faults(unit, SIGNED[name], rows, None)


def row_faults(unit: Unit) -> Iterator[RowFault]:
    """Finds all faults, table by table. The manifest's comes last, with an empty key."""
    for signed in SIGNED.values():
        key = list(signed.table.primary_key.columns)
        query = _covered(signed).order_by(*key).limit(ROWS_PER_PAGE)
        rows, before = unit.read(query).all(), None
        while rows:
            yield from _page_faults(unit, signed, rows, before)
            before = rows[-1]
            last = _tuple(key, [before._asdict()[name] for name in signed.key])
            rows = unit.read(query.where(sa.tuple_(*key) > last)).all()
    local = principal.c.id == LOCAL_PRINCIPAL.id
    if unit.read(sa.select(principal.c.id).where(local)).first() is None:
        yield RowFault(principal.name, (LOCAL_PRINCIPAL.id,), "it is gone")
    try:
        unit.check_manifest()
    except SignatureInvalid as error:
        yield RowFault("manifest", (), str(error))


def _page_faults(
    unit: Unit, signed: SignedTable, rows: Sequence[Row], before: Row | None
) -> Iterator[RowFault]:
    """before: the row that precedes the first, which a route's version stands on."""
    versions = signed.table is route_version
    chains = chains_of(unit, rows) if versions else {}
    for row in rows:
        more: dict[str, object] = {}
        if versions:
            more = {"fallbacks": chains.get((row.route, row.version), [])}
        fault = unit.fault(signed.table, row, **more)
        if fault is None and versions and (why := _break(before, row)):
            key = tuple(str(getattr(row, name)) for name in signed.key)
            fault = RowFault(signed.table.name, key, why)
        if fault is not None:
            yield fault
        before = row


def _covered(signed: SignedTable) -> sa.Select[*tuple[Any, ...]]:
    """What a signature is over, without the texts of samples."""
    key = signed.table.primary_key.columns
    keys = [column for column in key if column not in signed.covered]
    return sa.select(*signed.covered, *keys, signed.table.c[SIGNATURE])


def _tuple(columns: Sequence[sa.Column[Any]], key: Sequence[object]) -> sa.Tuple:
    pairs = zip(columns, key, strict=True)
    return sa.tuple_(*(sa.literal(value, column.type) for column, value in pairs))


def _break(before: Row | None, row: Row) -> str:
    if before is None or before.route != row.route:
        first = row.version == 1 and row.prev_signature is None
        return "" if first else "the versions before it are missing"
    if before.version + 1 != row.version or before.signature != row.prev_signature:
        return "it does not follow the version before it, which was removed or replaced"
    return ""
