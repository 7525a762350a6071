"""Creates, revokes and limits API keys, and finds their actors. Swapproof shows a key's text
once, and stores only its hash.

`link_people` and `separate_people` declare which principals are one person. The four-eyes rule
counts people, and only an admin knows that a key and a single sign-on belong to one person.

Routers check client keys by their own snapshot. The four-eyes rule is in
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
NO_LIMITS: Final = "a management key has a role; limits are only for client keys"
NO_OPT_OUTS: Final = "a management key calls no model; opt-outs are only for client keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySummary(ApiKey):
    """A key with its owner and its spend, for lists. It lacks the key's text, which Swapproof
    never stores.
    """

    spent: SpendTotals
    principal_name: str  # empty for a client key


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

    Args:
        role: None for a client key.
        principal: name of the management key's owner; None for a new person or service with the
            key's name.

    Raises NotFound for an unknown route or principal; Conflict if another principal or client
    key has the name; InputError, NotAllowed.
    """
    actor.require(Role.ADMIN)
    allowed_routes = frozenset(routes)
    if role is not None and allowed_routes:
        raise InputError("a management key has a role, not routes: leave the routes out")
    if not name.strip():
        raise InputError("a key needs a name that shows its owner")
    if role is None and (principal is not None or service):
        raise InputError("a client key has no owner: leave the principal out, or give a role")
    if service and principal is not None:
        raise InputError(f"{principal!r} is a person or a service already: leave that out")
    limits = limits and limits.or_none
    if role is not None and limits:
        raise InputError(f"{NO_LIMITS}: leave the limits out")
    opt_outs_set = frozenset(opt_outs)
    if role is not None and opt_outs_set:
        raise InputError(f"{NO_OPT_OUTS}: leave the opt-outs out")
    text = f"{DATA_KEY_PREFIX if role is None else MANAGEMENT_KEY_PREFIX}{ctx.chance.secret()}"
    now = ctx.clock.now()
    key = ApiKey(
        id=ctx.chance.token("key_"),
        name=name,
        hash=key_hash(text, secret),
        hint=text[-4:],
        role=role,
        routes=allowed_routes,
        created_at=now,
        limits=limits,
        opt_outs=opt_outs_set,
        created_by=actor.principal,
        created_with=actor.key,
    )
    with ctx.store.write() as tx:
        for scope in sorted(allowed_routes):
            require_route(tx, scope)
        if role is not None:
            owner = (
                _require_principal(tx, principal)
                if principal
                else _create_principal(ctx, tx, name, service)
            )
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
                "opt_outs": sorted(opt_outs_set),
            },
        )
    return key, text


def _check_data_name(tx: Transaction, name: str) -> None:
    """Raises Conflict if another client key has the name, because people could not distinguish
    the two.
    """
    folded_name = fold_name(name)
    for id_, other_name in ApiKeys(tx).data_key_names().items():
        if fold_name(other_name) == folded_name:
            raise Conflict(
                f"there is a client key {other_name!r} ({id_}) already: choose another name, "
                f"such as {f'{name.strip()} 2'!r}, or revoke that key with `swapproof key "
                f"revoke {id_}`"
            )


def _require_principal(tx: Transaction, name: str) -> Principal:
    """Finds a principal by name. Raises NotFound."""
    principal_record = Principals(tx).named(name)
    if principal_record is None:
        raise NotFound(
            f"there is no principal {name!r}: leave it out, and Swapproof creates a principal "
            "with the key's name"
        )
    return principal_record


def _create_principal(
    ctx: Context,
    tx: Transaction,
    name: str,
    service: bool,  # noqa: FBT001
) -> Principal:
    """Creates a principal. Raises Conflict if another principal has the name, InputError for an
    invalid name.
    """
    checked_name = check_principal_name(name)
    if fold_name(checked_name) == SYSTEM.name:
        raise InputError(f"{checked_name!r} is the audit log's name for Swapproof itself")
    namesake = Principals(tx).named(checked_name)
    if namesake is not None:
        raise Conflict(
            f"there is a principal {namesake.name!r} ({namesake.id}) already, and "
            f"{checked_name!r} is the same name: for another key of it, add `--principal "
            f"{namesake.name}`"
        )
    kind = PrincipalKind.SERVICE if service else PrincipalKind.PERSON
    principal = Principal(ctx.chance.token("pr_"), kind, checked_name, ctx.clock.now())
    Principals(tx).add(principal)
    return principal


def revoke_key(
    ctx: Context,
    actor: Actor,
    key: str,
) -> bool:
    """Revokes a key; routers stop accepting it within two seconds. Raises NotFound.

    Returns False, without a change, if the key was already revoked.
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
    """Changes a client key's limits, but not its counted spend. Routers follow within two
    seconds. Raises NotFound, InputError.

    Args:
        change: maps the present limits to the new ones; KeyLimits() means no limits.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        api_key = ApiKeys(tx).find(key)
        if api_key is not None and api_key.role is not None:
            raise InputError(NO_LIMITS)
        former_limits = None if api_key is None else api_key.limits
        limits = change(former_limits or KeyLimits()).or_none
        changed_key = ApiKeys(tx).limit(key, limits)
        AuditLog(tx).append(
            actor,
            "key.limits",
            f"key {key}",
            {"before": to_shown(former_limits), "after": to_shown(limits)},
        )
    return changed_key


