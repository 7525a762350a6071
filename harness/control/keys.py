"""Keys: data keys for clients of the router, management keys with a role. Shown once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from harness.control.context import Context
from harness.control.present import plain
from harness.control.routes import existing
from harness.domain.access import (
    DATA_PREFIX,
    MANAGEMENT_PREFIX,
    SYSTEM,
    Actor,
    ApiKey,
    Role,
    key_hash,
)
from harness.domain.errors import InputError, NotAllowed
from harness.domain.key_limits import KeyLimits
from harness.domain.spend import KeySpend, Spent, spent_of
from harness.ports import Store

NO_LIMITS: Final = "a management key has a role, not limits, which are the router's"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGlance(ApiKey):
    """A key with what it spent today and this month (UTC), as far as it is recorded."""

    spent: Spent


def create(
    ctx: Context,
    actor: Actor,
    name: str,
    *,
    secret: bytes,
    role: Role | None = None,
    routes: Iterable[str] = (),
    limits: KeyLimits | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is never shown again. role None: a data key.

    Raises NotFound for a route that does not exist, InputError, NotAllowed.
    """
    actor.require(Role.ADMIN)
    if not name.strip():
        raise InputError("a key needs a name, so that people know whose it is")
    if role is not None and name.strip() == SYSTEM.name:
        raise InputError(f"{name.strip()!r} is how the audit log names what no person did")
    granted = frozenset(routes)
    if role is not None and granted:
        raise InputError("a management key has a role, not routes: leave the routes out")
    limits = limits and limits.some
    if role is not None and limits:
        raise InputError(f"{NO_LIMITS}: leave the limits out")
    text = f"{DATA_PREFIX if role is None else MANAGEMENT_PREFIX}{ctx.chance.secret()}"
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
    )
    with ctx.store.write() as tx:
        for each in sorted(granted):
            existing(tx, each)
        tx.keys.add(key)
        tx.audit.append(
            at=now,
            actor=actor.name,
            action="key.create",
            subject=f"key {key.id}",
            details={
                "name": name,
                "role": role.name.lower() if role else "data",
                "routes": sorted(key.routes),
                "limits": plain(limits),
            },
        )
    return key, text


def revoke(ctx: Context, actor: Actor, key: str) -> None:
    """Raises NotFound. Routers stop taking it within two seconds."""
    actor.require(Role.ADMIN)
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        tx.keys.revoke(key, now)
        tx.audit.append(
            at=now, actor=actor.name, action="key.revoke", subject=f"key {key}", details={}
        )


def set_limits(
    ctx: Context,
    actor: Actor,
    key: str,
    change: Callable[[KeyLimits], KeyLimits],
) -> ApiKey:
    """Limit a data key anew. change: from its limits as they are; none at all is KeyLimits().

    What it spent stays counted. Routers follow within two seconds. Raises NotFound, InputError.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        found = next((each for each in tx.keys.list() if each.id == key), None)
        if found is not None and found.role is not None:
            raise InputError(NO_LIMITS)
        before = found and found.limits
        limits = change(before or KeyLimits()).some
        changed = tx.keys.limit(key, limits)
        tx.audit.append(
            at=ctx.clock.now(),
            actor=actor.name,
            action="key.limits",
            subject=f"key {key}",
            details={"before": plain(before), "after": plain(limits)},
        )
    return changed


def all_keys(ctx: Context) -> Sequence[KeyGlance]:
    """Revoked ones too."""
    today = ctx.clock.now().date()
    with ctx.store.read() as tx:
        keys, rows = tx.keys.list(), tx.observations.spends(since=today.replace(day=1))
    by_key: dict[str, list[KeySpend]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    return [
        KeyGlance(
            **{each.name: getattr(key, each.name) for each in fields(key)},
            spent=spent_of(by_key.get(key.id, ()), today),
        )
        for key in keys
    ]


def authenticate(store: Store, text: str, *, secret: bytes) -> Actor:
    """The actor behind a management key. Raises NotAllowed for any other."""
    with store.read() as tx:
        key = tx.keys.by_hash(key_hash(text, secret))
    if key is None or key.role is None or key.revoked_at is not None:
        raise NotAllowed("this management key is not known, or was revoked")
    return Actor(key.name, key.role)
