"""Records a person's approval of a verdict: the row that the database asks for before a canary
or an early promotion. `record_approval` requires four eyes; `find_revocation` says that an
approver's key was revoked since, or who he was declared to be; `list_approvals` shows them with
remarks on the keys behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from harness.control.context import Context
from harness.control.proposals import four_eyes
from harness.domain.operations.access import Actor
from harness.domain.proposals.proposal import Approval, ApprovalKind, Proposal
from harness.ports import Transaction


def record_approval(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    kind: ApprovalKind,
    reason: str,
) -> Approval:
    """Store that this person stands up for the verdict that the proposal rests on now.

    Raises NotAllowed as `four_eyes.check_four_eyes`.
    """
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
    tx.approvals.add(made)
    return made


def find_revocation(tx: Transaction, proposal: Proposal) -> str:
    """Says in words that the key of an approval was revoked after it was given, or that the
    approver was declared to be the proposer; empty otherwise.
    """
    for approval in tx.approvals.for_proposal(proposal.id):
        key = tx.keys.get(approval.key) if approval.key is not None else None
        if key is not None and key.revoked_at is not None:
            return (
                f"the key with which {approval.name} approved it was revoked since: "
                "propose again"
            )
        people, whose = tx.person_links.people(), proposal.proposer_principal
        one = people.person(approval.principal) == people.person(whose)
        if one and not proposal.self_approval:
            return (
                f"{approval.name}, who approved it, and {proposal.proposer}, who proposed it, "
                "were declared to be one person since: propose again"
            )
    return ""


@dataclass(frozen=True, slots=True)
class ApprovalView(Approval):
    """An approval as lists show it."""

    remarks: tuple[str, ...] = ()  # what everybody should know of the keys behind it


def list_approvals(ctx: Context, proposal: str) -> Sequence[ApprovalView]:
    """Lists the proposal's approvals, oldest first."""
    with ctx.store.read() as tx:
        found = tx.proposals.get(proposal)
        return [
            ApprovalView(
                **{field.name: getattr(approval, field.name) for field in fields(Approval)},
                remarks=tuple(four_eyes.list_key_remarks(tx, found, approval)),
            )
            for approval in tx.approvals.for_proposal(proposal)
        ]
