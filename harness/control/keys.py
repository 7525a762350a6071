"""Keys: data keys for clients of the router, management keys with a role. Shown once."""

from collections.abc import Iterable, Sequence

from harness.control.context import Context
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
from harness.ports import Store


def create(
    ctx: Context,
    actor: Actor,
    name: str,
    *,
    secret: bytes,
    role: Role | None = None,
    routes: Iterable[str] = (),
) -> tuple[ApiKey, str]:
    """A new key and its text, which is never shown again. role None: a data key."""
    actor.require(Role.ADMIN)
    if not name.strip():
        raise InputError("a key needs a name, so that people know whose it is")
    if role is not None and name.strip() == SYSTEM.name:
        raise InputError(f"{name.strip()!r} is how the audit log names what no person did")
    granted = frozenset(routes)
    if role is not None and granted:
        raise InputError("a management key has a role, not routes: leave the routes out")
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
    )
    with ctx.store.write() as tx:
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


def all_keys(ctx: Context) -> Sequence[ApiKey]:
    with ctx.store.read() as tx:
        return tx.keys.list()


def authenticate(store: Store, text: str, *, secret: bytes) -> Actor:
    """The actor behind a management key. Raises NotAllowed for any other."""
    with store.read() as tx:
        key = tx.keys.by_hash(key_hash(text, secret))
    if key is None or key.role is None or key.revoked_at is not None:
        raise NotAllowed("this management key is not known, or was revoked")
    return Actor(key.name, key.role)
