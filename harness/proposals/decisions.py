"""People's decisions: to approve a proposal for its canary, to reject it, to cancel it, or to
retry its provider.

Each decision checks the actor's role, and writes an audit event in its transaction. An approval
also needs another person than the proposer (`harness.frame.people.four_eyes`). No decision
opens a canary itself: `harness.proposals.driver` does so on the next turn of the reconcile
loop. `review` shows an approver the facts, `approvals` stores approvals.
"""

from dataclasses import asdict, replace
from typing import Final

from harness.evals import proof_validity
from harness.frame.errors import (
    Conflict,
    IllegalTransition,
    InputError,
    ProofRefused,
    StaleWrite,
)
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.policy import (
    CostAcceptance,
    SameModelConfirmation,
    parse_change_reference,
)
from harness.proposals import eval_queue, evaluation
from harness.proposals.approvals import list_key_remarks, record_approval
from harness.proposals.candidates import cost_ratio
from harness.proposals.context import ProposalsContext
from harness.routing.proposal import (
    REFUSED_BY,
    ApprovalKind,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
    next_phase,
)
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts

ACCEPT_AT_APPROVAL: Final = (
    "Accept it with the approval (`--accept-cost {} --reason …`), or reject the proposal"
)


def approve_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
    *,
    expected_verdict: str | None = None,
    change_reference: str = "",
    accept_cost: float | None = None,
) -> Proposal:
    """Approves a passed proposal for its canary, bound to the verdict that the approver saw.
    Needs an approver other than the proposer.

    Args:
        expected_verdict: id of that verdict; None takes the stored verdict.
        change_reference: the change request, if the proposal names none.
        accept_cost: the accepted cost as a multiple of the incumbent's; the approval's reason
            applies to it, too.

    Raises InputError if the policy requires a change request and none is named, or if the
    canary would end for a cost that no approver accepted. Raises NotAllowed for the proposer
    (unless the policy allows `self_approval` and nothing is widened). Raises StaleWrite if the
    verdict has changed, ProofRefused if the verdict or the time to approve has expired, and
    IllegalTransition if the proposal does not wait for approval.
    """
    actor.require(Role.APPROVER)
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        current = Proposals(tx).get(proposal)
        four_eyes.check_four_eyes(tx, actor, current, "approve")
        next_phase(current.phase, ProposalEvent.APPROVED)
        if expected_verdict not in (None, current.verdict):
            raise StaleWrite(
                f"{current.id} has verdict {current.verdict}, not {expected_verdict}: review "
                "it again"
            )
        if current.approver is not None:
            raise Conflict(f"{current.id} is approved already, by {current.approver}")
        if current.approval_ends_at <= now:
            raise ProofRefused(
                f"{current.id} has waited too long for an approval: propose again"
            )
        proof_validity.require_proof(ctx, tx, Verdicts(tx).get(current.verdict or ""))
        saved = Proposals(tx).save(
            # The reconciler opens the canary, in one transaction with the routing table.
            replace(
                current,
                approver=actor.name,
                approved_verdict=current.verdict,
                updated_at=now,
                change_reference=_resolve_change_reference(current, change_reference),
                accepted_cost=_resolve_accepted_cost(
                    ctx, tx, actor, current, accept_cost, reason
                ),
            )
        )
        approval = record_approval(ctx, tx, actor, saved, ApprovalKind.CANARY, reason)
        details: dict[str, object] = {
            "verdict": current.verdict,
            "reason": reason,
            "widened": dict(current.widened),
        }
        if callers := saved.policy.canary.never_measured:
            details["never_measured"] = callers
        if saved.change_reference:
            details["change"] = saved.change_reference
        if saved.accepted_cost:
            details["accepted_cost"] = asdict(saved.accepted_cost)
        remarks = list_key_remarks(tx, saved, approval)
        if remarks:
            details["remarks"] = [*remarks]
        AuditLog(tx).append(actor, "proposal.approve", f"proposal {saved.id}", details)
    return saved


def _resolve_accepted_cost(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    ratio: float | None,
    reason: str,
) -> CostAcceptance | None:
    """Returns the accepted cost of an approval, and refuses a cost that would end the canary.

    Args:
        ratio: the cost that the approver accepts, in costs of the incumbent; None keeps the
            acceptance that was registered with the proposal. Raises Conflict for a second
            acceptance, and InputError if the canary would still end for its cost.
    """
    accepted = proposal.accepted_cost
    if ratio is not None:
        if accepted is not None:
            raise Conflict(f"{accepted.text}. An accepted cost cannot change: omit the cost")
        accepted = cost_ratio.accept_cost(actor, ratio, reason)
    cost = cost_ratio.load_ratio(ctx, tx, replace(proposal, accepted_cost=accepted))
    cost.require_acceptance(ACCEPT_AT_APPROVAL)
    return accepted


