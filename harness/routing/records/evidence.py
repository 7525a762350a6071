"""Finds and writes the evidence for each target of a route's version: for a change's new target
(`build_proof_columns`), and for fallbacks (`write_fallbacks`). Stores waivers (`Waivers`).

Only `Routing.commit` writes evidence of a version. `harness.routing.records.versions` has the
tables, and their foreign keys enforce the same rules.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import assert_never

import sqlalchemy as sa

from harness.frame.errors import ProofRefused
from harness.frame.records.columns import Row, Values
from harness.frame.records.repository import Records, given
from harness.frame.records.transaction import Transaction
from harness.gate.verdict import Passed
from harness.routing.evidence import (
    ChainProof,
    FormerTarget,
    RouteEvidence,
    TargetEvidence,
    Waiver,
    baseline_evidence,
    verdict_evidence,
    waiver_evidence,
)
from harness.routing.records.verdicts import verdict
from harness.routing.records.versions import (
    WAIVER,
    evidence,
    evidence_from_row,
    evidence_to_row,
    route_fallback,
    route_version,
    waiver,
)
from harness.routing.route_changes import (
    AbortCanary,
    ChangeSettings,
    CreateRoute,
    EndBake,
    PromoteCanary,
    RaiseWeight,
    RestoreIncumbent,
    ServeByWaiver,
    SetChain,
    StartCanary,
    TableChange,
)
from harness.routing.table import Route

LAST_AS_INCUMBENT = (
    sa.select(route_version)
    .where(
        route_version.c.route == sa.bindparam("name"),
        route_version.c.incumbent == sa.bindparam("incumbent"),
        # A target that served only by break-glass does not count as a former incumbent.
        route_version.c.break_glass.is_(None),
    )
    .order_by(route_version.c.version.desc())
    .limit(1)
)
FALLBACK_EVIDENCE = (
    sa.select(route_fallback.c.target, route_fallback.c.evidence)
    .where(
        route_fallback.c.route == sa.bindparam("name"),
        route_fallback.c.version == sa.bindparam("version"),
    )
    .order_by(route_fallback.c.position)
)
_SERVED_VERSIONS = sa.union_all(
    sa.select(
        route_version.c.version,
        route_version.c.incumbent_evidence.label("evidence"),
    ).where(
        route_version.c.route == sa.bindparam("name"),
        route_version.c.incumbent == sa.bindparam("target"),
    ),
    sa.select(route_fallback.c.version, route_fallback.c.evidence).where(
        route_fallback.c.route == sa.bindparam("name"),
        route_fallback.c.target == sa.bindparam("target"),
    ),
).subquery()
LAST_SERVED_EVIDENCE = (
    sa.select(_SERVED_VERSIONS.c.evidence).order_by(_SERVED_VERSIONS.c.version.desc()).limit(1)
)


def build_proof_columns(  # noqa: PLR0911 - one return per class
    tx: Transaction,
    change: TableChange,
    previous: Row | None,
    now: datetime,
) -> Values:
    """Returns the columns of a new version's proof: its base, evidence and verdict.

    Raises ProofRefused for a restore of a target that was never this route's incumbent.
    """
    if isinstance(change, CreateRoute):
        baseline = baseline_evidence(change.route, change.incumbent)
        return {"incumbent_evidence": store_evidence(tx, baseline, now)}
    if previous is None:
        raise ProofRefused(f"route {change.route!r} has no version to change: create it first")
    base: Values = {
        "prev_version": previous.version,
        "prev_incumbent": previous.incumbent,
        "incumbent_evidence": previous.incumbent_evidence,
        "canary_evidence": previous.canary_evidence,
    }
    match change:
        case StartCanary(proof=proof):
            return (
                base
                | _verdict_columns(tx, proof)
                | {"canary_evidence": _store_verdict_evidence(tx, proof, now)}
            )
        case PromoteCanary(proof=proof):
            promoted = {
                "incumbent_evidence": _store_verdict_evidence(tx, proof, now),
                "canary_evidence": None,
            }
            return base | _verdict_columns(tx, proof) | promoted
        case RestoreIncumbent(incumbent=incumbent):
            parameters = {"name": change.route, "incumbent": incumbent}
            row = tx.read(LAST_AS_INCUMBENT, parameters).first()
            if row is None:
                raise ProofRefused(
                    f"{incumbent} was never the incumbent of route {change.route!r}: "
                    "`swapproof route history` lists its incumbents; propose a new target"
                )
            read_version_evidence(tx, row)
            return base | {
                "incumbent_evidence": row.incumbent_evidence,
                "canary_evidence": None,
            }
        case ServeByWaiver(waiver=stored):
            return base | {
                "incumbent_evidence": store_evidence(tx, waiver_evidence(stored), now)
            }
        case AbortCanary():
            return base | {"canary_evidence": None}
        case RaiseWeight() | ChangeSettings() | SetChain() | EndBake():
            return base
        case _:
            assert_never(change)


def _verdict_columns(tx: Transaction, proof: Passed) -> Values:
    """Returns the columns that name the verdict.

    Raises SignatureInvalid for a forged verdict.
    """
    # Verifies the stored row, because the caller's copy may differ from it.
    stored = tx.read(sa.select(verdict).where(verdict.c.id == proof.id)).all()
    tx.checked(verdict, stored)
    return {
        "verdict_id": proof.id,
        "verdict_candidate": proof.candidate,
        "verdict_outcome": proof.outcome,
    }


def _store_verdict_evidence(
    tx: Transaction,
    proof: Passed,
    now: datetime,
) -> str:
    return store_evidence(tx, verdict_evidence(proof), now)


def store_evidence(
    tx: Transaction,
    new: TargetEvidence,
    now: datetime,
) -> str:
    """Writes evidence if it is new, and returns its id."""
    is_same = sa.select(evidence).where(evidence.c.id == new.id)
    stored = tx.read(is_same).all()
    if not tx.checked(evidence, stored):
        tx.insert(evidence, evidence_to_row(new) | {"created_at": now})
    return new.id


def write_fallbacks(
    tx: Transaction,
    change: TableChange,
    after: Route,
    previous: Row | None,
    now: datetime,
) -> list[list[str]]:
    """Writes a version's fallbacks before the version, and returns them for its signature.

    Raises ProofRefused for an expired waiver, and for a target that never served.
    """
    chain = _collect_chain_evidence(tx, change, after, previous, now)
    if chain and isinstance(change, SetChain | ChangeSettings):
        _check_waivers(tx, after.name, read(tx, chain.values()), now)
    for position, fallback in enumerate(after.fallbacks):
        row = {
            "route": after.name,
            "version": after.version,
            "position": position,
            "target": fallback,
            "evidence": chain[fallback],
        }
        tx.write(sa.insert(route_fallback), row)
    return [[fallback, chain[fallback]] for fallback in after.fallbacks]


def _check_waivers(
    tx: Transaction,
    route: str,
    chain: Iterable[TargetEvidence],
    now: datetime,
) -> None:
    """Refuses a chain with an expired waiver. Only people's changes need this check: an expired
    waiver must never prevent a rollback.
    """
    waivers = Waivers(tx).list(route=route)
    expired = {waiver_row.id: waiver_row for waiver_row in waivers if waiver_row.expired(now)}
    for fallback_evidence in chain:
        if expired_waiver := expired.get(fallback_evidence.proof):
            raise ProofRefused(
                f"route {route!r}: the waiver of {expired_waiver.author} for "
                f"{expired_waiver.target} expired on {expired_waiver.expires_at:%Y-%m-%d}: "
                "remove it from the chain, or add a verdict or a new waiver"
            )


def signed_chain(rows_: Iterable[Row]) -> list[list[str]]:
    """Lists a version's fallbacks with their evidence, in the form that the signature
    covers.
    """
    return [[row.target, row.evidence] for row in rows_]


def _collect_chain_evidence(
    tx: Transaction,
    change: TableChange,
    after: Route,
    previous: Row | None,
    now: datetime,
) -> dict[str, str]:
    """Returns the evidence of each fallback of the new version, by target.

    Keeps the evidence of the previous version. Raises ProofRefused for a target without
    evidence.
    """
    name = after.name
    if previous is None:
        return {
            fallback: store_evidence(tx, baseline_evidence(name, fallback), now)
            for fallback in after.fallbacks
        }
    previous_rows = tx.read(FALLBACK_EVIDENCE, {"name": name, "version": previous.version})
    chain = {row.target: row.evidence for row in previous_rows}
    if isinstance(change, SetChain):
        new_evidence = {
            target: _store_proof(tx, name, proof, now)
            for target, proof in change.proofs.items()
        }
        chain |= new_evidence
    if unproven := [fallback for fallback in after.fallbacks if fallback not in chain]:
        raise ProofRefused(f"route {name!r}: there is no proof of {', '.join(unproven)}")
    return {fallback: chain[fallback] for fallback in after.fallbacks}


def _store_proof(
    tx: Transaction,
    route: str,
    proof: ChainProof,
    now: datetime,
) -> str:
    """Writes one fallback's evidence if it is new, and returns its id."""
    match proof:
        case Passed():
            return _store_verdict_evidence(tx, proof, now)
        case Waiver():
            return store_evidence(tx, waiver_evidence(proof), now)
        case FormerTarget(target):
            evidence_id = tx.read(
                LAST_SERVED_EVIDENCE, {"name": route, "target": target}
            ).scalar()
            if evidence_id is None:
                raise ProofRefused(
                    f"{target} never served route {route!r}: `swapproof route history` shows "
                    "its targets; a new target needs a passed verdict for this route, or a "
                    "waiver"
                )
            read(tx, [evidence_id])
            return str(evidence_id)
        case _:
            assert_never(proof)


