"""Reads the signed rows that prove a swap (`read_proof`), and verifies them without a database
(`find_faults`). `build_proven` builds domain objects from the verified rows.

Prompts and answers never leave the database: a proof contains only their digests. The
document's classes are in `harness.routing.evidence`; `harness.app.proof` writes and reads the
file.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, cast

import sqlalchemy as sa

from harness.app.store.tables import SIGNED
from harness.frame.errors import SignatureInvalid
from harness.frame.formatting import format_quantity
from harness.frame.plain_data import hash_content
from harness.frame.ports import Verifier
from harness.frame.records.columns import SIGNATURE, Row
from harness.frame.records.signed_tables import (
    RowVerifier,
    StoredRow,
    covered_values,
    named,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.keyring import (
    KeyPurpose,
    Keyring,
    row_payload,
    split_signature,
)
from harness.gate.run import EvalRun, RunState, Sample
from harness.gate.suite_plan import SuitePin
from harness.gate.verdict import Verdict
from harness.proposals.labels.label_progress import LabellingState
from harness.proposals.labels.records import (
    LABEL,
    LABEL_DRAW,
    LABELLING,
    Labellings,
    label,
    label_draw,
    labelling,
)
from harness.providers.records import TARGET, target
from harness.providers.target import Target
from harness.routing.evidence import (
    Proof,
    StoredValues,
    SwapChange,
)
from harness.routing.proposal import Approval, Proposal
from harness.routing.records.installation import Installations
from harness.routing.records.proposals import (
    APPROVAL,
    PROPOSAL,
    approval,
    rollout,
)
from harness.routing.records.runs import (
    EVAL_RUN,
    SAMPLE,
    SUITE,
    eval_run,
    sample,
    suite,
)
from harness.routing.records.verdicts import VERDICT, verdict
from harness.routing.records.versions import route_fallback, route_version

DOCUMENT: Final = "proof"  # replaces the table's name in the signature of a whole file
MAX_NAMED_ROWS: Final = 5  # the greatest number of rows to name for one reason
NO_TEXT: Final = hash_content("")
# Values for columns that the signatures do not cover, so that a proof does not contain them.
DEFAULT_VALUES: Final[dict[str, dict[str, object]]] = {
    eval_run.name: {
        "state": RunState.DONE.value,
        "wanted": 0,
        "failures": 0,
    }
}


@dataclass(frozen=True)
class ProvenRows:
    """The rows of a proof file after their signatures were verified."""

    proposal: Proposal
    verdict: Verdict
    runs: Mapping[str, EvalRun]
    samples: Mapping[str, tuple[Sample, ...]]  # by run, in order, without texts
    by_worker: Mapping[str, int]  # by run: the number of samples that eval workers signed
    suites: Mapping[str, SuitePin]
    targets: Mapping[str, Target]
    approvals: tuple[Approval, ...]
    changes: tuple[SwapChange, ...]  # oldest first
    signed_by: str  # id of the key that signed the file
    labellings: Mapping[str, LabellingState]  # by suite


def read_proof(
    tx: Transaction,
    proposal: Proposal,
    at: datetime,
) -> Proof:
    """Reads the rows that prove the proposal's verdict and canary, and signs the document."""
    runs = [
        run
        for pair in proposal.runs.values()
        for run in (pair.incumbent, pair.candidate, *(pair.days.runs if pair.days else ()))
    ]
    suites = [plan.suite_digest for plan in proposal.plans]
    conditions: dict[sa.Table, sa.ColumnElement[bool]] = {
        PROPOSAL.table: PROPOSAL.table.c.id == proposal.id,
        verdict: verdict.c.id == proposal.verdict,
        approval: approval.c.proposal == proposal.id,
        rollout: rollout.c.id == (proposal.rollout or ""),
        target: target.c.id.in_([proposal.incumbent, proposal.candidate]),
        suite: suite.c.digest.in_(suites),
        eval_run: eval_run.c.id.in_(runs),
        sample: sample.c.run.in_(runs),
    }
    labellings = [stored.id for stored in Labellings(tx).of_proposal(proposal.id)]
    if labellings:  # older proofs have no labels
        conditions |= {
            labelling: labelling.c.id.in_(labellings),
            label_draw: label_draw.c.labelling.in_(labellings),
            label: label.c.labelling.in_(labellings),
        }
    installation = Installations(tx).lineage().installation
    rows = {
        table.name: _read_signed_values(tx, table, where) for table, where in conditions.items()
    }
    rows[route_version.name] = _read_swap_versions(tx, proposal)
    versions = [int(row["version"]) for row in rows[route_version.name]]
    chains: dict[str, list[list[str]]] = {str(version): [] for version in versions}
    query = sa.select(route_fallback).where(
        route_fallback.c.route == proposal.route,
        route_fallback.c.version.in_(versions),
    )
    for row in tx.read(query.order_by(*route_fallback.primary_key.columns)):
        chains[str(row.version)].append([row.target, row.evidence])
    proof = Proof(installation, proposal.id, at.isoformat(), rows, chains)
    return replace(proof, signature=tx.signatures.sign_document(DOCUMENT, proof.content))