def _resolve_change_reference(proposal: Proposal, stated: str) -> str:
    """Returns the reference of the change request, from the approval or from the proposal.

    Raises Conflict if both differ, and InputError if the policy requires one and both are
    missing.
    """
    reference = parse_change_reference(stated) or proposal.change_reference
    if proposal.change_reference not in ("", reference):
        raise Conflict(
            f"{proposal.id} was proposed under change {proposal.change_reference}, not "
            f"{reference}: omit the reference, or cancel the proposal and propose again"
        )
    if proposal.needs_change_reference and not reference:
        raise InputError(
            f"the policy {proposal.policy.name!r} requires a change request, and {proposal.id} "
            "names none: give its reference (`swapproof proposal approve … --change "
            "CHG0012345`)"
        )
    return reference


def refuse_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str,
) -> Proposal:
    """Ends a proposal that waits for approval, with a reason for its proposer. Raises
    IllegalTransition in any other phase.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a refusal")
    return _end_proposal(
        ctx,
        actor,
        proposal,
        ProposalEvent.REFUSED,
        f"{REFUSED_BY}{actor.name}: {reason}",
    )


def cancel_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
) -> Proposal:
    """Cancels an open proposal before its canary. With a canary: `canary abort`.

    Raises NotAllowed for another person's proposal, unless the actor may refuse it.
    """
    with ctx.store.read() as tx:
        _require_proposer_or_approver(actor, Proposals(tx).get(proposal))
    because = f"cancelled by {actor.name}" + (f": {reason}" if reason else "")
    return _end_proposal(ctx, actor, proposal, ProposalEvent.CANCELLED, because)


def retry_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
) -> Proposal:
    """Retries a proposal's provider at once; the time limit of the wait restarts.

    Raises IllegalTransition if it waits for no provider, and NotAllowed for another person's
    proposal, unless the actor may refuse it.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        current = Proposals(tx).get(proposal)
        _require_proposer_or_approver(actor, current)
        runs = evaluation.load_runs(tx, current)
        waiting = [run for run in runs.values() if run.waits_since is not None]
        if not current.open or not (waiting or current.retry_at):
            raise IllegalTransition(
                f"{current.id} {current.predicate} and waits for no provider: nothing to retry"
            )
        for run in waiting:
            EvalRuns(tx).ask_again(run.id, now)
        retry_at = now if current.retry_at else None
        restarted = replace(
            current,
            retry_at=retry_at,
            infra_errors=0,
            updated_at=now,
        )
        saved = Proposals(tx).save(restarted)
        details = {"reason": reason, "route": current.route}
        AuditLog(tx).append(actor, "proposal.retry", f"proposal {saved.id}", details)
    return saved


def confirm_same_model(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str,
) -> Proposal:
    """Confirms that one model may serve both sides of a proposal, for example for a new key or
    deployment. The stored scores then decide the verdict. Needs an approver.

    Raises InputError without a reason, Conflict for a second confirmation, and
    IllegalTransition once the proposal has passed or ended.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a confirmation")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        current = Proposals(tx).get(proposal)
        if current.phase not in (
            ProposalPhase.PROPOSED,
            ProposalPhase.EVALUATING,
        ):
            raise IllegalTransition(
                f"{current.id} {current.predicate}: the same model can be confirmed only "
                "before the verdict"
            )
        if current.same_model is not None:
            raise Conflict(f"{current.same_model.text}. A confirmation cannot change")
        confirmed = replace(
            current,
            same_model=SameModelConfirmation(reason.strip(), actor.name),
            retry_at=now if current.retry_at else None,
            updated_at=now,
        )
        saved = Proposals(tx).save(confirmed)
        details = {
            "reason": reason,
            "route": current.route,
            "verdict": current.verdict,
        }
        AuditLog(tx).append(
            actor,
            "proposal.confirm_same_model",
            f"proposal {saved.id}",
            details,
        )
    return saved


def _require_proposer_or_approver(actor: Actor, proposal: Proposal) -> None:
    """Requires that the actor is the proposer, or an approver. Raises NotAllowed."""
    actor.require(Role.PROPOSER)
    if proposal.proposer_principal != actor.principal:
        actor.require(Role.APPROVER)


def _end_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    event: ProposalEvent,
    reason: str,
) -> Proposal:
    """Ends a proposal before its canary, and stops the runs that no other proposal needs.

    Args:
        event: REFUSED or CANCELLED.

    Raises InputError for a proposal in its canary, because only `canary abort` also ends the
    candidate's traffic.
    """
    with ctx.store.write() as tx:
        return end_in_transaction(ctx, tx, actor, Proposals(tx).get(proposal), event, reason)


def end_in_transaction(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    current: Proposal,
    event: ProposalEvent,
    reason: str,
) -> Proposal:
    """Ends a proposal as `cancel_proposal` and `reject_proposal` do."""
    if current.phase is ProposalPhase.CANARY:
        raise InputError(
            f"{current.id} is in its canary: `swapproof canary abort {current.route} "
            "--reason …` ends it"
        )
    saved = Proposals(tx).save(apply_event(current, event, ctx.clock.now(), reason))
    eval_queue.stop_unneeded_runs(ctx, tx, saved)
    AuditLog(tx).append(
        actor,
        f"proposal.{event.value}",
        f"proposal {saved.id}",
        {"reason": reason},
    )
    return saved
