"""Finds the signed rows that do not verify, and breaks in the chains of route versions:
`row_faults` in all tables and the manifest, `working_faults` among what control works on now.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import sqlalchemy as sa

from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import RUNNABLE_STATES
from harness.domain.operations.principals import LOCAL_PRINCIPAL
from harness.domain.operations.row_signatures import RowFault
from harness.store.schema.columns import Row
from harness.store.schema.evals import eval_run
from harness.store.schema.operations import principal
from harness.store.schema.proposals import (
    LIVE_STATE_VALUES,
    OPEN_PHASE_VALUES,
    proposal,
    rollout,
)
from harness.store.schema.routing import route_fallback, route_version
from harness.store.schema.signed_tables import SIGNED, SignedTable
from harness.store.unit_of_work import Unit

CHAINS: Final = sa.select(route_fallback).order_by(*route_fallback.primary_key.columns)
WORKING: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    proposal.name: proposal.c.phase.in_(OPEN_PHASE_VALUES),
    rollout.name: sa.or_(
        rollout.c.state.in_(LIVE_STATE_VALUES), rollout.c.bake_ends_at.is_not(None)
    ),
    eval_run.name: eval_run.c.state.in_([state.value for state in RUNNABLE_STATES]),
}
VERSIONS: Final = sa.select(route_version).order_by(*route_version.primary_key.columns)
Chains = dict[tuple[str, str, int], list[list[str]]]


def chains_of(unit: Unit) -> Chains:
    """Reads the fallbacks of every route's versions, as its signature covers them."""
    chains: Chains = defaultdict(list)
    for row in unit.read(CHAINS):
        chains[row.project, row.route, row.version].append([row.target, row.evidence])
    return chains


def working_faults(unit: Unit) -> Iterator[RowFault]:
    """Faults of what control works on: open proposals, live rollouts, runs that go on."""
    for name, where in WORKING.items():
        yield from _faults(unit, SIGNED[name], where)


def row_faults(unit: Unit) -> Iterator[RowFault]:
    """Finds all faults, table by table. The manifest's comes last, with an empty key."""
    for name, signed in SIGNED.items():
        if name == route_version.name:
            yield from _version_faults(unit)
            continue
        yield from _faults(unit, signed, sa.true())
    if (
        unit.read(sa.select(principal.c.id).where(principal.c.id == LOCAL_PRINCIPAL.id)).first()
        is None
    ):
        yield RowFault(principal.name, (LOCAL_PRINCIPAL.id,), "it is gone", unsigned=False)
    try:
        unit.check_manifest()
    except SignatureInvalid as error:
        yield RowFault("manifest", (), str(error), unsigned=False)


def _faults(
    unit: Unit, signed: SignedTable, where: sa.ColumnElement[bool]
) -> Iterator[RowFault]:
    for row in unit.read(sa.select(signed.table).where(where)):
        if fault := unit.fault(signed.table, row):
            yield fault


def _version_faults(unit: Unit) -> Iterator[RowFault]:
    name, chains = route_version.name, chains_of(unit)
    before: Row | None = None
    for row in unit.read(VERSIONS):
        chain = chains.get((row.project, row.route, row.version), [])
        if fault := unit.fault(route_version, row, fallbacks=chain):
            yield fault
        elif why := _break(before, row):
            yield RowFault(
                name, (row.project, row.route, str(row.version)), why, unsigned=False
            )
        before = row


def _break(before: Row | None, row: Row) -> str:
    if before is None or (before.project, before.route) != (row.project, row.route):
        first = row.version == 1 and row.prev_signature is None
        return "" if first else "the versions before it are missing"
    if before.version + 1 != row.version or before.signature != row.prev_signature:
        return "it does not follow the version before it, which was removed or replaced"
    return ""
