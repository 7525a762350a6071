"""Creates, revokes and limits API keys, and finds their actors. Swapgate shows a key's text
once, and stores only its hash.

Declares which principals are one person (`link_people`, `separate_people`), and lists them. The
four-eyes rule counts people, and only an admin knows that a key and a single sign-on belong to
one person.

Routers check data keys by their own snapshot, not here. The rule that counts people is in
`harness.frame.people`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    NotFound,
    SignatureInvalid,
)
from harness.frame.people.access import (
    DATA_KEY_PREFIX,
    MANAGEMENT_KEY_PREFIX,
    SYSTEM,
    Actor,
    ApiKey,
    OptOut,
    People,
    PersonLink,
    Principal,
    PrincipalKind,
    Role,
    check_principal_name,
    fold_name,
    key_hash,
)
from harness.frame.people.limits import KeyLimits, SpendTotals
from harness.frame.people.records import ApiKeys, PersonLinks, Principals
from harness.frame.plain_data import to_shown
from harness.frame.records.database import Database
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.operations.context import Context
from harness.routing.control.routes import require_route

NO_KEY: Final = "no management key is accepted"
NO_LIMITS: Final = "a management key has a role; limits are only for data keys"
NO_OPT_OUTS: Final = "a management key calls no model; opt-outs are only for data keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySummary(ApiKey):
    """A key with its owner and its spend, for lists; the key's text is not stored anywhere."""

    spent: SpendTotals
    principal_name: str  # empty for a data key


def create_key(  # noqa: PLR0913 - the parts of a key
    ctx: Context,
    actor: Actor,
    name: str,
    *,
    secret: bytes,
    role: Role | None = None,
    routes: Iterable[str] = (),
    limits: KeyLimits | None = None,
    opt_outs: Iterable[OptOut] = (),
    principal: str | None = None,
    service: bool = False,
) -> tuple[ApiKey, str]:
    """Creates a key. Returns it with its text, which is never shown again.

    role: None for a data key.
    principal: name of the management key's owner; None for a new person or service with the
    key's name.
    Raises NotFound for an unknown route or principal, Conflict for a taken name of a new
    principal or a data key, InputError, NotAllowed.
    """
    actor.require(Role.ADMIN)
    granted = frozenset(routes)
    if role is not None and granted:
        raise InputError("a management key has a role, not routes: leave the routes out")
    if not name.strip():
        raise InputError("a key needs a name that shows its owner")
    if role is None and (principal is not None or service):
        raise InputError("a data key has no owner: leave the principal out, or give a role")
    if service and principal is not None:
        raise InputError(f"{principal!r} is a person or a service already: leave that out")
    limits = limits and limits.some
    if role is not None and limits:
        raise InputError(f"{NO_LIMITS}: leave the limits out")
    opted_out = frozenset(opt_outs)
    if role is not None and opted_out:
        raise InputError(f"{NO_OPT_OUTS}: leave the opt-outs out")
    text = f"{DATA_KEY_PREFIX if role is None else MANAGEMENT_KEY_PREFIX}{ctx.chance.secret()}"
    now = ctx.clock.now()
    key = ApiKey(
        id=ctx.chance.token("key_"),
        name=name,
        hash=key_hash(text, secret),
        hint=text[-4:],
        role=role,
        routes=granted,
        created_at=now,
        limits=limits,
        opt_outs=opted_out,
        created_by=actor.principal,
        created_with=actor.key,
    )
    with ctx.store.write() as tx:
        for scope in sorted(granted):
            require_route(tx, scope)
        if role is not None:
            owner = _existing(tx, principal) if principal else _new(ctx, tx, name, service)
            key = replace(key, principal=owner.id)
        else:
            _check_data_name(tx, name)
        ApiKeys(tx).add(key)
        AuditLog(tx).append(
            actor,
            "key.create",
            f"key {key.id}",
            {
                "name": name,
                "principal": key.principal,
                "role": role.name.lower() if role else "data",
                "routes": sorted(key.routes),
                "limits": to_shown(limits),
                "opt_outs": sorted(opted_out),
            },
        )
    return key, text