def set_opt_outs(
    ctx: Context,
    actor: Actor,
    key: str,
    opt_outs: Iterable[OptOut],
) -> ApiKey:
    """Replaces a client key's opt-outs, which may be empty. Routers follow within two seconds.
    Raises NotFound, InputError.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        api_key = ApiKeys(tx).find(key)
        if api_key is not None and api_key.role is not None:
            raise InputError(NO_OPT_OUTS)
        changed_key = ApiKeys(tx).opt_out(key, frozenset(opt_outs))
        former_opt_outs = api_key.opt_outs if api_key else ()
        details = {
            "before": sorted(former_opt_outs),
            "after": sorted(changed_key.opt_outs),
        }
        AuditLog(tx).append(actor, "key.opt_outs", f"key {key}", details)
    return changed_key


def authenticate(
    store: Database,
    text: str,
    *,
    secret: bytes,
) -> Actor:
    """Returns the actor of a management key. Raises NotAllowed for another text."""
    with refuse_invalid_rows(NO_KEY), store.read() as tx:
        return _load_actor(tx, ApiKeys(tx).by_hash(key_hash(text, secret)))


def authenticate_data_key(
    store: Database,
    text: str,
    *,
    secret: bytes,
) -> ApiKey:
    """Returns the client key with this text. Raises NotAllowed for another text."""
    with refuse_invalid_rows("no client key is accepted"), store.read() as tx:
        key = ApiKeys(tx).by_hash(key_hash(text, secret))
    if key is None or key.role is not None or key.revoked_at is not None:
        raise NotAllowed("this client key is unknown or revoked")
    return key


def refresh_actor(store: Database, actor: Actor) -> Actor:
    """Returns the actor with the key's present role. Raises NotAllowed for a revoked key."""
    with refuse_invalid_rows(NO_KEY), store.read() as tx:
        return actor_behind(tx, actor.key)


@contextmanager
def refuse_invalid_rows(words: str) -> Iterator[None]:
    """Turns the block's SignatureInvalid into NotAllowed.

    Args:
        words: the message's first words.
    """
    try:
        yield
    except SignatureInvalid as error:
        raise NotAllowed(f"{words}: {error}") from error


def actor_behind(tx: Transaction, key: str | None) -> Actor:
    """Returns the actor of a management key, with its present role. Raises NotAllowed."""
    stored_key = ApiKeys(tx).find(key) if key is not None else None
    # Finds the key again by its hash, because only `by_hash` checks the manifest. Without that
    # check, an old signed row could restore a revoked key.
    return _load_actor(
        tx, ApiKeys(tx).by_hash(stored_key.hash) if stored_key is not None else None
    )


def _load_actor(tx: Transaction, key: ApiKey | None) -> Actor:
    """Returns the key's actor.

    Raises NotAllowed for a client key, and for an unknown or revoked key.
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
    checked_reason = require_reason(reason, "to declare who a principal is")
    with ctx.store.write() as tx:
        people = PersonLinks(tx).people(lock=True)
        declared_principal = _require_named(tx, principal)
        person_principal = _require_named(tx, person)
        people.require_linkable(declared_principal, person_principal)
        former_link = people.link(declared_principal.id)
        link = PersonLink(
            id=ctx.chance.token("pl_"),
            principal=declared_principal.id,
            number=former_link.number + 1 if former_link is not None else 1,
            person=person_principal.id,
            reason=checked_reason,
            created_at=ctx.clock.now(),
            created_by=actor.principal,
            created_with=actor.key,
        )
        PersonLinks(tx).add(link)
        details = {
            "name": declared_principal.name,
            "person": person_principal.id,
            "called": person_principal.name,
            "before": former_link.person if former_link is not None else None,
            "reason": checked_reason,
        }
        action = "person.separate" if link.alone else "person.link"
        AuditLog(tx).append(actor, action, f"principal {declared_principal.id}", details)
    return link


def _require_named(tx: Transaction, name: str) -> Principal:
    principal = Principals(tx).named(name)
    if principal is None:
        raise NotFound(
            f"there is no principal {name!r}; `swapproof person list` shows them. A person of "
            "single sign-on appears there after the first sign-in"
        )
    return principal


def list_people(ctx: Context, actor: Actor | None) -> Sequence[PersonView]:
    """Lists principals by name, with their declared persons. Only an admin sees principals of
    other people.

    Args:
        actor: None if the caller has not signed in.
    """
    with ctx.store.read() as tx:
        people = PersonLinks(tx).people()
        stored = Principals(tx).all()
    visible = [principal for principal in stored if _may_read(people, actor, principal.id)]
    names = {principal.id: principal.name for principal in stored}
    views = []
    for principal in visible:
        link = people.link(principal.id)
        declaration = dict[str, Any]()
        if link is not None:
            declaration = {
                "person": names.get(link.person, link.person),
                "declared_by": names.get(link.created_by, link.created_by),
                "reason": link.reason,
            }
        stored_fields = {f.name: getattr(principal, f.name) for f in fields(Principal)}
        views.append(PersonView(**stored_fields, **declaration))
    return sorted(views, key=lambda view: view.folded)


def _may_read(
    people: People,
    actor: Actor | None,
    principal: str,
) -> bool:
    """Tells whether the actor may see a principal: an admin may see all, others only principals
    of their own person.
    """
    if actor is None:
        return False
    is_own = people.person(principal) == people.person(actor.principal)
    return is_own or actor.role >= Role.ADMIN
