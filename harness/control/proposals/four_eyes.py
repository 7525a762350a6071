"""Checks that two people stand behind a proposal. `check_four_eyes` refuses its proposer, as
whatever principal he acts, and keys that one of the two had a hand in making for the other,
directly or through keys made with keys, or a third person for both. A person of single sign-on
has no key: whoever declared who he is counts as who made it. `is_other_person` asks it of a
name in a route's history; `list_key_remarks` says what everybody should know of the keys
behind an approval.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from harness.domain.errors import NotAllowed
from harness.domain.operations.access import Actor, ApiKey
from harness.domain.operations.principals import (
    LOCAL_PRINCIPAL,
    People,
    PersonLink,
    Principal,
    PrincipalKind,
    fold_name,
    key_creators,
)
from harness.domain.proposals.proposal import Approval, Proposal
from harness.store.transaction import Transaction

NEW_FOR: Final = timedelta(days=7)
# Whoever set Swapgate up alone made all keys as the operator.
_OPERATORS_WAYS: Final[Mapping[str, str]] = {
    "approve": ". Or cancel it, let somebody propose it with their own key (`--key-file`), and "
    "approve it as the operator",
    "confirm": ". Or end it, let somebody ask for it with their own key (`--key-file`), and "
    "confirm it as the operator",
}


class TwoPersonRequest(Protocol):
    """What one person asks for and another one decides: a proposal, a break-glass."""

    @property
    def id(self) -> str: ...
    @property
    def proposer(self) -> str: ...
    @property
    def proposer_principal(self) -> str: ...
    @property
    def proposer_key(self) -> str | None: ...
    @property
    def self_approval(self) -> bool: ...


def check_four_eyes(
    tx: Transaction, actor: Actor, proposal: TwoPersonRequest, act: str
) -> None:
    """Checks that another principal than the proposer acts, with a key that the proposer had no
    hand in; else raises NotAllowed. A policy may say `self_approval`. act: a verb, `approve` or
    a canary's.
    """
    if proposal.self_approval:
        return
    whose = proposal.proposer_principal
    if actor.principal == whose or fold_name(actor.name) == fold_name(proposal.proposer):
        raise NotAllowed(
            f"{actor.name} proposed {proposal.id} and cannot {act} it: ask another approver, "
            "who does it with a key of their own (`--key-file`) or in the dashboard; a key "
            f"that {actor.name} creates counts as {actor.name}'s"
            + (_OPERATORS_WAYS.get(act, "") if whose == LOCAL_PRINCIPAL.id else "")
        )
    _check_declared(tx, actor, proposal, act)
    people = tx.person_links.people()
    proposer, approver = people.person(whose), people.person(actor.principal)
    if whose and actor.key is not None and proposer in _makers(tx, people, actor.key):
        raise NotAllowed(
            f"{proposal.proposer} proposed {proposal.id}, and the key {actor.key} goes back to "
            f"one that {proposal.proposer} created: it cannot {act} it. Ask an approver whose "
            "key somebody else created"
            + (_OPERATORS_WAYS.get(act, "") if whose == LOCAL_PRINCIPAL.id else "")
        )
    used = proposal.proposer_key
    # The machine's operator makes everybody's first key: there it is remarked upon, below.
    own_key = actor.principal != LOCAL_PRINCIPAL.id and used is not None
    if own_key and approver in _makers(tx, people, str(used)):
        raise NotAllowed(
            f"{proposal.id} was proposed with the key {used}, which {actor.name} had a hand "
            f"in: who made it cannot {act} what was proposed with it. Ask another approver"
        )
    for hand in sorted(_common(tx, people, used, actor.key)):
        own = (_has_own(tx, people, person, hand) for person in (proposer, approver))
        if whose and all(own):
            raise NotAllowed(
                f"{_person(tx, hand)} had a hand in both keys, the one that {proposal.id} was "
                f"proposed with and the one that would {act} it, and could be both people. "
                f"Both have keys that were made by others: {act} it with such a key"
            )


def _check_declared(
    tx: Transaction, actor: Actor, proposal: TwoPersonRequest, act: str
) -> None:
    """Checks that the two are not one person with two sign-ins, and that a third one said so
    where they could be.
    """
    whose, people = proposal.proposer_principal, tx.person_links.people()
    if not whose:
        return
    if people.person(actor.principal) == people.person(whose):
        raise NotAllowed(
            f"{actor.name} and {proposal.proposer}, who proposed {proposal.id}, were declared "
            f"to be one person, who cannot {act} it: ask another approver"
        )
    undeclared = _undeclared(tx, people, actor.principal, whose)
    if undeclared is not None:
        raise NotAllowed(
            f"nobody said yet who {undeclared.name}, of single sign-on, is here, and "
            f"{actor.name} and {proposal.proposer} could be one person. Before {actor.name} "
            f"can {act} {proposal.id}, an admin who is neither of them declares it: `swapgate "
            "person link`, or `swapgate person separate`"
        )
    for principal in (actor.principal, whose):
        declarer = _partial_declarer(tx, people, principal, actor.principal, whose)
        if declarer is not None:
            raise NotAllowed(
                f"{_person(tx, declarer)} had a hand in declaring who "
                f"{_person(tx, principal)} is, and so could be both: to {act} "
                f"{proposal.id}, ask another approver, or another "
                "admin to declare it"
            )


def _undeclared(tx: Transaction, people: People, one: str, other: str) -> Principal | None:
    """Finds who of the two signs in by single sign-on, was declared to be nobody, and could be
    the other, who signs in otherwise; None without. Whoever has a service's key acts as the
    service, so that the other may be one.
    """
    known = tx.principals.among([one, other])
    if len(known) < 2:
        return None
    if known[one].issuer == known[other].issuer:
        return None
    by_sign_on = [p for p in known.values() if p.issuer is not None]
    return next((p for p in by_sign_on if people.link(p.id) is None), None)


def _partial_declarer(
    tx: Transaction, people: People, principal: str, actor: str, proposer: str
) -> str | None:
    """Finds who of the two had a hand in the declaration of this principal; None without. The
    machine's operator may have, where he decides: there it is remarked upon.
    """
    link = people.link(principal)
    if link is None:
        return None
    hands = {people.person(hand) for hand in load_declarers(tx, link)}
    partial = hands & {people.person(actor), people.person(proposer)}
    if people.person(actor) == LOCAL_PRINCIPAL.id:
        partial.discard(LOCAL_PRINCIPAL.id)
    return min(partial, default=None)


def load_declarers(tx: Transaction, link: PersonLink) -> frozenset[str]:
    """Loads who declared it, and who had a hand in the key that he did it with."""
    made = frozenset[str]()
    if link.created_with is not None:
        made = load_key_creators(tx, link.created_with) - {LOCAL_PRINCIPAL.id}
    return made | {link.created_by}


def load_key_creators(tx: Transaction, key: str) -> frozenset[str]:
    """Loads who created the key, who created the key that it was created with, and so on."""
    return key_creators(key, _chain(tx, key))


def is_other_person(tx: Transaction, name: str, proposer: Actor) -> bool:
    """Whether whoever acted under this name is another person than the proposer, and holds no
    key that the proposer had a hand in.
    """
    if fold_name(name) == fold_name(proposer.name):
        return False
    known = tx.principals.named(name)
    if known is None:
        return True  # the control plane itself
    people = tx.person_links.people()
    if people.person(known.id) == people.person(proposer.principal):
        return False
    if _undeclared(tx, people, known.id, proposer.principal) is not None:
        return False
    return not any(
        people.person(proposer.principal) in _makers(tx, people, key.id)
        for key in tx.keys.of_principal(known.id)
    )


def list_key_remarks(tx: Transaction, proposal: Proposal, approval: Approval) -> Sequence[str]:
    """What everybody should know of the keys behind an approval, in words."""
    found = []
    key = tx.keys.find(approval.key) if approval.key is not None else None
    if key is not None and approval.at - key.created_at < NEW_FOR:
        age, by = _age(approval.at, key.created_at), _creator(tx, key)
        found.append(f"approved with a key created {age} before by {by}")
    person = tx.principals.among([approval.principal]).get(approval.principal)
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
    people = tx.person_links.people()
    link = people.link(proposal.proposer_principal)
    if link is not None and approval.principal in load_declarers(tx, link):
        found.append(f"{approval.name}, who approved it, declared who {proposal.proposer} is")
    found += [
        f"{_person(tx, hand)} had a hand in both keys, the proposer's and the approver's"
        for hand in sorted(_common(tx, people, proposal.proposer_key, approval.key))
    ]
    used = tx.keys.find(proposal.proposer_key) if proposal.proposer_key is not None else None
    if used is not None and approval.principal in load_key_creators(tx, used.id):
        age = _age(proposal.created_at, used.created_at)
        found.append(
            f"proposed with a key created {age} before by {_creator(tx, used)}, and "
            f"{approval.name}, who approved it, had a hand in that key"
        )
    return found


def _makers(tx: Transaction, people: People, key: str) -> frozenset[str]:
    """Who had a hand in a key, as people."""
    return frozenset(people.person(maker) for maker in load_key_creators(tx, key))


def _common(
    tx: Transaction, people: People, one: str | None, other: str | None
) -> frozenset[str]:
    """Who had a hand in both keys. The machine's operator, who makes the first ones, is left
    out.
    """
    if one is None or other is None:
        return frozenset()
    both = _makers(tx, people, one) & _makers(tx, people, other)
    return both - {LOCAL_PRINCIPAL.id}


def _has_own(tx: Transaction, people: People, person: str, hand: str) -> bool:
    """Whether this person has a key in which `hand` had none."""
    return any(
        key.revoked_at is None and hand not in _makers(tx, people, key.id)
        for principal in (person, *people.others(person))
        for key in tx.keys.of_principal(principal)
    )


def _chain(tx: Transaction, key: str) -> dict[str, ApiKey]:
    """The key, the one that it was created with, and so on."""
    chain: dict[str, ApiKey] = {}
    at: str | None = key
    while at is not None and at not in chain:
        api_key = tx.keys.find(at)
        if api_key is None:
            break
        chain[at], at = api_key, api_key.created_with
    return chain


def _creator(tx: Transaction, key: ApiKey) -> str:
    return _person(tx, key.created_by or "")


def _person(tx: Transaction, principal: str) -> str:
    known = tx.principals.among([principal]).get(principal)
    return known.name if known is not None else principal or "nobody known"


def _age(at: datetime, created_at: datetime) -> str:
    seconds = max(0, round((at - created_at).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            many = seconds // size
            return f"{many} {unit}{'s' if many != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