def read(tx: Transaction, ids: Iterable[str]) -> list[TargetEvidence]:
    """Reads evidence by id, in the given order. Raises SignatureInvalid."""
    keys = list(ids)
    query = sa.select(evidence).where(evidence.c.id.in_(keys))
    stored = tx.checked(evidence, tx.read(query)) if keys else []
    found = {row.id: evidence_from_row(row) for row in stored}
    return [found[id_] for id_ in keys]


def read_version_evidence(tx: Transaction, row: Row) -> RouteEvidence:
    """Reads the evidence of one version of a route. Raises SignatureInvalid."""
    key = {"name": row.route, "version": row.version}
    chain = tx.read(FALLBACK_EVIDENCE, key).all()
    tx.checked(route_version, [row], fallbacks=signed_chain(chain))
    [incumbent] = read(tx, [row.incumbent_evidence])
    canary = read(tx, [row.canary_evidence]) if row.canary_evidence else [None]
    return RouteEvidence(
        incumbent, canary[0], tuple(read(tx, [link.evidence for link in chain]))
    )


class Waivers(Records[Waiver]):
    record = WAIVER
    order = (waiver.c.expires_at, waiver.c.id)

    def add(self, new: Waiver) -> None:
        """Stores a waiver together with the evidence that it gives."""
        self._tx.serialize()
        super().add(new)
        store_evidence(self._tx, waiver_evidence(new), self._tx.now())

    def list(self, *, route: str | None = None) -> Sequence[Waiver]:
        return self._all(self._select(given(waiver.c.route, route)))
