"""Principals are those who act: people, services and the operator of this machine. Two names
that a reader could take for one another are one name, so that nobody is two people by spelling.

A person who acts with a key and by single sign-on is two principals, until an admin declares
that they are one. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from unicodedata import category, name, normalize

from harness.frame.errors import Conflict, InputError
from harness.frame.formatting import INVISIBLE_CHARACTERS
from harness.frame.people.access import Actor, Role

MAX_NAME_LENGTH: Final = 200
CONFUSABLE_ALPHABETS: Final = frozenset(
    {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}
)


class PrincipalKind(StrEnum):
    LOCAL = "local"  # the operator of this machine, on the command line
    PERSON = "person"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """Identifies a person or service that acts, by an id that never changes."""

    id: str
    kind: PrincipalKind
    name: str
    created_at: datetime
    # issuer, subject: of who signs in by OpenID Connect; None for all others.
    issuer: str | None = None
    subject: str | None = None

    @property
    def folded(self) -> str:
        return fold_name(self.name)


LOCAL_PRINCIPAL: Final = Principal(
    "local", PrincipalKind.LOCAL, "local", datetime(1970, 1, 1, tzinfo=UTC)
)

OPERATOR: Final = Actor(LOCAL_PRINCIPAL.name, Role.ADMIN, LOCAL_PRINCIPAL.id)


def fold_name(text: str) -> str:
    """What is the same for `Ops`, `ops`, `Ｏｐｓ` and `ops `: NFKC, case folded, one space."""
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def check_principal_name(text: str) -> str:
    """The name as it is shown. Raises InputError for one that looks like another could: with
    invisible characters, or words that mix alphabets whose letters look alike.
    """
    shown = text.strip(" ")
    if not fold_name(shown) or len(shown) > MAX_NAME_LENGTH:
        raise InputError(
            f"a name has 1 to {MAX_NAME_LENGTH} characters, so that people know whose"
        )
    for character in shown:
        kind = category(character)
        unseen = (
            character in INVISIBLE_CHARACTERS
            or kind[0] == "C"
            or "VARIATION SELECTOR" in _name(character)
        )
        if unseen or (kind[0] == "Z" and character != " "):
            raise InputError(
                f"the name {shown!r} has U+{ord(character):04X}, which nobody can see or tell "
                "from a space: leave it out"
            )
    for word in fold_name(shown).split():
        alphabets = {
            _name(c).split(" ")[0] for c in word if category(c)[0] == "L"
        } & CONFUSABLE_ALPHABETS
        if len(alphabets) > 1:
            raise InputError(
                f"the name {shown!r} mixes letters of {' and '.join(sorted(alphabets))}, which "
                "look alike: write it in one alphabet"
            )
    return shown


def _name(character: str) -> str:
    return name(character, "")


@dataclass(frozen=True, slots=True)
class PersonLink:
    """Declares whom a principal is. The newest declaration of a principal holds."""

    id: str
    principal: str  # who is declared to be somebody
    number: int  # counts the declarations of this principal, from 1
    person: str  # the principal that he is as well; himself, where he is no other person
    reason: str
    created_at: datetime
    created_by: str  # the principal who declared it
    created_with: str | None = None  # with which management key; None for none

    @property
    def alone(self) -> bool:
        return self.person == self.principal


class People:
    def __init__(self, newest: Iterable[PersonLink]) -> None:
        self._links = {link.principal: link for link in newest}

    def person(self, principal: str) -> str:
        """Names the person behind a principal by one principal, the same for all of his."""
        link = self._links.get(principal)
        return link.person if link is not None else principal

    def link(self, principal: str) -> PersonLink | None:
        """Finds what was declared of a principal last; None where nobody said anything."""
        return self._links.get(principal)

    def others(self, principal: str) -> tuple[str, ...]:
        """Lists the other principals that were declared to be this one."""
        return tuple(
            link.principal
            for link in self._links.values()
            if link.person == principal and not link.alone
        )

    def require_linkable(self, principal: Principal, person: Principal) -> None:
        """Requires at most one step to a person. Raises InputError, Conflict."""
        if principal.id == LOCAL_PRINCIPAL.id:
            raise InputError(
                "the operator of this machine is declared to be nobody: name the other "
                f"principal first, and {LOCAL_PRINCIPAL.name!r} as who that is"
            )
        if principal.id == person.id:
            return
        if self.others(principal.id):
            raise Conflict(
                f"others were declared to be {principal.name}: name {person.name!r} first, "
                f"and {principal.name!r} as who that is"
            )
        root = self.person(person.id)
        if root != person.id:
            raise Conflict(
                f"{person.name} was declared to be another principal ({root}) already: name "
                "that one"
            )
