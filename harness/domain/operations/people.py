"""People behind principals: a person who acts with a key and by single sign-on is two
principals, until an admin declares that they are one. `PersonLink` is one declaration, and
`People` says who is who by the newest ones. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from harness.domain.errors import Conflict, InputError
from harness.domain.operations.principals import LOCAL_PRINCIPAL, Principal


@dataclass(frozen=True, slots=True)
class PersonLink:
    """Declares whom a principal is. The newest declaration of a principal holds."""

    id: str
    principal: str  # who is declared to be somebody
    number: int  # counts the declarations of this principal, from 1
    person: str  # the principal that he is as well; himself, where he is nobody else here
    reason: str
    created_at: datetime
    created_by: str  # the principal who declared it
    created_with: str | None = None  # with which management key; None for none

    @property
    def alone(self) -> bool:
        return self.person == self.principal


class People:
    """Says which principals are one person, by the newest declarations."""

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
        """Requires that a declaration leaves each principal at most one step from his person.
        Raises InputError, Conflict.
        """
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
