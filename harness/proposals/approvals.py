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
    """Stores the actor's approval of the present verdict. Raises as `check_four_eyes`.

    The approval keeps the widened rules and the change request that the person saw.

    kind: the act that it allows, a canary or a promotion before the last step's evidence.
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
    Approvals(tx).add(made)
    return made


def find_revocation(tx: Transaction, proposal: Proposal) -> str:
    """Explains why a stored approval no longer counts; empty if it counts.

    An approval ends with its key, and with a declaration that approver and proposer are one
    person. The driver asks on each turn while a passed proposal waits for its canary.
    """
    for approval in Approvals(tx).for_proposal(proposal.id):
        key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
        if key is not None and key.revoked_at is not None:
            return (
                f"the key with which {approval.name} approved it has since been revoked: "
                "propose again"
            )
        people = PersonLinks(tx).people()
        whose = proposal.proposer_principal
        one = people.person(approval.principal) == people.person(whose)
        if one and not proposal.self_approval:
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
        found = Proposals(tx).get(proposal)
        return [
            ApprovalView(
                **{field.name: getattr(approval, field.name) for field in fields(Approval)},
                remarks=tuple(list_key_remarks(tx, found, approval)),
            )
            for approval in Approvals(tx).for_proposal(proposal)
        ]


def list_key_remarks(
    tx: Transaction,
    proposal: Proposal,
    approval: Approval,
) -> Sequence[str]:
    """Lists remarks about the keys and people behind an approval, as sentences for people.

    No remark refuses the approval. Each one tells that the four eyes may be fewer: a key that
    is less than `NEW_FOR` old, a service instead of a person, or a key that the other person
    created.
    """
    found = []
    key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
    if key is not None and approval.at - key.created_at < NEW_FOR:
        age = _age(approval.at, key.created_at)
        by = _creator(tx, key)
        found.append(f"approved with a key created {age} before by {by}")
    person = Principals(tx).among([approval.principal]).get(approval.principal)
    if person is not None and person.kind is PrincipalKind.SERVICE:
        found.append(
            f"approved by {person.name}, which is a service: anybody with its key could do that"
        )
    if (
        approval.key is None
        and person is not None
        and person.issuer is not None
        and approval.at - person.created_at < NEW_FOR
    ):
        age = _age(approval.at, person.created_at)
        found.append(f"approved by {person.name}, who first signed in {age} before")
    key_creators = KeyCreators(tx)
    link = key_creators.people.link(proposal.proposer_principal)
    if link is not None and approval.principal in load_declarers(tx, link):
        found.append(
            f"{approval.name}, who approved it, declared the identity of {proposal.proposer}"
        )
    found += [
        f"{person_name(tx, hand)} took part in creating the proposer's and the approver's keys"
        for hand in key_creators.creators_of_both(proposal.proposer_key, approval.key)
    ]
    used = (
        ApiKeys(tx).find(proposal.proposer_key) if proposal.proposer_key is not None else None
    )
    if used is not None and approval.principal in load_key_creators(tx, used.id):
        age = _age(proposal.created_at, used.created_at)
        found.append(
            f"proposed with a key created {age} before by {_creator(tx, used)}, and "
            f"{approval.name}, who approved it, took part in creating that key"
        )
    return found


def _creator(tx: Transaction, key: ApiKey) -> str:
    return person_name(tx, key.created_by or "")


def _age(at: datetime, created_at: datetime) -> str:
    """Writes a duration in its largest whole unit, such as `3 days`."""
    seconds = max(0, round((at - created_at).total_seconds()))
    for unit, size in (
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ):
        if seconds >= size:
            many = seconds // size
            return f"{many} {unit}{'s' if many != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
