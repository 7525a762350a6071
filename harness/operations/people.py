"""Declares which principals are one person (`link`, `separate`), and lists them: the four eyes
look at people, and nobody but an admin knows that a key and a single sign-on are one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.frame.errors import NotFound
from harness.frame.people.access import Actor, Role
from harness.frame.people.principals import People, PersonLink, Principal
from harness.frame.people.records import PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.routing.context import Context


@dataclass(frozen=True, slots=True)
class PersonView(Principal):
    person: str = ""  # the name of whom he was declared to be, or his own; empty: undeclared
    declared_by: str = ""  # whose word that is, by name
    reason: str = ""  # of that declaration


def link(ctx: Context, actor: Actor, principal: str, person: str, reason: str) -> PersonLink:
    """Declares that two principals, by name, are one person. Raises NotFound, Conflict."""
    return _declare(ctx, actor, principal, person, reason)


def separate(ctx: Context, actor: Actor, principal: str, reason: str) -> PersonLink:
    """Declares that a principal, by name, is no other person here. Raises as `link`."""
    return _declare(ctx, actor, principal, principal, reason)


def _declare(
    ctx: Context, actor: Actor, principal: str, person: str, reason: str
) -> PersonLink:
    actor.require(Role.ADMIN)
    why = require_reason(reason, "to declare who somebody is")
    with ctx.store.write() as tx:
        people = PersonLinks(tx).people(lock=True)
        one, other = _named(tx, principal), _named(tx, person)
        people.require_linkable(one, other)
        before = people.link(one.id)
        made = PersonLink(
            id=ctx.chance.token("pl_"),
            principal=one.id,
            number=before.number + 1 if before is not None else 1,
            person=other.id,
            reason=why,
            created_at=ctx.clock.now(),
            created_by=actor.principal,
            created_with=actor.key,
        )
        PersonLinks(tx).add(made)
        facts = {
            "name": one.name,
            "person": other.id,
            "called": other.name,
            "before": before.person if before is not None else None,
            "reason": why,
        }
        action = "person.separate" if made.alone else "person.link"
        AuditLog(tx).append(actor, action, f"principal {one.id}", facts)
    return made


def _named(tx: Transaction, name: str) -> Principal:
    found = Principals(tx).named(name)
    if found is None:
        raise NotFound(
            f"there is no principal {name!r}; `swapgate person list` shows them. Who comes by "
            "single sign-on is there after the first sign-in"
        )
    return found


def list_people(ctx: Context, actor: Actor | None) -> Sequence[PersonView]:
    """Lists the principals, in the order of their names, with whom each was declared to be: to
    an admin all of them, to others those that are the actor's own person. actor: None where
    the caller has not signed in.
    """
    with ctx.store.read() as tx:
        people = PersonLinks(tx).people()
        stored = Principals(tx).all()
    shown = [one for one in stored if _may_read(people, actor, one.id)]
    names = {principal.id: principal.name for principal in stored}
    views = []
    for principal in shown:
        declared, said = people.link(principal.id), dict[str, Any]()
        if declared is not None:
            said = {
                "person": names.get(declared.person, declared.person),
                "declared_by": names.get(declared.created_by, declared.created_by),
                "reason": declared.reason,
            }
        stored_fields = {f.name: getattr(principal, f.name) for f in fields(Principal)}
        views.append(PersonView(**stored_fields, **said))
    return sorted(views, key=lambda view: view.folded)


def _may_read(people: People, actor: Actor | None, principal: str) -> bool:
    if actor is None:
        return False
    own = people.person(principal) == people.person(actor.principal)
    return own or actor.role >= Role.ADMIN
