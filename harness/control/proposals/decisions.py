"""Lets people decide on proposals: approve one for its canary, refuse it, or take it back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from harness.control.context import Context
from harness.control.evals import proof_validity, worker_supervision
from harness.control.proposals import cost_ratio, evaluation, four_eyes
from harness.control.routing import freezes
from harness.domain.errors import (
    Conflict,
    IllegalTransition,
    InputError,
    ProofRefused,
    StaleWrite,
)
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.proposals.policy import CostAcceptance, parse_change_reference
from harness.domain.proposals.proposal import (
    REFUSED_BY,
    Approval,
    ApprovalKind,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
    next_phase,
)
from harness.store.sql.audit import AuditLog
from harness.store.sql.evals import EvalRuns
from harness.store.sql.operations import ApiKeys, PersonLinks
from harness.store.sql.proposals import Approvals, Proposals, Verdicts
from harness.store.transaction import Transaction

ACCEPT_AT_APPROVAL: Final = (
    "Accept it with the approval (`--accept-cost {} --reason …`), or reject the proposal"
)


def approve_proposal(
    ctx: Context,
    actor: Actor,
    proposal: str,
    reason: str = "",
    *,
    expected_verdict: str | None = None,
    change_reference: str = "",
    accept_cost: float | None = None,
) -> Proposal:
    """Lets a passed proposal into its canary, bound to the verdict that the approver saw. Needs
    an approver; its proposer may not.

    expected_verdict: that verdict's id; None takes the stored one. change_reference: of the
    change request, where the proposal names none. accept_cost: how many times the incumbent's
    cost the approver accepts, for the reason of the approval. Raises InputError where the
    policy asks for a change request and none is named, and where the canary would end for a
    cost that no approver accepted; NotAllowed for the proposer (unless the policy says
    `self_approval` and nothing is widened), StaleWrite when the verdict is another by now,
    ProofRefused when it or the time to approve has expired, IllegalTransition when nothing
    waits for approval, NotAllowed where the installation only observes.
    """
    actor.require(Role.APPROVER)
    freezes.require_swaps(ctx, f"{proposal} cannot be approved")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
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
        proof_validity.require_proof(ctx, tx, Verdicts(tx).get(found.verdict or ""))
        saved = Proposals(tx).save(
            # The reconciler opens the canary, in one transaction with the routing table.
            replace(
                found,
                approver=actor.name,
                approved_verdict=found.verdict,
                updated_at=now,
                change_reference=_name_change(found, change_reference),
                accepted_cost=_accept_cost(ctx, tx, actor, found, accept_cost, reason),
            )
        )
        approval = record_approval(ctx, tx, actor, saved, ApprovalKind.CANARY, reason)
        details: dict[str, object] = {
            "verdict": found.verdict,
            "reason": reason,
            "widened": dict(found.widened),
        }
        if saved.change_reference:
            details["change"] = saved.change_reference
        if saved.accepted_cost:
            details["accepted_cost"] = asdict(saved.accepted_cost)
        remarks = four_eyes.list_key_remarks(tx, saved, approval)
        if remarks:
            details["remarks"] = [*remarks]
        AuditLog(tx).append(actor, "proposal.approve", f"proposal {saved.id}", details)
    return saved


def _accept_cost(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    ratio: float | None,
    reason: str,
) -> CostAcceptance | None:
    accepted = proposal.accepted_cost
    if ratio is not None:
        if accepted is not None:
            raise Conflict(f"{accepted.text}. That cannot change: leave the cost out")
        accepted = cost_ratio.accept_cost(actor, ratio, reason)
    cost = cost_ratio.load_ratio(ctx, tx, replace(proposal, accepted_cost=accepted))
    cost.require_acceptance(ACCEPT_AT_APPROVAL)
    return accepted


def _name_change(proposal: Proposal, given: str) -> str:
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
    """Ends a proposal that waits for approval, with a reason for its proposer. Raises
    IllegalTransition elsewhere.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a refusal")
    return _end_proposal(
        ctx, actor, proposal, ProposalEvent.REFUSED, f"{REFUSED_BY}{actor.name}: {reason}"
    )


