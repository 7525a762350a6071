"""Exports a proof, verifies it with public keys only (without database, secret or
configuration), and describes its content.

`harness.app.store.proof_rows` checks the signatures, and the gate's own code computes the
verdict again. This module checks that the rows belong to one swap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.app.store.proof_rows import ProvenRows, build_proven, find_faults, read_proof
from harness.frame.errors import Conflict, InputError, StaleEvidence
from harness.frame.formatting import format_bps, format_quantity
from harness.frame.signing.ed25519 import Ed25519Signatures
from harness.frame.signing.keyring import parse_keyring
from harness.gate.run import Sample
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Passed
from harness.operations.context import Context
from harness.proposals import evaluation
from harness.proposals.labels.label_progress import LabellingState
from harness.proposals.recomputation import recompute_verdict
from harness.proposals.report.comparison import find_no_way_back
from harness.proposals.scheduled_runs import find_mean_differences
from harness.providers.target import Target
from harness.routing.evidence import (
    Proof,
    SwapChange,
    parse_proof,
)
from harness.routing.proposal import ProposalPhase, has_registered_plans
from harness.routing.records.proposals import Proposals, Rollouts

LIMITS: Final = (
    "Not shown: that the named provider gave the answers, what callers saw in the canary (its "
    "observations are not signed), and that the installation's clock was right."
)


@dataclass(frozen=True, slots=True)
class ProofFindings:
    """The facts that a proof shows, in sentences. faults: empty for a valid proof."""

    shown: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.faults


def export_proof(ctx: Context, proposal_id: str) -> Proof:
    """Reads and signs the rows that prove a proposal's verdict. Raises NotFound; Conflict
    without a verdict.
    """
    with ctx.store.read() as tx:
        proposal = Proposals(tx).get(proposal_id)
        if proposal.verdict is None:
            raise Conflict(f"{proposal.id} has no verdict yet, so there is nothing to prove")
        if proposal.phase is ProposalPhase.EVALUATING:
            raise Conflict(
                f"{proposal.id} is being measured again: export its proof after the "
                f"verdict; `swapproof proposal show {proposal.id} --watch` shows it"
            )
        return read_proof(tx, proposal, ctx.clock.now())


def find_missing_way_back(ctx: Context, proposal_id: str) -> str:
    """Describes that a way back was missing when a proposal was promoted; empty if it
    was not. A proof does not show this, because only the audit log has it. Raises
    NotFound.
    """
    with ctx.store.read() as tx:
        rollout = Proposals(tx).get(proposal_id).rollout
        return find_no_way_back(tx, Rollouts(tx).get(rollout)) if rollout else ""


def check_proof(rows: ProvenRows) -> ProofFindings:
    """Checks that the rows form one swap. The caller has verified their signatures. A proof
    with a fault shows no facts.
    """
    faults = [
        *_find_wrong_ids(rows),
        *_find_plan_faults(rows),
        *_find_verdict_faults(rows),
        *_find_change_faults(rows),
    ]
    return ProofFindings(() if faults else tuple(_describe_facts(rows)), tuple(faults))


def _find_wrong_ids(rows: ProvenRows) -> Iterator[str]:
    """Yields each target or suite whose id is not the hash of its content."""
    for name, target in rows.targets.items():
        if target.id != name:
            yield f"the content of target {name} does not match its id"
    for digest, suite in rows.suites.items():
        if suite.digest != digest:
            yield f"the content of suite {suite.name} does not match its digest"


def _find_plan_faults(rows: ProvenRows) -> Iterator[str]:
    """Yields a fault for each run that does not match the plan that was registered before the
    run.
    """
    proposal = rows.proposal
    try:
        evaluation.check_arms(proposal, rows.runs)
    except (StaleEvidence, KeyError) as error:
        yield str(error)
    for plan in proposal.plans:
        if plan.suite_digest not in rows.suites:
            yield f"the pins of suite {plan.suite} are missing"
        run = proposal.runs[plan.suite].candidate
        if not has_registered_plans(proposal, run):
            yield (
                f"suite {plan.suite}: the id of the candidate's run {run} does not match "
                "these plans, so they may be newer than its answers"
            )
    for name in (proposal.incumbent, proposal.candidate):
        if name not in rows.targets:
            yield f"target {name} is missing"


def _find_verdict_faults(rows: ProvenRows) -> Iterator[str]:
    """Yields each difference between the verdict and the verdict recomputed from the scores."""
    proposal = rows.proposal
    if proposal.verdict != rows.verdict.id:
        yield f"the verdict {rows.verdict.id} is not the verdict of {proposal.id}"
    samples = {
        plan.suite: (
            _select_planned_samples(
                rows, proposal.runs[plan.suite].incumbent, plan.planned_items
            ),
            _select_planned_samples(
                rows, proposal.runs[plan.suite].candidate, plan.planned_items
            ),
        )
        for plan in proposal.plans
    }
    yield from recompute_verdict(rows.verdict, proposal, samples, rows.labellings).differences
    yield from find_mean_differences(proposal, rows.runs, rows.samples)


def _select_planned_samples(
    rows: ProvenRows,
    run: str,
    items: int,
) -> list[Sample]:
    """Returns the samples of a run's planned items. A run may have samples of further items."""
    return [sample for sample in rows.samples.get(run, ()) if sample.position < items]


