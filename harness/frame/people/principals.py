"""Principals: people, services and the operator of this machine. Pure.

Names that readers could confuse count as the same name, so that one person cannot pose as two
by spelling. A person who uses both a key and single sign-on is two principals, until an admin
declares that they are one person.
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
    # issuer, subject: the person's OpenID Connect identity; None without single sign-on.
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
    """Normalizes `Ops`, `ops`, `Ｏｐｓ` and `ops ` to one text: NFKC, case folded,
    one space.
    """
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def check_principal_name(text: str) -> str:
    """Returns the name without surrounding spaces. Raises InputError for a name that readers
    could confuse with another: one with invisible characters, or with a word that mixes
    alphabets with similar letters.
    """
    shown = text.strip(" ")
    if not fold_name(shown) or len(shown) > MAX_NAME_LENGTH:
        raise InputError(f"a name must have 1 to {MAX_NAME_LENGTH} visible characters")
    for character in shown:
        kind = category(character)
        unseen = (
            character in INVISIBLE_CHARACTERS
            or kind[0] == "C"
            or "VARIATION SELECTOR" in _name(character)
        )
        if unseen or (kind[0] == "Z" and character != " "):
            raise InputError(
                f"the name {shown!r} contains U+{ord(character):04X}, which is invisible or "
                "looks like a space: remove it"
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
    """Declares which person a principal is. The newest declaration of a principal applies."""

    id: str
    principal: str
    number: int  # counts the declarations of this principal, from 1
    person: str  # the principal of the same person; `principal` itself for a separate person
    reason: str
    created_at: datetime
    created_by: str  # the principal who declared it
    created_with: str | None = None  # the management key of the declaration; None without a key

    @property
    def alone(self) -> bool:
        return self.person == self.principal


class People:
    def __init__(self, newest: Iterable[PersonLink]) -> None:
        self._links = {link.principal: link for link in newest}

    def person(self, principal: str) -> str:
        """Returns the principal that represents the person; all of a person's principals have
        the same one.
        """
        link = self._links.get(principal)
        return link.person if link is not None else principal

    def link(self, principal: str) -> PersonLink | None:
        """Returns a principal's newest declaration; None without a declaration."""
        return self._links.get(principal)

    def others(self, principal: str) -> tuple[str, ...]:
        """Lists the other principals that declarations link to this principal."""
        return tuple(
            link.principal
            for link in self._links.values()
            if link.person == principal and not link.alone
        )

    def require_linkable(self, principal: Principal, person: Principal) -> None:
        """Allows a declaration only if links stay one step long. Raises InputError,
        Conflict.
        """
        if principal.id == LOCAL_PRINCIPAL.id:
            raise InputError(
                "you cannot declare which person this machine's operator is: give the other "
                f"principal first, and {LOCAL_PRINCIPAL.name!r} as its person"
            )
        if principal.id == person.id:
            return
        if self.others(principal.id):
            raise Conflict(
                f"other principals are declared to be {principal.name}: give {person.name!r} "
                f"first, and {principal.name!r} as its person"
            )
        root = self.person(person.id)
        if root != person.id:
            raise Conflict(
                f"{person.name} is already declared to be another principal ({root}): give "
                "that principal as the person"
            )
