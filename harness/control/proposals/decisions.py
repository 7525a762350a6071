"""Lets people decide on proposals: approve a passed one for its canary, refuse it, or take one
back before its canary.
"""

from dataclasses import replace

from harness.control import audit
from harness.control.canary.observe_only import require_swaps
from harness.control.context import Context
from harness.control.evals import proof_validity, worker_supervision
from harness.control.proposals import approvals, four_eyes
from harness.domain.errors import (
    Conflict,
    InputError,
    ProofRefused,
    StaleWrite,
)
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.proposals.change_reference import parse_change_reference
from harness.domain.proposals.proposal import (
    REFUSED_BY,
    ApprovalKind,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
    next_phase,
)


def approve_proposal(
    ctx: Context,
    actor: Actor,
    proposal: str,
    reason: str = "",
    *,
    expected_verdict: str | None = None,
    change_reference: str = "",
) -> Proposal:
    """Let a passed proposal into its canary. Bound to the verdict that the approver saw.

    expected_verdict: that verdict's id; None takes the stored one. change_reference: of the
    change request, where the proposal names none. Raises InputError where the policy asks for
    one and nobody names it, NotAllowed for the
    proposer (unless the policy says `self_approval` and nothing is widened), StaleWrite when
    the verdict is another by now, ProofRefused when it or the time to approve has expired,
    IllegalTransition when nothing waits for approval, NotAllowed where the installation only
    observes.
    """
    actor.require(Role.APPROVER)
    require_swaps(ctx, f"{proposal} cannot be approved")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = tx.proposals.get(proposal)
        four_eyes.check_four_eyes(tx, actor, found, "approve")
        next_phase(found.phase, ProposalEvent.APPROVED)
        if expected_verdict not in (None, found.verdict):
            raise StaleWrite(
                f"{found.id} has verdict {found.verdict}, not {expected_verdict}: "
                "look at it again"
            )
        if found.approver is not None:
            raise Conflict(f"{found.id} is approved already, by {found.approver}")
        if found.approval_ends_at <= now:
            raise ProofRefused(f"{found.id} has waited too long for an approval: propose again")
        proof_validity.require_proof(ctx, tx, tx.verdicts.get(found.verdict or ""))
        saved = tx.proposals.save(
            # The reconciler opens the canary, in one transaction with the routing table.
            replace(
                found,
                approver=actor.name,
                approved_verdict=found.verdict,
                updated_at=now,
                change_reference=_name_change(found, change_reference),
            )
        )
        approval = approvals.record_approval(ctx, tx, actor, saved, ApprovalKind.CANARY, reason)
        details: dict[str, object] = {
            "verdict": found.verdict,
            "reason": reason,
            "widened": dict(found.widened),
        }
        if saved.change_reference:
            details["change"] = saved.change_reference
        remarks = four_eyes.list_key_remarks(tx, saved, approval)
        if remarks:
            details["remarks"] = [*remarks]
        audit.record(ctx, tx, actor, "proposal.approve", f"proposal {saved.id}", details)
    return saved


def _name_change(proposal: Proposal, given: str) -> str:
    """Says under which change request the proposal is approved. Raises InputError, Conflict for
    another one than it was proposed under.
    """
    reference = parse_change_reference(given) or proposal.change_reference
    if proposal.change_reference not in ("", reference):
        raise Conflict(
            f"{proposal.id} was proposed under change {proposal.change_reference}, not "
            f"{reference}: leave the reference out, or cancel it and propose it again"
        )
    if proposal.needs_change_reference and not reference:
        raise InputError(
            f"the policy {proposal.policy.name!r} asks for a change request, and {proposal.id} "
            "names none: give its reference (`swapgate proposal approve … --change CHG0012345`)"
        )
    return reference


def refuse_proposal(ctx: Context, actor: Actor, proposal: str, reason: str) -> Proposal:
    """End a proposal that waits for approval. Raises IllegalTransition elsewhere."""
    actor.require(Role.APPROVER)
    require_reason(reason, "a refusal")
    return _end_proposal(
        ctx, actor, proposal, ProposalEvent.REFUSED, f"{REFUSED_BY}{actor.name}: {reason}"
    )


def cancel_proposal(ctx: Context, actor: Actor, proposal: str, reason: str = "") -> Proposal:
    """Take an open proposal back before its canary. With a canary: `canary abort`.

    Raises NotAllowed for another's proposal, unless the actor may refuse it.
    """
    actor.require(Role.PROPOSER)
    with ctx.store.read() as tx:
        proposer = tx.proposals.get(proposal).proposer_principal
    if proposer != actor.principal:
        actor.require(Role.APPROVER)
    because = f"cancelled by {actor.name}" + (f": {reason}" if reason else "")
    return _end_proposal(ctx, actor, proposal, ProposalEvent.CANCELLED, because)


def _end_proposal(
    ctx: Context, actor: Actor, proposal: str, event: ProposalEvent, because: str
) -> Proposal:
    with ctx.store.write() as tx:
        found = tx.proposals.get(proposal)
        if found.phase is ProposalPhase.CANARY:
            raise InputError(
                f"{found.id} is in its canary: `swapgate canary abort {found.route} "
                "--reason …` ends it"
            )
        saved = tx.proposals.save(apply_event(found, event, ctx.clock.now(), because))
        worker_supervision.stop_unneeded_runs(ctx, tx, saved)
        audit.record(
            ctx,
            tx,
            actor,
            f"proposal.{event.value}",
            f"proposal {saved.id}",
            {"reason": because},
        )
    return saved