def _check_data_name(tx: Transaction, name: str) -> None:
    """Raises Conflict if another data key has the name: people could not distinguish them."""
    folded = fold_name(name)
    for id_, known in ApiKeys(tx).data_key_names().items():
        if fold_name(known) == folded:
            raise Conflict(
                f"there is a data key {known!r} ({id_}) already: choose another name, such as "
                f"{f'{name.strip()} 2'!r}, or revoke that key with `swapgate key revoke {id_}`"
            )


def _existing(tx: Transaction, name: str) -> Principal:
    """Finds a principal by name. Raises NotFound."""
    found = Principals(tx).named(name)
    if found is None:
        raise NotFound(
            f"there is no principal {name!r}: leave it out, and Swapgate creates a principal "
            "with the key's name"
        )
    return found


def _new(
    ctx: Context,
    tx: Transaction,
    name: str,
    service: bool,  # noqa: FBT001
) -> Principal:
    """Creates a principal. Raises Conflict for a taken name, InputError for an invalid one."""
    shown = check_principal_name(name)
    if fold_name(shown) == SYSTEM.name:
        raise InputError(f"{shown!r} is the audit log's name for Swapgate itself")
    known = Principals(tx).named(shown)
    if known is not None:
        raise Conflict(
            f"there is a principal {known.name!r} ({known.id}) already, and {shown!r} is the "
            f"same name: for another key of it, add `--principal {known.name}`"
        )
    kind = PrincipalKind.SERVICE if service else PrincipalKind.PERSON
    principal = Principal(ctx.chance.token("pr_"), kind, shown, ctx.clock.now())
    Principals(tx).add(principal)
    return principal


def revoke_key(
    ctx: Context,
    actor: Actor,
    key: str,
) -> bool:
    """Revokes a key; routers stop accepting it within two seconds. Raises NotFound.

    Returns False if the key was already revoked; then nothing changes.
    """
    actor.require(Role.ADMIN)
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        is_revoked_now = ApiKeys(tx).revoke(key, now)
        if is_revoked_now:
            AuditLog(tx).append(actor, "key.revoke", f"key {key}", {})
    return is_revoked_now


def set_limits(
    ctx: Context,
    actor: Actor,
    key: str,
    change: Callable[[KeyLimits], KeyLimits],
) -> ApiKey:
    """Changes a data key's limits; its spend stays counted. Routers follow within two seconds.
    Raises NotFound, InputError.

    change: maps the present limits to the new ones; KeyLimits() means no limits.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        api_key = ApiKeys(tx).find(key)
        if api_key is not None and api_key.role is not None:
            raise InputError(NO_LIMITS)
        before = None if api_key is None else api_key.limits
        limits = change(before or KeyLimits()).some
        changed = ApiKeys(tx).limit(key, limits)
        AuditLog(tx).append(
            actor,
            "key.limits",
            f"key {key}",
            {"before": to_shown(before), "after": to_shown(limits)},
        )
    return changed


def set_opt_outs(
    ctx: Context,
    actor: Actor,
    key: str,
    opt_outs: Iterable[OptOut],
) -> ApiKey:
    """Replaces a data key's opt-outs, which may be empty. Routers follow within two seconds.
    Raises NotFound, InputError.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        api_key = ApiKeys(tx).find(key)
        if api_key is not None and api_key.role is not None:
            raise InputError(NO_OPT_OUTS)
        changed = ApiKeys(tx).opt_out(key, frozenset(opt_outs))
        before = api_key.opt_outs if api_key else ()
        details = {
            "before": sorted(before),
            "after": sorted(changed.opt_outs),
        }
        AuditLog(tx).append(actor, "key.opt_outs", f"key {key}", details)
    return changed


def authenticate(
    store: Database,
    text: str,
    *,
    secret: bytes,
) -> Actor:
    """Returns the actor of a management key. Raises NotAllowed for another text."""
    with refusing(NO_KEY), store.read() as tx:
        return _actor(tx, ApiKeys(tx).by_hash(key_hash(text, secret)))