def _find_change_faults(rows: ProvenRows) -> Iterator[str]:
    """Yields each approval and each route change that does not belong to this swap."""
    proposal = rows.proposal
    for approval in rows.approvals:
        if approval.verdict not in (None, rows.verdict.id):
            yield f"{approval.name} approved another verdict, {approval.verdict}"
        if approval.principal == proposal.proposer_principal and not proposal.self_approval:
            yield f"{approval.name} proposed the swap and approved it"
    if rows.changes and not isinstance(rows.verdict, Passed):
        yield "the route was changed for a candidate that did not pass"
    for change in rows.changes:
        if change.kind == "promotion" and change.incumbent != proposal.candidate:
            yield f"version {change.version} promotes another target, {change.incumbent}"


def _describe_facts(rows: ProvenRows) -> Iterator[str]:
    """Yields the facts of a valid proof, from the proposal to the last route change."""
    proposal = rows.proposal
    verdict = rows.verdict
    arms = [
        _name_target(rows.targets.get(name))
        for name in (proposal.incumbent, proposal.candidate)
    ]
    yield (
        f"{proposal.proposer} proposed on {proposal.created_at:%Y-%m-%d %H:%M} UTC to replace "
        f"{arms[0]} by {arms[1]} on route {proposal.route}: {proposal.id}, claim "
        f"{proposal.claim.value}."
    )
    for plan in proposal.plans:
        yield _describe_registration(rows, plan)
    pairs = sum(report.items_used for report in verdict.suites)
    yield (
        f"The verdict is {verdict.words}. It follows from {format_quantity(pairs, 'pair')} of "
        "signed scores, recomputed here without the database."
    )
    if proposal.same_model is not None:
        yield f"{proposal.same_model.text}."
    for suite, state in sorted(rows.labellings.items()):
        yield _describe_labelling(suite, state)
    for approval in rows.approvals:
        yield (
            f"{approval.name} approved this verdict on {approval.at:%Y-%m-%d %H:%M} UTC"
            f"{_format_reason(approval.reason)}."
        )
    for change in rows.changes:
        yield _describe_change(change, arms)
    if not rows.changes:
        yield "No route change followed this verdict."
    yield f"The control key {rows.signed_by} signed the file: no row was added or removed."
    yield LIMITS


def _describe_registration(rows: ProvenRows, plan: SuitePlan) -> str:
    """Describes a suite's registered terms, and the signers of its answers."""
    terms = (
        f"role {plan.role.value}, margin {plan.margin:g}, alpha {plan.alpha:g}, "
        f"at most {plan.planned_items} items"
    )
    run = rows.proposal.runs[plan.suite].candidate
    answers = len(rows.samples.get(run, ()))
    worker_signed = rows.by_worker.get(run, 0)
    if not answers:
        return f"Suite {plan.suite} ({terms}) was not measured before the verdict."
    signers = (
        (worker_signed, "an eval worker signed"),
        (
            answers - worker_signed,
            "the control plane signed, because it copied them",
        ),
    )
    signed_answers = " and ".join(
        f"{format_quantity(n, 'answer')} that {signer}" for n, signer in signers if n
    )
    days = rows.proposal.runs[plan.suite].days
    return (
        f"Suite {plan.suite} was registered before the candidate's first answer: {terms}. "
        f"The candidate's run contains {signed_answers}; the run's id is a hash of these terms."
        + (f" {days.text}" if days else "")
    )


def _describe_labelling(suite: str, state: LabellingState) -> str:
    labels = format_quantity(len(state.given), "signed label")
    people = format_quantity(len({person for _, person in state.given}), "person", "people")
    return (
        f"Suite {suite}: {labels} by {people} of {len(state.labelling.people)} named at the "
        f"start of the labelling on {state.labelling.created_at:%Y-%m-%d %H:%M} UTC. Each pair "
        "was drawn by its seed, with a plan that only earlier labels decided."
    )


def _describe_change(change: SwapChange, arms: list[str]) -> str:
    event = {
        "canary": f"the canary opened at {format_bps(change.weight_bps)}",
        "weight": f"the canary went to {format_bps(change.weight_bps)}",
        "promotion": f"{arms[1]} became the incumbent",
        "abort": "the canary ended",
        "restore": "the route went back to a former incumbent",
        "break_glass": "from this version on, the route served a model without proof",
    }.get(change.kind, f"the route changed ({change.kind})")
    return (
        f"Version {change.version}, {change.at:%Y-%m-%d %H:%M} UTC, by {change.actor}: {event}"
        f"{_format_reason(change.reason)}."
    )


def _format_reason(reason: str) -> str:
    return f": {reason.rstrip('.')}" if reason else ""


def _name_target(target: Target | None) -> str:
    return f"{target.provider}/{target.model}" if target else "a missing target"


def verify_proof(file: Path, key: Path) -> ProofFindings:
    """Verifies a proof.

    Args:
        key: a keyring such as `signing.pub`.

    Raises InputError for a malformed proof, ConfigError for a malformed keyring.
    """
    keyring = parse_keyring(_read_text(key), str(key))
    try:
        proof = parse_proof(_read_text(file))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    try:
        faults = find_faults(proof, Ed25519Signatures(lambda: keyring))
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"{file}: its rows do not form a proof: {error}") from None
    if faults:
        return ProofFindings((), tuple(faults))
    try:
        return check_proof(build_proven(proof, keyring))
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        return ProofFindings((), (f"the file's rows belong to more than one swap: {error}",))


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