def _read_swap_versions(tx: Transaction, proposal: Proposal) -> list[dict[str, Any]]:
    """Reads the route's versions from the swap's first version until the next canary. They
    include an abort or rollback.
    """
    of_route = route_version.c.route == proposal.route
    of_swap = sa.or_(
        route_version.c.rollout == (proposal.rollout or ""),
        route_version.c.verdict_id == (proposal.verdict or ""),
    )
    first_version = sa.select(sa.func.min(route_version.c.version)).where(of_route, of_swap)
    is_of_period = sa.and_(of_route, route_version.c.version >= first_version.scalar_subquery())
    changes = sorted(
        _read_signed_values(tx, route_version, is_of_period),
        key=lambda row: int(row["version"]),
    )
    for index, row in enumerate(changes):
        if row["kind"] == "canary" and row.get("rollout") != proposal.rollout:
            return changes[:index]
    return changes


def _read_signed_values(
    tx: Transaction,
    table: sa.Table,
    where: sa.ColumnElement[bool],
) -> list[dict[str, Any]]:
    """Reads the rows' columns that the signatures cover, and the signatures, in the order of
    the key.
    """
    signed = SIGNED[table.name]
    query = sa.select(table).where(where).order_by(*table.primary_key.columns)
    stored_rows = (row._asdict() for row in tx.read(query))
    return [covered_values(signed, row) | {SIGNATURE: row[SIGNATURE]} for row in stored_rows]