def authenticate_data_key(
    store: Database,
    text: str,
    *,
    secret: bytes,
) -> ApiKey:
    """Returns the data key with this text. Raises NotAllowed for another text."""
    with refusing("no data key is accepted"), store.read() as tx:
        key = ApiKeys(tx).by_hash(key_hash(text, secret))
    if key is None or key.role is not None or key.revoked_at is not None:
        raise NotAllowed("this data key is unknown or revoked")
    return key


def still(store: Database, actor: Actor) -> Actor:
    """Returns the actor with the key's present role. Raises NotAllowed for a revoked key."""
    with refusing(NO_KEY), store.read() as tx:
        return actor_behind(tx, actor.key)


@contextmanager
def refusing(words: str) -> Iterator[None]:
    """Turns SignatureInvalid into NotAllowed. words: the message's first words."""
    try:
        yield
    except SignatureInvalid as error:
        raise NotAllowed(f"{words}: {error}") from error


def actor_behind(tx: Transaction, key: str | None) -> Actor:
    """Returns the actor of a management key, with its present role. Raises NotAllowed."""
    found = ApiKeys(tx).find(key) if key is not None else None
    # Finds the key by hash again, because only that look-up checks the manifest. Without the
    # check, an old signed row could restore a revoked key.
    return _actor(tx, ApiKeys(tx).by_hash(found.hash) if found is not None else None)


def _actor(tx: Transaction, key: ApiKey | None) -> Actor:
    """Returns the key's actor.

    Raises NotAllowed for a data key, and for an unknown or revoked key.
    """
    if key is None or key.role is None or key.principal is None or key.revoked_at is not None:
        raise NotAllowed("this management key is unknown or revoked")
    name = Principals(tx).get(key.principal).name
    return Actor(name, key.role, key.principal, key.id)


@dataclass(frozen=True, slots=True)
class PersonView(Principal):
    """A principal with the declaration of the person behind it, for lists."""

    person: str = ""  # name of the declared person, or of this principal; empty if undeclared
    declared_by: str = ""  # the admin's name
    reason: str = ""


def link_people(
    ctx: Context,
    actor: Actor,
    principal: str,
    person: str,
    reason: str,
) -> PersonLink:
    """Declares that two principals, by name, are one person. Raises NotFound, Conflict."""
    return _declare(ctx, actor, principal, person, reason)


def separate_people(
    ctx: Context,
    actor: Actor,
    principal: str,
    reason: str,
) -> PersonLink:
    """Declares that a principal, by name, is a separate person. Raises as `link_people`."""
    return _declare(ctx, actor, principal, principal, reason)


def _declare(
    ctx: Context,
    actor: Actor,
    principal: str,
    person: str,
    reason: str,
) -> PersonLink:
    """Stores a declaration, which replaces the principal's earlier one.

    Needs an admin and a reason.
    """
    actor.require(Role.ADMIN)
    why = require_reason(reason, "to declare who a principal is")
    with ctx.store.write() as tx:
        people = PersonLinks(tx).people(lock=True)
        first = _named(tx, principal)
        second = _named(tx, person)
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
    """Lists principals by name, with their declared persons. Only an admin sees principals of
    other people. actor: None if the caller has not signed in.
    """
    with ctx.store.read() as tx:
        people = PersonLinks(tx).people()
        stored = Principals(tx).all()
    shown = [principal for principal in stored if _may_read(people, actor, principal.id)]
    names = {principal.id: principal.name for principal in stored}
    views = []
    for principal in shown:
        declared = people.link(principal.id)
        declaration = dict[str, Any]()
        if declared is not None:
            declaration = {
                "person": names.get(declared.person, declared.person),
                "declared_by": names.get(declared.created_by, declared.created_by),
                "reason": declared.reason,
            }
        stored_fields = {f.name: getattr(principal, f.name) for f in fields(Principal)}
        views.append(PersonView(**stored_fields, **declaration))
    return sorted(views, key=lambda view: view.folded)


def _may_read(
    people: People,
    actor: Actor | None,
    principal: str,
) -> bool:
    """Tells whether the actor may see a principal: its own person's, or any for an admin."""
    if actor is None:
        return False
    own = people.person(principal) == people.person(actor.principal)
    return own or actor.role >= Role.ADMIN
