"""Drives a proposal after its passed verdict: the choice of the best of a selection, a notice,
an approval, the end of a freeze, and the canary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from harness.evals import proof_validity
from harness.evals.proof_validity import ProofState
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import ProofRefused
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout
from harness.gate.verdict import Passed, Verdict
from harness.gate.verdict_sentences import describe_reason
from harness.proposals import approvals, eval_queue, route_rules
from harness.proposals.candidates import cost_ratio, leaderboard
from harness.proposals.candidates.setbacks import (
    Setback,
    describe_setbacks,
    find_setbacks,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.driving.proposal_ends import (
    describe_base_change,
    describe_invalid_proof,
    describe_rule_differences,
    record_step,
    reject,
    reject_in_transaction,
)
from harness.providers.records import Targets
from harness.routing.candidate_schedule import OnBetter
from harness.routing.control import freezes
from harness.routing.proposal import (
    POLICY_APPROVER,
    Proposal,
    ProposalEvent,
    apply_event,
)
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts


class Canaries(Protocol):
    """Opens and drives the canaries of proposals. `harness.canary` implements it."""

    def open(
        self,
        ctx: ProposalsContext,
        tx: Transaction,
        proposal: Proposal,
        proof: Passed,
        event: ProposalEvent,
    ) -> Proposal:
        """Opens a proposal's canary: stores rollout, routing table and proposal, all or
        none.
        """
        ...

    def drive(self, ctx: ProposalsContext, before: Rollout) -> list[str]:
        """Drives a live canary or a bake by one turn. Returns log lines."""
        ...


def choose_best(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Lets the best member of a selection continue, and ends the other passed members, in one
    transaction, so that no other member can continue later. Changes nothing if this proposal is
    not the best.
    """
    proof, log_lines = _check_proof(ctx, proposal)
    if log_lines:
        return log_lines
    if not isinstance(proof, Passed):
        raise ProofRefused(f"{proposal.id}: verdict {proof.id} is {proof.outcome}, not passed")
    with ctx.store.write() as tx:
        if Proposals(tx).get(proposal.id).version != proposal.version:
            return []  # another process was faster
        members = Proposals(tx).of_selection(proposal.selection)
        if fault := leaderboard.find_fault(members):
            return reject(
                ctx,
                tx,
                proposal,
                ProposalEvent.STALE,
                f"{fault}: propose again",
            )
        ranked = leaderboard.rank_passed(tx, members)
        if not ranked or ranked[0].proposal.id != proposal.id:
            return []
        best = ranked[0]
        name = Targets(tx).all()[proposal.candidate].name
        for other in ranked[1:]:
            reason = f"it passed with {other.text}, but {name} passed with {best.text}"
            log_lines += reject(ctx, tx, other.proposal, ProposalEvent.NOT_CHOSEN, reason)
        continue_passed(ctx, canaries, tx, proposal, proof)
    return [*log_lines, f"{proposal.id}: the best of its selection"]


def continue_passed(
    ctx: ProposalsContext,
    canaries: Canaries,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
) -> None:
    """Moves a passed proposal to its next step: a notice, an approval, the end of a freeze, or
    a canary.
    """
    if proposal.on_better is OnBetter.NOTIFY:
        _announce_better(ctx, tx, proposal, proof)
        return
    cost = cost_ratio.load_ratio(ctx, tx, proposal)
    setbacks = _find_setbacks(ctx, tx, proposal)
    # No canary opens without a person for a model that was withdrawn from callers before.
    was_withdrawn = any(setback.served for setback in setbacks)
    if proposal.needs_approval or cost.ends_canary or was_withdrawn:
        now = ctx.clock.now()
        waiting = Proposals(tx).save(
            apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, now)
        )
        widening = "; ".join(route_rules.describe_second_person_reasons(proposal.widened))
        details = f" It differs from the route's rules: {widening}." if widening else ""
        details += f" {cost.text}"
        details += f" {describe_setbacks(setbacks)}." if setbacks else ""
        alerts.raise_alert(
            tx,
            AlertKind.AWAITING_APPROVAL,
            proposal.id,
            subject=f"route {proposal.route}",
            title=f"a swap on route {proposal.route} waits for approval ({proposal.id})",
            text=f"{proposal.proposer} proposed it. {proof.words}: {describe_reason(proof)}"
            f"{details} "
            f"It expires at {waiting.approval_ends_at:%Y-%m-%d %H:%M} UTC.",
        )
    elif freeze_reasons := freezes.list_refusals_of_step(ctx, tx, proposal.route):
        _wait_for_freeze_end(tx, proposal, proof, freeze_reasons[0])
    else:
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.PASSED)
    eval_queue.stop_unneeded_runs(ctx, tx, proposal)