def cancel_proposal(ctx: Context, actor: Actor, proposal: str, reason: str = "") -> Proposal:
    """Take an open proposal back before its canary. With a canary: `canary abort`.

    Raises NotAllowed for another's proposal, unless the actor may refuse it.
    """
    with ctx.store.read() as tx:
        _require_own(actor, Proposals(tx).get(proposal))
    because = f"cancelled by {actor.name}" + (f": {reason}" if reason else "")
    return _end_proposal(ctx, actor, proposal, ProposalEvent.CANCELLED, because)


def retry_proposal(ctx: Context, actor: Actor, proposal: str, reason: str = "") -> Proposal:
    """Asks at once a provider that a proposal waits for; its patience begins anew.

    Raises IllegalTransition where it waits for none, NotAllowed for another's proposal, unless
    the actor may refuse it.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        _require_own(actor, found)
        runs = evaluation.load_runs(tx, found)
        waiting = [run for run in runs.values() if run.waits_since is not None]
        if not found.open or not (waiting or found.retry_at):
            raise IllegalTransition(
                f"{found.id} {found.predicate} and waits for no provider: nothing to retry"
            )
        for run in waiting:
            EvalRuns(tx).ask_again(run.id, now)
        retry_at = now if found.retry_at else None
        again = replace(found, retry_at=retry_at, infra_errors=0, updated_at=now)
        saved = Proposals(tx).save(again)
        details = {"reason": reason, "route": found.route}
        AuditLog(tx).append(actor, "proposal.retry", f"proposal {saved.id}", details)
    return saved


def _require_own(actor: Actor, proposal: Proposal) -> None:
    actor.require(Role.PROPOSER)
    if proposal.proposer_principal != actor.principal:
        actor.require(Role.APPROVER)


def _end_proposal(
    ctx: Context, actor: Actor, proposal: str, event: ProposalEvent, because: str
) -> Proposal:
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        if found.phase is ProposalPhase.CANARY:
            raise InputError(
                f"{found.id} is in its canary: `swapgate canary abort {found.route} "
                "--reason …` ends it"
            )
        saved = Proposals(tx).save(apply_event(found, event, ctx.clock.now(), because))
        worker_supervision.stop_unneeded_runs(ctx, tx, saved)
        AuditLog(tx).append(
            actor, f"proposal.{event.value}", f"proposal {saved.id}", {"reason": because}
        )
    return saved


def record_approval(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    kind: ApprovalKind,
    reason: str,
) -> Approval:
    """Stores that the actor approves the present verdict. Raises as `check_four_eyes`."""
    act = "approve" if kind is ApprovalKind.CANARY else "promote"
    four_eyes.check_four_eyes(tx, actor, proposal, act)
    made = Approval(
        id=ctx.chance.token("a_"),
        proposal=proposal.id,
        verdict=proposal.verdict,
        kind=kind,
        principal=actor.principal,
        name=actor.name,
        key=actor.key,
        at=ctx.clock.now(),
        reason=reason,
        widened=dict(proposal.widened),
        change_reference=proposal.change_reference,
    )
    Approvals(tx).add(made)
    return made


def find_revocation(tx: Transaction, proposal: Proposal) -> str:
    """Says in words why an approval counts no more since it was given; empty where it does."""
    for approval in Approvals(tx).for_proposal(proposal.id):
        key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
        if key is not None and key.revoked_at is not None:
            return (
                f"the key with which {approval.name} approved it was revoked since: "
                "propose again"
            )
        people, whose = PersonLinks(tx).people(), proposal.proposer_principal
        one = people.person(approval.principal) == people.person(whose)
        if one and not proposal.self_approval:
            return (
                f"{approval.name}, who approved it, and {proposal.proposer}, who proposed it, "
                "were declared to be one person since: propose again"
            )
    return ""


@dataclass(frozen=True, slots=True)
class ApprovalView(Approval):
    remarks: tuple[str, ...] = ()  # what everybody should know of the keys behind it


def list_approvals(ctx: Context, proposal: str) -> Sequence[ApprovalView]:
    with ctx.store.read() as tx:
        found = Proposals(tx).get(proposal)
        return [
            ApprovalView(
                **{field.name: getattr(approval, field.name) for field in fields(Approval)},
                remarks=tuple(four_eyes.list_key_remarks(tx, found, approval)),
            )
            for approval in Approvals(tx).for_proposal(proposal)
        ]