def find_faults(proof: Proof, verifier: Verifier) -> list[str]:
    """Lists rows with invalid signatures by reason. A fault of the whole file comes last."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in _find_row_faults(
        proof, RowVerifier(verifier, lambda: proof.installation)
    ):
        by_reason.setdefault(reason, []).append(name)
    faults = [
        f"the row{'s' if len(names) > 1 else ''} {_join_names(names)}: {reason}"
        for reason, names in by_reason.items()
    ]
    try:
        payload = row_payload(DOCUMENT, proof.installation, proof.content)
        verifier.check(payload, proof.signature, KeyPurpose.CONTROL)
    except (SignatureInvalid, ValueError, TypeError) as error:
        faults.append(f"the file is not as it was exported: {error}")
    return faults


def _join_names(names: list[str]) -> str:
    """Joins at most `MAX_NAMED_ROWS` names, and says how many more there are."""
    suffix = (
        f" and {format_quantity(n, 'more row')}"
        if (n := len(names) - MAX_NAMED_ROWS) > 0
        else ""
    )
    return f"{', '.join(names[:MAX_NAMED_ROWS])}{suffix}"


def _find_row_faults(proof: Proof, rows: RowVerifier) -> Iterator[tuple[str, str]]:
    """Yields the name of each row that does not verify, and the reason."""
    for name, stored in proof.rows.items():
        signed = SIGNED.get(name)
        if signed is None:
            yield name, "this is not a signed table"
            continue
        for row in stored:
            further_values = {}
            if name == route_version.name:
                further_values["fallbacks"] = proof.chains.get(str(row.get("version")), [])
            if reason := rows.row_fault(
                signed, cast("Row", StoredRow(signed.table, row)), **further_values
            ):
                yield named(signed, row), f"the signature is invalid: {reason}"


def build_proven(proof: Proof, keyring: Keyring) -> ProvenRows:
    """Builds the proof's objects from its rows. Call it only if `find_faults` found no fault.

    Raises LookupError, ValueError or TypeError if the rows do not belong to one swap.
    """
    tables = {
        name: [
            cast(
                "Row",
                StoredRow(SIGNED[name].table, DEFAULT_VALUES.get(name, {}) | row),
            )
            for row in map(dict, rows)
        ]
        for name, rows in proof.rows.items()
    }
    proposal = PROPOSAL.read(_require_single(tables["proposal"], "proposal"))
    _require_same_swap(proposal, tables)
    samples: dict[str, list[Sample]] = {}
    worker_signed: Counter[str] = Counter()
    for row, stored in zip(tables["sample"], proof.rows["sample"], strict=True):
        samples.setdefault(row.run, []).append(_read_sample(row, stored))
        signer = keyring[split_signature(stored[SIGNATURE])[0]]
        worker_signed[row.run] += signer.purpose is KeyPurpose.WORKER
    approvals = [APPROVAL.read(row) for row in tables["approval"]]
    return ProvenRows(
        proposal=proposal,
        verdict=VERDICT.read(_require_single(tables["verdict"], "verdict")),
        runs={row.id: EVAL_RUN.read(row) for row in tables["eval_run"]},
        samples={
            run: tuple(
                sorted(
                    answers,
                    key=lambda one: (one.position, one.epoch, one.item),
                )
            )
            for run, answers in samples.items()
        },
        by_worker=worker_signed,
        suites={row.digest: SUITE.read(row) for row in tables["suite"]},
        targets={row.id: TARGET.read(row) for row in tables["target"]},
        approvals=tuple(sorted(approvals, key=lambda one: one.at)),
        changes=tuple(
            _build_change(row)
            for row in sorted(tables["route_version"], key=lambda row: int(row.version))
        ),
        signed_by=split_signature(proof.signature)[0],
        labellings=_build_labellings(tables),
    )


def _build_labellings(tables: Mapping[str, list[Row]]) -> Mapping[str, LabellingState]:
    """Builds the labellings by suite. Raises LookupError for a draw or label of another one."""
    labellings = [LABELLING.read(row) for row in tables.get(labelling.name, ())]
    draws = [LABEL_DRAW.read(row) for row in tables.get(label_draw.name, ())]
    labels = [LABEL.read(row) for row in tables.get(label.name, ())]
    known = {stored.id for stored in labellings}
    belongs = {draw.labelling for draw in draws} | {given.labelling for given in labels}
    if belongs - known:
        raise LookupError("a draw or a label belongs to another labelling")
    return {
        stored.suite: LabellingState(
            stored,
            sorted(
                (draw for draw in draws if draw.labelling == stored.id),
                key=attrgetter("number"),
            ),
            sorted(
                (given for given in labels if given.labelling == stored.id),
                key=attrgetter("number", "at", "id"),
            ),
        )
        for stored in labellings
    }


def _require_same_swap(proposal: Proposal, tables: Mapping[str, list[Row]]) -> None:
    """Raises LookupError for a row of another proposal or route. A signature proves that a row
    is genuine, but not that it belongs to this swap.
    """
    for name in ("verdict", "approval", "rollout", "labelling"):
        if any(row.proposal != proposal.id for row in tables.get(name, ())):
            raise LookupError(f"a row of {name} belongs to another proposal")
    for name in ("verdict", "rollout", "route_version"):
        if any(row.route != proposal.route for row in tables[name]):
            raise LookupError(f"a row of {name} belongs to another route")


def _build_change(row: Row) -> SwapChange:
    """Builds a route's change. A restore by a break-glass has its own kind."""
    kind = "break_glass" if row.kind == "restore" and row.break_glass else row.kind
    return SwapChange(
        row.version,
        kind,
        row.incumbent,
        row.weight_bps,
        row.at,
        row.actor,
        row.reason,
    )


def _require_single(rows: list[Row], name: str) -> Row:
    if len(rows) != 1:
        raise LookupError(f"a proof has one {name}, and this proof has {len(rows)}")
    return rows[0]


def _read_sample(row: Row, stored: StoredValues) -> Sample:
    """Builds a sample without its text. The text's digest shows whether there was a text."""
    has_text = stored.get("answer_sha256") not in (None, NO_TEXT)
    values: dict[str, Any] = {
        "answer": "…" if has_text else "",
        "prompt": "",
    }
    return replace(SAMPLE.read(row), **values)