def _find_setbacks(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> Sequence[Setback]:
    """Finds the setbacks of a schedule's candidate, including setbacks since the round
    began.
    """
    if proposal.on_better is None:
        return ()
    target = Targets(tx).all()[proposal.candidate]
    name = f"{target.provider}/{target.model}"
    return find_setbacks(tx, {name}, ctx.clock.now()).get(name, ())


def _announce_better(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
) -> None:
    """Announces the candidate, because the route's schedule leaves the proposal to a person.

    A pass of a fallback is no news: it renews the proof of a spare.
    """
    route = Routing(tx).route(proposal.route)
    if route is not None and proposal.candidate in route.fallbacks:
        reject(ctx, tx, proposal, ProposalEvent.NOT_CHOSEN, "it passed, as a spare")
        return
    name = Targets(tx).all()[proposal.candidate].name
    setbacks = describe_setbacks(_find_setbacks(ctx, tx, proposal))
    setback_text = f" {setbacks}." if setbacks else ""
    alerts.raise_alert(
        tx,
        AlertKind.BETTER_CANDIDATE,
        proposal.id,
        subject=f"route {proposal.route}",
        title=f"{name} passed on route {proposal.route}",
        text=f"{proof.words}: {describe_reason(proof)} "
        f"`swapproof proposal create {proposal.route} {name}` proposes it.{setback_text}",
    )
    reason = f"it passed on schedule; propose {name} to swap"
    reject(ctx, tx, proposal, ProposalEvent.NOT_CHOSEN, reason)


def _wait_for_freeze_end(
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
    freeze_reason: str,
) -> None:
    """Stores the policy's approval. The canary opens after the freeze."""
    event_applied = apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, tx.now())
    saved = Proposals(tx).save(
        replace(event_applied, approver=POLICY_APPROVER, approved_verdict=proof.id)
    )
    record_step(tx, saved, "proposal.frozen", {"verdict": proof.id, "reason": freeze_reason})


def open_or_expire(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Opens an approved canary unless a freeze stops it. Expires a proposal without an approval
    in time.
    """
    proof, log_lines = _check_proof(ctx, proposal)
    if log_lines:
        return log_lines
    if proposal.approver is not None:
        with ctx.store.read() as tx:
            if freezes.list_refusals_of_step(ctx, tx, proposal.route):
                return []
        return _open_approved(ctx, canaries, proposal, proof)
    if proposal.approval_ends_at <= ctx.clock.now():
        return reject_in_transaction(
            ctx,
            proposal,
            ProposalEvent.EXPIRED,
            "no person approved it in time",
        )
    return []


def _check_proof(ctx: ProposalsContext, proposal: Proposal) -> tuple[Verdict, list[str]]:
    """Returns the proposal's verdict, and log lines if the verdict is no longer valid."""
    with ctx.store.read() as tx:
        base_change = describe_base_change(tx, proposal)
        proof = Verdicts(tx).get(proposal.verdict or "")
        validity = proof_validity.assess_proof(ctx, tx, proof)
        rule_change = "" if base_change else describe_rule_differences(ctx, tx, proposal)
        rule_change = rule_change or approvals.find_revocation(tx, proposal)
    if base_change:
        return proof, reject_in_transaction(
            ctx, proposal, ProposalEvent.BASE_CHANGED, base_change
        )
    if not validity.holds:
        event = (
            ProposalEvent.STALE if validity.proof is ProofState.STALE else ProposalEvent.EXPIRED
        )
        return proof, reject_in_transaction(
            ctx, proposal, event, describe_invalid_proof(proof, validity)
        )
    if rule_change:
        return proof, reject_in_transaction(ctx, proposal, ProposalEvent.STALE, rule_change)
    return proof, []


def _open_approved(
    ctx: ProposalsContext,
    canaries: Canaries,
    proposal: Proposal,
    proof: Verdict,
) -> list[str]:
    """Opens the canary. Raises ProofRefused if the approval belongs to another verdict."""
    if not isinstance(proof, Passed) or proposal.approved_verdict != proof.id:
        raise ProofRefused(f"{proposal.id}: the approval is for another verdict")
    with ctx.store.write() as tx:
        if Proposals(tx).get(proposal.id).version != proposal.version:
            return []  # another process was faster
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.APPROVED)
    return [f"{proposal.id}: canary opened"]
