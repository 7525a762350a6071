"""Reads the signed rows that a swap rests on (`read_proof`), and verifies them where there is
no database (`find_faults`). `build_proven` builds domain objects from verified rows alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, cast

import sqlalchemy as sa

from harness.domain.content_hash import hash_content
from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import RunState, Sample
from harness.domain.operations.row_signatures import KeyPurpose, row_payload, split_signature
from harness.domain.proposals.proof import Proof, ProvenRows, StoredValues, SwapChange
from harness.domain.proposals.proposal import Proposal
from harness.ports import Verifier
from harness.store.schema import evals, proposals
from harness.store.schema.columns import SIGNATURE, Row
from harness.store.schema.routing import route_fallback, route_version
from harness.store.schema.signed_tables import SIGNED
from harness.store.schema.stored_row import StoredRow
from harness.store.signing.row_signatures import RowVerifier, covered_values
from harness.store.unit_of_work import Unit

DOCUMENT: Final = "proof"  # what a signature of a whole file is over, in place of a table
NO_TEXT: Final = hash_content("")
# Columns that no signature covers and no check of a proof reads.
UNSIGNED: Final[dict[str, dict[str, object]]] = {
    evals.eval_run.name: {"state": RunState.DONE.value, "wanted": 0, "failures": 0}
}


def read_proof(unit: Unit, installation: str, proposal: Proposal, exported_at: str) -> Proof:
    """Reads what the proposal's verdict and its canary rest on, and signs the whole."""
    runs = [run for pair in proposal.runs.values() for run in (pair.incumbent, pair.candidate)]
    suites = [plan.suite_digest for plan in proposal.plans]
    of_route = sa.and_(
        route_version.c.project == unit.project,
        route_version.c.route == proposal.route,
        sa.or_(
            route_version.c.rollout == (proposal.rollout or ""),
            route_version.c.verdict_id == (proposal.verdict or ""),
        ),
    )
    wanted: dict[sa.Table, sa.ColumnElement[bool]] = {
        proposals.proposal: proposals.proposal.c.id == proposal.id,
        proposals.verdict: proposals.verdict.c.id == proposal.verdict,
        proposals.approval: proposals.approval.c.proposal == proposal.id,
        proposals.rollout: proposals.rollout.c.id == (proposal.rollout or ""),
        evals.target: evals.target.c.id.in_([proposal.incumbent, proposal.candidate]),
        evals.suite: evals.suite.c.digest.in_(suites),
        evals.eval_run: evals.eval_run.c.id.in_(runs),
        evals.sample: evals.sample.c.run.in_(runs),
        route_version: of_route,
    }
    rows = {table.name: _stored(unit, table, where) for table, where in wanted.items()}
    rows[route_version.name] = _changes(unit, proposal, rows[route_version.name])
    versions = [int(row["version"]) for row in rows[route_version.name]]
    chains: dict[str, list[list[str]]] = {str(version): [] for version in versions}
    query = sa.select(route_fallback).where(
        route_fallback.c.project == unit.project,
        route_fallback.c.route == proposal.route,
        route_fallback.c.version.in_(versions),
    )
    for row in unit.read(query.order_by(*route_fallback.primary_key.columns)):
        chains[str(row.version)].append([row.target, row.evidence])
    proof = Proof(installation, proposal.id, exported_at, rows, chains)
    return replace(proof, signature=unit.sign_document(DOCUMENT, proof.content))


