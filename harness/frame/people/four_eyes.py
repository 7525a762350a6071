"""Checks the four-eyes rule: two people must propose and approve.

The approver must not be the proposer under another name, and neither of the two may have taken
part in creating the other's key. If a third person took part in creating both keys, this person
could act as both people until the first key is SEPARATE_AFTER old. A person who uses single
sign-on has no key. The principal who declared which person it is counts as the key's creator.
"""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

from harness.frame.errors import NotAllowed
from harness.frame.formatting import format_date_time
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    Actor,
    PersonLink,
    Principal,
    fold_name,
)
from harness.frame.people.records import ApiKeys, PersonLinks, Principals
from harness.frame.records.transaction import Transaction

NEW_FOR: Final = timedelta(days=7)
# Two keys that one person helped to create count as keys of two people after this time.
SEPARATE_AFTER: Final = timedelta(days=30)

# Advice for the operator who set Swapproof up alone, and so took part in creating all keys.
_OPERATOR_ADVICE: Final[Mapping[str, str]] = {
    "approve": ". Or cancel it, let somebody propose it with their own key (`--key-file`), and "
    "approve it as the operator",
    "confirm": ". Or end it, let somebody ask for it with their own key (`--key-file`), and "
    "confirm it as the operator",
}


class TwoPersonRequest(Protocol):
    """A request that a second person must decide: a proposal or a break-glass."""

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
    tx: Transaction,
    actor: Actor,
    proposal: TwoPersonRequest,
    act: str,
) -> None:
    """Raises NotAllowed if the actor is the proposer, has a key that the proposer took part in
    creating, or if one person took part in creating both people's keys. Checks nothing if the
    policy allows `self_approval`.

    Args:
        act: a verb for messages, such as `approve`.
    """
    if not proposal.self_approval:
        for refusal in _find_refusals(tx, actor, proposal, act):
            raise NotAllowed(refusal)


def _find_refusals(
    tx: Transaction,
    actor: Actor,
    proposal: TwoPersonRequest,
    act: str,
) -> Iterator[str]:
    proposer_principal = proposal.proposer_principal
    key_creators = KeyCreators(tx)
    advice = _OPERATOR_ADVICE.get(act, "") if proposer_principal == LOCAL_PRINCIPAL.id else ""
    if actor.principal == proposer_principal or fold_name(actor.name) == fold_name(
        proposal.proposer
    ):
        yield (
            f"{actor.name} proposed {proposal.id} and cannot {act} it: ask another approver, "
            "who does it with a key of their own (`--key-file`) or in the dashboard; a key "
            f"that {actor.name} creates counts as {actor.name}'s{advice}"
        )
    if proposer_principal:
        yield from _find_undeclared(key_creators, actor, proposal, act)
    proposer = key_creators.people.person(proposer_principal)
    approver = key_creators.people.person(actor.principal)
    if proposer_principal and proposer in key_creators.creators_of(actor.key):
        yield (
            f"{proposal.proposer} proposed {proposal.id} and took part in creating the key "
            f"{actor.key}, so this key cannot {act} {proposal.id}. Ask an approver whose key "
            f"another person created{advice}"
        )
    proposer_key = proposal.proposer_key
    # Allows the operator, because the operator creates the first keys. `list_key_remarks`
    # reports such cases.
    if actor.principal != LOCAL_PRINCIPAL.id and approver in key_creators.creators_of(
        proposer_key
    ):
        yield (
            f"{actor.name} took part in creating the key {proposer_key}, with which "
            f"{proposal.id} was proposed, and so cannot {act} {proposal.id}. Ask another "
            "approver"
        )
    for creator, separate_at in key_creators.creators_of_both(proposer_key, actor.key).items():
        name = person_name(tx, creator)
        if tx.now() < separate_at:
            yield (
                f"{name} took part in creating both keys within the last "
                f"{SEPARATE_AFTER.days} days, the proposer's ({proposer_key}) and yours "
                f"({actor.key}), and could act as both people. To {act} {proposal.id}, use a "
                f"key in which {name} had no part: the operator creates one with `swapproof "
                f"key create NAME --role {actor.role.name.lower()} --principal "
                f"{shlex.quote(actor.name)}`. Or wait until {format_date_time(separate_at)}"
            )
        if proposer_principal and all(
            key_creators.has_other_key(person, creator) for person in (proposer, approver)
        ):
            yield (
                f"{name} took part in creating both keys, the proposer's and yours, and could "
                f"act as both people. To {act} {proposal.id}, use a key that {name} did not "
                "create"
            )


