"""Recomputes a verdict from its stored samples before Swapgate relies on it (F1), and replays
it from its inputs (F5). Results are cached by the content of verdict, registration and samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import EvidenceMismatch, NotFound, SignatureInvalid, StaleEvidence
from harness.frame.plain_data import digest, hash_content
from harness.frame.records.transaction import Transaction
from harness.gate.offline import verdicts
from harness.gate.offline.replay import claims_from_json, verdict_bytes
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.run import Sample
from harness.gate.verdict import Verdict
from harness.proposals.evaluation import evaluation
from harness.proposals.evaluation.recomputed_verdict import (
    AgreementLevel,
    Recomputation,
    RunSamples,
    recompute_verdict,
    remeasure_claim,
)
from harness.routing.context import Context
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts

log = structlog.get_logger("swapgate.recomputation")

MAX_REMEMBERED: Final = 64


def recompute_stored(
    ctx: Context, tx: Transaction, verdict: Verdict, proposal: Proposal
) -> Recomputation:
    try:
        runs = {run: EvalRuns(tx).get(run) for run in sorted(evaluation.run_ids(proposal))}
        evaluation.check_arms(proposal, runs)
        samples = evaluation.load_answers(tx, proposal)
        key = _digest(verdict, proposal, samples)
    except (NotFound, SignatureInvalid, StaleEvidence, ValueError) as error:
        # ValueError: a forged figure that no genuine verdict has.
        return Recomputation(AgreementLevel.DIFFERS, (str(error),))
    recomputation = ctx.recomputed.get(key)
    if recomputation is None:
        recomputation = recompute_verdict(verdict, proposal, samples)
        while len(ctx.recomputed) >= MAX_REMEMBERED:
            ctx.recomputed.pop(next(iter(ctx.recomputed)))
        ctx.recomputed[key] = recomputation
    return recomputation


def require_agreement(
    ctx: Context, tx: Transaction, verdict: Verdict, proposal: Proposal
) -> None:
    recomputation = recompute_stored(ctx, tx, verdict, proposal)
    if not recomputation.agrees:
        raise EvidenceMismatch(proposal.id, verdict.id, recomputation.text)


def raise_mismatch_alert(tx: Transaction, proposal: Proposal, verdict: str, words: str) -> None:
    """Opens the alert that stored scores no longer give the verdict, once per verdict."""
    log.error("evidence_mismatch", proposal=proposal.id, verdict=verdict, differences=words)
    alerts.raise_alert(
        tx,
        AlertKind.EVIDENCE_MISMATCH,
        verdict,
        subject=f"route {proposal.route}",
        title=f"the stored scores no longer give the verdict of {proposal.id}",
        text=f"Verdict {verdict}: {words}. It does not prove anything any more.",
    )


@contextmanager
def alerting_mismatch(ctx: Context) -> Iterator[None]:
    """Alerts people if an EvidenceMismatch occurs in the block, a person's action.

    The block must contain the whole transaction, because the refusal rolls it back.
    """
    try:
        yield
    except EvidenceMismatch as error:
        with ctx.store.write() as tx:
            raise_mismatch_alert(
                tx, Proposals(tx).get(error.proposal), error.verdict, error.differences
            )
        raise


def _digest(verdict: Verdict, proposal: Proposal, samples: Mapping[str, RunSamples]) -> str:
    body = [
        hash_content(verdict_bytes(verdict)),
        verdict.decided_at.isoformat(),
        verdict.expires_at.isoformat(),
        proposal.id,
        [plan.as_json() for plan in proposal.plans],
        proposal.policy.gate.verdict_ttl_s,
        {suite: [_rows(side) for side in sides] for suite, sides in samples.items()},
    ]
    return digest(body)


def _rows(samples: Sequence[Sample]) -> list[list[object]]:
    return [
        [
            sample.run,
            sample.item,
            sample.epoch,
            sample.position,
            sample.strict,
            sample.lenient,
            sample.error,
            bool(sample.answer),
            sample.rule,
            sample.cost_usd,
            *sample.served.pair,
            *sample.judge.pair,
        ]
        for sample in samples
    ]


@dataclass(frozen=True, slots=True)
class ReplayedVerdict:
    stored: Verdict
    # stored_sha256, again_sha256: hashes of the whole verdict in canonical form.
    stored_sha256: str
    again_sha256: str
    items: Mapping[str, int]  # checked stored samples, by suite
    # Differences from the stored verdict, as text; empty if there are none.
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return not self.differences


def replay_verdict(ctx: Context, decision: str) -> ReplayedVerdict:
    """Decides a verdict again from its stored inputs, and compares these with the samples.
    decision: a verdict's id, or a proposal's for its newest verdict. Raises NotFound.
    """
    with ctx.store.read() as tx:
        stored = _verdict(tx, decision)
        cases = claims_from_json(stored.inputs)
        samples = {case.plan.suite: _samples(tx, case) for case in cases}
    differences: list[str] = []
    for case in cases:
        differences += remeasure_claim(case, samples[case.plan.suite])[1]
    before, after = verdict_bytes(stored), b""
    try:
        after = verdict_bytes(verdicts.replay_verdict(stored))
    except ValueError as error:
        differences.append(str(error))
    if after and after != before:
        differences.append(
            "the stored inputs give a verdict that differs from the stored verdict"
        )
    return ReplayedVerdict(
        stored=stored,
        stored_sha256=hash_content(before),
        again_sha256=hash_content(after),
        items={case.plan.suite: len(case.paired.items) for case in cases},
        differences=tuple(differences),
    )


def _verdict(tx: Transaction, decision: str) -> Verdict:
    if not decision.startswith("p_"):
        return Verdicts(tx).get(decision)
    verdict = Proposals(tx).get(decision).verdict
    if verdict is None:
        raise NotFound(f"proposal {decision} has no verdict yet: the gate is still open")
    return Verdicts(tx).get(verdict)


def _samples(tx: Transaction, case: SuiteClaim) -> RunSamples:
    def samples_of(run: str, items: int) -> Sequence[Sample]:
        return EvalRuns(tx).samples(run, below=items) if run else ()

    plan, paired = case.plan, case.paired
    return (
        samples_of(paired.incumbent_run, plan.planned_items),
        samples_of(paired.candidate_run, plan.planned_items),
    )
