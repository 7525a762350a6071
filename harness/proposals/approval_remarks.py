"""Remarks on the keys of a proposer and an approver, for people who look at an approval."""

from collections.abc import Sequence
from datetime import datetime

from harness.frame.people.access import ApiKey
from harness.frame.people.four_eyes import (
    NEW_FOR,
    Hands,
    load_declarers,
    load_key_creators,
    person_name,
)
from harness.frame.people.principals import PrincipalKind
from harness.frame.people.records import ApiKeys, Principals
from harness.frame.records.transaction import Transaction
from harness.routing.proposal import Approval, Proposal


def list_key_remarks(tx: Transaction, proposal: Proposal, approval: Approval) -> Sequence[str]:
    found = []
    key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
    if key is not None and approval.at - key.created_at < NEW_FOR:
        age, by = _age(approval.at, key.created_at), _creator(tx, key)
        found.append(f"approved with a key created {age} before by {by}")
    person = Principals(tx).among([approval.principal]).get(approval.principal)
    if person is not None and person.kind is PrincipalKind.SERVICE:
        found.append(
            f"approved by {person.name}, which is a service: whoever has its key could do that"
        )
    if (
        approval.key is None
        and person is not None
        and person.issuer is not None
        and approval.at - person.created_at < NEW_FOR
    ):
        age = _age(approval.at, person.created_at)
        found.append(f"approved by {person.name}, who first signed in {age} before")
    hands = Hands(tx)
    link = hands.people.link(proposal.proposer_principal)
    if link is not None and approval.principal in load_declarers(tx, link):
        found.append(f"{approval.name}, who approved it, declared who {proposal.proposer} is")
    found += [
        f"{person_name(tx, hand)} had a hand in both keys, the proposer's and the approver's"
        for hand in hands.of_both(proposal.proposer_key, approval.key)
    ]
    used = (
        ApiKeys(tx).find(proposal.proposer_key) if proposal.proposer_key is not None else None
    )
    if used is not None and approval.principal in load_key_creators(tx, used.id):
        age = _age(proposal.created_at, used.created_at)
        found.append(
            f"proposed with a key created {age} before by {_creator(tx, used)}, and "
            f"{approval.name}, who approved it, had a hand in that key"
        )
    return found


def _creator(tx: Transaction, key: ApiKey) -> str:
    return person_name(tx, key.created_by or "")


def _age(at: datetime, created_at: datetime) -> str:
    seconds = max(0, round((at - created_at).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            many = seconds // size
            return f"{many} {unit}{'s' if many != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