def _find_undeclared(
    key_creators: "KeyCreators",
    actor: Actor,
    proposal: TwoPersonRequest,
    act: str,
) -> Iterator[str]:
    """Yields reasons why actor and proposer are, or could be, one person with two sign-ins."""
    tx = key_creators.tx
    people = key_creators.people
    proposer_principal = proposal.proposer_principal
    persons = {people.person(actor.principal), people.person(proposer_principal)}
    if len(persons) == 1:
        yield (
            f"{actor.name} and {proposal.proposer}, who proposed {proposal.id}, were declared "
            f"to be one person, who cannot {act} it: ask another approver"
        )
    undeclared = key_creators.find_undeclared(actor.principal, proposer_principal)
    if undeclared is not None:
        yield (
            f"no admin has declared who {undeclared.name} (single sign-on) is: "
            f"{actor.name} and {proposal.proposer} could be one person. Before {actor.name} "
            f"can {act} {proposal.id}, an admin who is neither of them declares it: `swapproof "
            "person link`, or `swapproof person separate`"
        )
    # Allows the operator, because the operator may declare a person. `list_key_remarks` reports
    # such cases.
    if people.person(actor.principal) == LOCAL_PRINCIPAL.id:
        persons.discard(LOCAL_PRINCIPAL.id)
    for principal in (actor.principal, proposer_principal):
        link = people.link(principal)
        declarers = load_declarers(tx, link) if link is not None else ()
        for declarer in sorted(persons.intersection(map(people.person, declarers))):
            yield (
                f"{person_name(tx, declarer)} helped to declare who "
                f"{person_name(tx, principal)} is, so both could be "
                f"{person_name(tx, declarer)}: ask another approver to {act} {proposal.id}, or "
                "another admin to declare it"
            )


class KeyCreators:
    """Finds the people who took part in creating keys, and the principals without a
    declaration.
    """

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.people = PersonLinks(tx).people()

    def creators_of(self, key: str | None) -> frozenset[str]:
        return frozenset(self._participations(key))

    def creators_of_both(
        self,
        first_key: str | None,
        second_key: str | None,
    ) -> Mapping[str, datetime]:
        """Returns the people who took part in creating both keys, as `find_common_creators`."""
        return find_common_creators(
            self._participations(first_key), self._participations(second_key)
        )

    def _participations(self, key: str | None) -> Mapping[str, datetime]:
        """Returns when each person last took part in creating the key."""
        latest: dict[str, datetime] = {}
        for creator, at in load_participations(self.tx, key) if key is not None else ():
            person = self.people.person(creator)
            latest[person] = max(at, latest.get(person, at))
        return latest

    def has_other_key(self, person: str, creator: str) -> bool:
        return any(
            key.revoked_at is None and creator not in self.creators_of(key.id)
            for principal in (person, *self.people.others(person))
            for key in ApiKeys(self.tx).of_principal(principal)
        )

    def find_undeclared(self, first: str, second: str) -> Principal | None:
        """Finds a principal of single sign-on who could be the same person as the other
        principal, because no admin declared which person it is. None if both sign in at the
        same server, or are declared. The other principal may be a service, because a person
        acts with its key.
        """
        principals = Principals(self.tx).among([first, second])
        if len(principals) < 2 or principals[first].issuer == principals[second].issuer:
            return None
        by_sign_on = [p for p in principals.values() if p.issuer is not None]
        return next((p for p in by_sign_on if self.people.link(p.id) is None), None)


def load_declarers(tx: Transaction, link: PersonLink) -> frozenset[str]:
    """Loads the declarer, and the principals who created the declarer's key."""
    key_creators = frozenset[str]()
    if link.created_with is not None:
        key_creators = load_key_creators(tx, link.created_with) - {LOCAL_PRINCIPAL.id}
    return key_creators | {link.created_by}


def find_common_creators(
    first: Mapping[str, datetime],
    second: Mapping[str, datetime],
) -> Mapping[str, datetime]:
    """Returns the people who took part in creating both keys, in the order of their ids. Each
    value is the moment from which the keys count as keys of two people: SEPARATE_AFTER after
    the earlier of the two participations. Omits the operator, who creates the first keys.

    Args:
        first: when each person last took part in creating the first key.
        second: when each person last took part in creating the second key.
    """
    common = (first.keys() & second.keys()) - {LOCAL_PRINCIPAL.id}
    return {
        person: min(first[person], second[person]) + SEPARATE_AFTER for person in sorted(common)
    }


def load_key_creators(tx: Transaction, key: str) -> frozenset[str]:
    """Loads the key's creator, the creator of the key that created it, and so on."""
    return frozenset(creator for creator, _ in load_participations(tx, key))


def load_participations(tx: Transaction, key: str) -> Iterator[tuple[str, datetime]]:
    """Yields the key's creator and the moment of the creation, then the same of the key that
    created it, and so on.
    """
    visited = set[str]()
    key_id: str | None = key
    while key_id is not None and key_id not in visited:
        visited.add(key_id)
        api_key = ApiKeys(tx).find(key_id)
        if api_key is None:
            break
        if api_key.created_by is not None:
            yield api_key.created_by, api_key.created_at
        key_id = api_key.created_with


def is_other_person(
    tx: Transaction,
    name: str,
    proposer: Actor,
) -> bool:
    """Returns whether the named principal is another person than the proposer, and has no key
    that the proposer took part in creating.
    """
    if fold_name(name) == fold_name(proposer.name):
        return False
    principal = Principals(tx).named(name)
    if principal is None:
        return True  # the control plane itself
    key_creators = KeyCreators(tx)
    person = key_creators.people.person(proposer.principal)
    return not (
        key_creators.people.person(principal.id) == person
        or key_creators.find_undeclared(principal.id, proposer.principal) is not None
        or any(
            person in key_creators.creators_of(key.id)
            for key in ApiKeys(tx).of_principal(principal.id)
        )
    )


def person_name(tx: Transaction, principal: str) -> str:
    principal_record = Principals(tx).among([principal]).get(principal)
    return (
        principal_record.name if principal_record is not None else principal or "unknown person"
    )