def _changes(unit: Unit, proposal: Proposal, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The route's versions from the first one of the swap on, its abort or rollback included,
    up to the next canary.
    """
    if not own:
        return []
    first = min(int(row["version"]) for row in own)
    since = sa.and_(
        route_version.c.project == unit.project,
        route_version.c.route == proposal.route,
        route_version.c.version >= first,
    )
    found = sorted(_stored(unit, route_version, since), key=lambda row: int(row["version"]))
    for place, row in enumerate(found):
        if row["kind"] == "canary" and row.get("rollout") != proposal.rollout:
            return found[:place]
    return found


def _stored(unit: Unit, table: sa.Table, where: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    signed = SIGNED[table.name]
    query = sa.select(table).where(where).order_by(*table.primary_key.columns)
    found = (row._asdict() for row in unit.read(query))
    return [covered_values(signed, row) | {SIGNATURE: row[SIGNATURE]} for row in found]


def find_faults(proof: Proof, verifier: Verifier) -> list[str]:
    """Names every row whose signature does not hold, and last the file itself."""
    rows = RowVerifier(verifier, lambda: proof.installation)
    found = [str(error) for error in _row_faults(proof, rows)]
    try:
        payload = row_payload(DOCUMENT, proof.installation, proof.content)
        verifier.check(payload, proof.signature, KeyPurpose.CONTROL)
    except (SignatureInvalid, ValueError, TypeError) as error:
        found.append(f"the file is not as it was exported: {error}")
    return found


def _row_faults(proof: Proof, rows: RowVerifier) -> Iterator[SignatureInvalid]:
    for name, stored in proof.rows.items():
        signed = SIGNED.get(name)
        if signed is None:
            yield SignatureInvalid(f"{name} is no signed table")
            continue
        for row in stored:
            values = {column.name: row.get(column.name) for column in signed.covered}
            more = {}
            if name == route_version.name:
                more["fallbacks"] = proof.chains.get(str(row.get("version")), [])
            try:
                rows.check_stored(signed, values | {SIGNATURE: row.get(SIGNATURE)}, **more)
            except SignatureInvalid as error:
                yield error


def build_proven(proof: Proof) -> ProvenRows:
    """Builds what the rows say, once `find_faults` found nothing.

    Raises LookupError, ValueError, TypeError for signed rows that are not those of one swap.
    """
    tables = {
        name: [
            cast("Row", StoredRow(SIGNED[name].table, UNSIGNED.get(name, {}) | row))
            for row in map(dict, rows)
        ]
        for name, rows in proof.rows.items()
    }
    samples: dict[str, list[Sample]] = {}
    for row, stored in zip(tables["sample"], proof.rows["sample"], strict=True):
        samples.setdefault(row.run, []).append(_sample(row, stored))
    changes = sorted(tables["route_version"], key=lambda row: int(row.version))
    approvals = [proposals.approval_from_row(row) for row in tables["approval"]]
    return ProvenRows(
        proposal=proposals.proposal_from_row(_only(tables["proposal"], "proposal")),
        verdict=proposals.verdict_from_row(_only(tables["verdict"], "verdict")),
        runs={row.id: evals.run_from_row(row) for row in tables["eval_run"]},
        samples={
            run: tuple(sorted(answers, key=lambda one: (one.position, one.epoch, one.item)))
            for run, answers in samples.items()
        },
        suites={row.digest: evals.suite_from_row(row) for row in tables["suite"]},
        targets={row.id: evals.target_from_row(row) for row in tables["target"]},
        approvals=tuple(sorted(approvals, key=lambda one: one.at)),
        changes=tuple(
            SwapChange(
                row.version,
                row.kind,
                row.incumbent,
                row.weight_bps,
                row.at,
                row.actor,
                row.reason,
            )
            for row in changes
        ),
        signed_by=split_signature(proof.signature)[0],
    )


def _only(rows: list[Row], name: str) -> Row:
    if len(rows) != 1:
        raise LookupError(f"a proof has one {name}, and this one has {len(rows)}")
    return rows[0]


def _sample(row: Row, stored: StoredValues) -> Sample:
    """A sample without its text: whether there was one is told by the text's digest."""
    has_text = stored.get("answer_sha256") not in (None, NO_TEXT)
    values: dict[str, Any] = {"answer": "…" if has_text else "", "prompt": ""}
    return replace(evals.sample_from_row(row), **values)
