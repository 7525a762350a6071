"""Evidence: what each role of a route's version refers to."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa

from harness.domain.errors import ProofRefused
from harness.domain.evaluation import Passed
from harness.domain.routing import (
    Abort,
    Change,
    ChangeSettings,
    CreateRoute,
    Promote,
    RaiseWeight,
    Restore,
    Route,
    StartCanary,
)
from harness.ports import Waiver
from harness.store.rows import Row, Values
from harness.store.rows import routing as rows
from harness.store.rules import check_waiver, never_incumbent
from harness.store.sql.unit import Unit
from harness.store.tables.routing import evidence, route_fallback, route_version, waiver

FORMER_EVIDENCE = (
    sa.select(route_version.c.incumbent_evidence)
    .where(
        route_version.c.route == sa.bindparam("name"),
        route_version.c.incumbent == sa.bindparam("incumbent"),
    )
    .order_by(route_version.c.version.desc())
    .limit(1)
)
FALLBACK_EVIDENCE = sa.select(route_fallback.c.target, route_fallback.c.evidence).where(
    route_fallback.c.route == sa.bindparam("name"),
    route_fallback.c.version == sa.bindparam("version"),
)
WAIVERS = sa.select(waiver).order_by(waiver.c.expires_at, waiver.c.id)


def proof_of(unit: Unit, change: Change, before: Row | None, now: datetime) -> Values:
    """The columns of a new version that say why it may be: its base, evidence and verdict.

    Raises ProofRefused for a restore of a target that was never this route's incumbent.
    """
    if isinstance(change, CreateRoute):
        first = rows.baseline(change.route, change.incumbent)
        return {"incumbent_evidence": ensure(unit, first, now)}
    if before is None:
        raise ProofRefused(f"route {change.route!r} has no version to change: create it first")
    base: Values = {
        "prev_version": before.version,
        "prev_incumbent": before.incumbent,
        "incumbent_evidence": before.incumbent_evidence,
        "canary_evidence": before.canary_evidence,
    }
    match change:
        case StartCanary(proof=proof):
            return base | _verdict(proof) | {"canary_evidence": _proven(unit, proof, now)}
        case Promote(proof=proof):
            new = {"incumbent_evidence": _proven(unit, proof, now), "canary_evidence": None}
            return base | _verdict(proof) | new
        case Restore(incumbent=incumbent):
            former = {"name": change.route, "incumbent": incumbent}
            found = unit.read(FORMER_EVIDENCE, former).scalar()
            if found is None:
                raise never_incumbent(change)
            return base | {"incumbent_evidence": found, "canary_evidence": None}
        case Abort():
            return base | {"canary_evidence": None}
        case RaiseWeight() | ChangeSettings():
            return base
        case _:
            assert_never(change)


def _verdict(proof: Passed) -> Values:
    return {
        "verdict_id": proof.id,
        "verdict_candidate": proof.candidate,
        "verdict_outcome": proof.outcome,
    }


def _proven(unit: Unit, proof: Passed, now: datetime) -> str:
    return ensure(unit, rows.proven(proof), now)


def ensure(unit: Unit, wanted: rows.Evidence, now: datetime) -> str:
    """The evidence's id; written if it is new."""
    known = sa.select(evidence.c.id).where(evidence.c.id == wanted.id)
    if unit.read(known).first() is None:
        unit.write(sa.insert(evidence), rows.of_evidence(wanted) | {"created_at": now})
    return wanted.id


def write_fallbacks(unit: Unit, after: Route, before: Row | None, now: datetime) -> None:
    """The chain of a version, written before it: the version seals it."""
    if before is None:
        chain = {t: ensure(unit, rows.baseline(after.name, t), now) for t in after.fallbacks}
    else:
        of_before = {"name": after.name, "version": before.version}
        found = unit.read(FALLBACK_EVIDENCE, of_before)
        chain = {row.target: row.evidence for row in found}
    for position, fallback in enumerate(after.fallbacks):
        unit.write(
            sa.insert(route_fallback),
            {
                "route": after.name,
                "version": after.version,
                "position": position,
                "target": fallback,
                "evidence": chain[fallback],
            },
        )


class SqlWaivers:
    def __init__(self, unit: Unit, now: datetime) -> None:
        self._unit = unit
        self._now = now

    def add(self, new: Waiver) -> None:
        check_waiver(new)
        self._unit.serialize()
        self._unit.write(
            sa.insert(waiver), {name: getattr(new, name) for name in new.__slots__}
        )
        ensure(self._unit, rows.waived(new), self._now)

    def list(self, *, route: str | None = None) -> Sequence[Waiver]:
        query = WAIVERS if route is None else WAIVERS.where(waiver.c.route == route)
        return [rows.waiver(row) for row in self._unit.read(query)]
