"""Stores approvals of proposals, checks that they still count, and shows remarks about them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, ApiKey, PrincipalKind
from harness.frame.people.four_eyes import (
    NEW_FOR,
    KeyCreators,
    load_declarers,
    load_key_creators,
    person_name,
)
from harness.frame.people.records import ApiKeys, PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.proposals.context import ProposalsContext
from harness.routing.proposal import Approval, ApprovalKind, Proposal
from harness.routing.records.proposals import Approvals, Proposals


def record_approval(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    kind: ApprovalKind,
    reason: str,
) -> Approval:
    """Stores the actor's approval of the present verdict. Raises the errors of
    `check_four_eyes`.

    The approval keeps the widened rules and the change request that the person saw.

    Args:
        kind: the allowed step: a canary, or a promotion before the last step's evidence.
    """
    action = "approve" if kind is ApprovalKind.CANARY else "promote"
    four_eyes.check_four_eyes(tx, actor, proposal, action)
    approval = Approval(
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
    Approvals(tx).add(approval)
    return approval


def find_revocation(tx: Transaction, proposal: Proposal) -> str:
    """Explains why a stored approval no longer counts; empty if it counts.

    An approval ends if its key is revoked, and if an admin declares that approver and proposer
    are one person. The driver checks this on each turn while a passed proposal waits for its
    canary.
    """
    for approval in Approvals(tx).for_proposal(proposal.id):
        key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
        if key is not None and key.revoked_at is not None:
            return (
                f"the key with which {approval.name} approved it has since been revoked: "
                "propose again"
            )
        people = PersonLinks(tx).people()
        proposer = proposal.proposer_principal
        is_one_person = people.person(approval.principal) == people.person(proposer)
        if is_one_person and not proposal.self_approval:
            return (
                f"an admin has since declared {approval.name}, who approved it, and "
                f"{proposal.proposer}, who proposed it, to be one person: propose again"
            )
    return ""


@dataclass(frozen=True, slots=True)
class ApprovalView(Approval):
    """An approval as people see it, with remarks about the person's key."""

    remarks: tuple[str, ...] = ()  # facts about its keys that everybody should know


def list_approvals(ctx: ProposalsContext, proposal: str) -> Sequence[ApprovalView]:
    with ctx.store.read() as tx:
        stored_proposal = Proposals(tx).get(proposal)
        return [
            ApprovalView(
                **{field.name: getattr(approval, field.name) for field in fields(Approval)},
                remarks=tuple(list_key_remarks(tx, stored_proposal, approval)),
            )
            for approval in Approvals(tx).for_proposal(proposal)
        ]


def list_key_remarks(
    tx: Transaction,
    proposal: Proposal,
    approval: Approval,
) -> Sequence[str]:
    """Lists remarks about the keys and people behind an approval, as sentences for people.

    A remark does not invalidate the approval. It warns that one person may have acted twice:
    with a key younger than `NEW_FOR`, as a service, or with a key that the other person
    created.
    """
    remarks = []
    key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
    if key is not None and approval.at - key.created_at < NEW_FOR:
        age = _format_age(approval.at, key.created_at)
        creator = _creator_name(tx, key)
        remarks.append(f"approved with a key created {age} before by {creator}")
    person = Principals(tx).among([approval.principal]).get(approval.principal)
    if person is not None and person.kind is PrincipalKind.SERVICE:
        remarks.append(
            f"approved by {person.name}, which is a service: anybody with its key could do that"
        )
    if (
        approval.key is None
        and person is not None
        and person.issuer is not None
        and approval.at - person.created_at < NEW_FOR
    ):
        age = _format_age(approval.at, person.created_at)
        remarks.append(f"approved by {person.name}, who first signed in {age} before")
    key_creators = KeyCreators(tx)
    link = key_creators.people.link(proposal.proposer_principal)
    if link is not None and approval.principal in load_declarers(tx, link):
        remarks.append(
            f"{approval.name}, who approved it, declared the identity of {proposal.proposer}"
        )
    remarks += [
        f"{person_name(tx, creator_id)} took part in creating the proposer's and the "
        "approver's keys"
        for creator_id in key_creators.creators_of_both(proposal.proposer_key, approval.key)
    ]
    proposer_key = (
        ApiKeys(tx).find(proposal.proposer_key) if proposal.proposer_key is not None else None
    )
    if proposer_key is not None and approval.principal in load_key_creators(
        tx, proposer_key.id
    ):
        age = _format_age(proposal.created_at, proposer_key.created_at)
        remarks.append(
            f"proposed with a key created {age} before by {_creator_name(tx, proposer_key)}, "
            f"and {approval.name}, who approved it, took part in creating that key"
        )
    return remarks


def _creator_name(tx: Transaction, key: ApiKey) -> str:
    return person_name(tx, key.created_by or "")


def _format_age(at: datetime, created_at: datetime) -> str:
    """Writes a duration in its largest whole unit, such as `3 days`."""
    seconds = max(0, round((at - created_at).total_seconds()))
    for unit, size in (
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
