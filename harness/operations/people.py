"""Declares which principals are one person (`link`, `separate`), and lists them. Four eyes need
people, and only an admin knows that a key and a single sign-on belong to one person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.frame.errors import NotFound
from harness.frame.people.access import Actor, People, PersonLink, Principal, Role
from harness.frame.people.records import PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.routing.context import Context


@dataclass(frozen=True, slots=True)
class PersonView(Principal):
    person: str = ""  # the declared person's name, or its own; empty without a declaration
    declared_by: str = ""  # name of the admin who declared it
    reason: str = ""  # reason of the declaration


def link(ctx: Context, actor: Actor, principal: str, person: str, reason: str) -> PersonLink:
    """Declares that two principals, by name, are one person. Raises NotFound, Conflict."""
    return _declare(ctx, actor, principal, person, reason)


def separate(ctx: Context, actor: Actor, principal: str, reason: str) -> PersonLink:
    """Declares that a principal, by name, is a separate person. Raises as `link`."""
    return _declare(ctx, actor, principal, principal, reason)


def _declare(
    ctx: Context, actor: Actor, principal: str, person: str, reason: str
) -> PersonLink:
    actor.require(Role.ADMIN)
    why = require_reason(reason, "to declare who a principal is")
    with ctx.store.write() as tx:
        people = PersonLinks(tx).people(lock=True)
        first, second = _named(tx, principal), _named(tx, person)
        people.require_linkable(first, second)
        before = people.link(first.id)
        declared = PersonLink(
            id=ctx.chance.token("pl_"),
            principal=first.id,
            number=before.number + 1 if before is not None else 1,
            person=second.id,
            reason=why,
            created_at=ctx.clock.now(),
            created_by=actor.principal,
            created_with=actor.key,
        )
        PersonLinks(tx).add(declared)
        facts = {
            "name": first.name,
            "person": second.id,
            "called": second.name,
            "before": before.person if before is not None else None,
            "reason": why,
        }
        action = "person.separate" if declared.alone else "person.link"
        AuditLog(tx).append(actor, action, f"principal {first.id}", facts)
    return declared


def _named(tx: Transaction, name: str) -> Principal:
    found = Principals(tx).named(name)
    if found is None:
        raise NotFound(
            f"there is no principal {name!r}; `swapgate person list` shows them. A person of "
            "single sign-on appears there after the first sign-in"
        )
    return found


def list_people(ctx: Context, actor: Actor | None) -> Sequence[PersonView]:
    """Lists principals by name, with their declared persons: all for an admin, otherwise those
    of the actor's own person. actor: None if the caller has not signed in.
    """
    with ctx.store.read() as tx:
        people = PersonLinks(tx).people()
        stored = Principals(tx).all()
    shown = [principal for principal in stored if _may_read(people, actor, principal.id)]
    names = {principal.id: principal.name for principal in stored}
    views = []
    for principal in shown:
        declared, declaration = people.link(principal.id), dict[str, Any]()
        if declared is not None:
            declaration = {
                "person": names.get(declared.person, declared.person),
                "declared_by": names.get(declared.created_by, declared.created_by),
                "reason": declared.reason,
            }
        stored_fields = {f.name: getattr(principal, f.name) for f in fields(Principal)}
        views.append(PersonView(**stored_fields, **declaration))
    return sorted(views, key=lambda view: view.folded)


def _may_read(people: People, actor: Actor | None, principal: str) -> bool:
    if actor is None:
        return False
    own = people.person(principal) == people.person(actor.principal)
    return own or actor.role >= Role.ADMIN
