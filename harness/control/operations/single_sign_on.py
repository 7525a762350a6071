"""Signs people in to the dashboard by OpenID Connect: `sign_in` finds or makes the principal of
an issuer's subject, and the session of this one sign-in, which ends as all others do.

The roles are the server's word each time; the name is fixed at the first sign-in.

Limits failed attempts to sign in, by address: `FailedAttempts`, for the management API, the
agents' API and the dashboard.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from harness.control import audit
from harness.control.context import Context
from harness.control.operations import dashboard_sessions
from harness.control.operations.dashboard_sessions import ActorSession, refusing
from harness.domain.errors import Conflict, InputError, NotAllowed
from harness.domain.operations.access import SYSTEM, Actor, key_hash
from harness.domain.operations.dashboard_session import DashboardSession
from harness.domain.operations.principals import (
    Principal,
    PrincipalKind,
    check_principal_name,
    fold_name,
)
from harness.domain.operations.single_sign_on import SignedInIdentity
from harness.ports import Clock
from harness.store.transaction import Transaction


def sign_in(
    ctx: Context,
    identity: SignedInIdentity,
    *,
    secret: bytes,
    lasts: timedelta,
    former: str = "",
) -> ActorSession:
    """Finds or begins the session of a sign-in. former: the cookie of the browser's session by
    a key or a link, and of a single sign-on its text; the session ends, and the audit log has
    whose it was. Raises NotAllowed where the sign-in is over, or the person's name is another
    principal's.
    """
    identity.require_current(ctx.clock.now(), lasts)
    hash_ = key_hash(identity.sign_in, secret)
    with refusing(), ctx.store.read() as tx:
        session = tx.dashboard_sessions.by_cookie(hash_)
        if session is not None:
            return _resumed(ctx, tx, session, identity)
    with refusing(), ctx.store.write() as tx:
        # Two tabs may have asked at once.
        session = tx.dashboard_sessions.by_cookie(hash_, lock=True)
        if session is None:
            before = dashboard_sessions.find_former(ctx, tx, former, secret)
            session = _begin(ctx, tx, identity, hash_, lasts, before)
        return _resumed(ctx, tx, session, identity)


def _resumed(
    ctx: Context, tx: Transaction, session: DashboardSession, identity: SignedInIdentity
) -> ActorSession:
    session.require_open(ctx.clock.now())
    person = tx.principals.get(session.principal)
    return ActorSession(session, _acting(person, identity))


def _acting(person: Principal, identity: SignedInIdentity) -> Actor:
    return Actor(person.name, identity.role, person.id)


def _begin(
    ctx: Context,
    tx: Transaction,
    identity: SignedInIdentity,
    hash_: str,
    lasts: timedelta,
    before: DashboardSession | None,
) -> DashboardSession:
    now = ctx.clock.now()
    known = tx.principals.signed_in(identity.issuer, identity.subject)
    person = known or _register(ctx, tx, identity)
    session = DashboardSession(
        id=ctx.chance.token("ds_"),
        principal=person.id,
        key=None,
        created_at=now,
        created_by=person.id,
        cookie_hash=hash_,
        opened_at=now,
        expires_at=identity.issued_at + lasts,
    )
    tx.dashboard_sessions.add(session)
    actor = _acting(person, identity)
    facts = {
        "by": "oidc",
        "issuer": identity.issuer,
        "subject": identity.subject,
        "role": actor.role.name.lower(),
        "called": _shown(identity.name),
        "new": known is None,
        "instead_of": before.principal if before is not None else None,
    }
    audit.record(ctx, tx, actor, "dashboard.sign_in", f"session {session.id}", facts)
    return session


def _register(ctx: Context, tx: Transaction, identity: SignedInIdentity) -> Principal:
    if fold_name(identity.name) == SYSTEM.name:
        raise NotAllowed(f"{identity.name!r} is how the audit log names what no person did")
    person = Principal(
        id=ctx.chance.token("pr_"),
        kind=PrincipalKind.PERSON,
        name=_checked(identity.name),
        created_at=ctx.clock.now(),
        issuer=identity.issuer,
        subject=identity.subject,
    )
    try:
        tx.principals.add(person)
    except Conflict as error:
        # Two principals of one person would pass four eyes; one of two persons would not.
        raise NotAllowed(
            f"{identity.name!r} is somebody's name here already, and nobody knows that it is "
            "you: an admin looks at `swapgate key list`"
        ) from error
    return person


def _shown(name: str) -> str:
    """The name as the server has it now, where the log can show it to a reader as it is."""
    try:
        return check_principal_name(name)
    except InputError:
        return "a name that nobody can act under"


def _checked(name: str) -> str:
    try:
        return check_principal_name(name)
    except InputError as error:
        raise NotAllowed(f"nobody can act under this name: {error}") from error


MOST_ADDRESSES = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class FailedAttempts:
    """Limits the failed attempts of each address by a token bucket. burst: failures at once;
    per_s: how fast they come back.

    Used from the event loop alone, so it takes no lock. Bounded: the address that failed
    longest ago is forgotten first.
    """

    def __init__(self, clock: Clock, *, burst: int = 10, per_s: float = 1.0) -> None:
        self._clock, self._burst, self._per_s = clock, burst, per_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        bucket = self._buckets.get(address)
        if bucket is None:
            return 0.0
        self._refill(bucket)
        return max(0.0, (1.0 - bucket.tokens) / self._per_s)

    def failed(self, address: str) -> None:
        """Takes a token for a failed attempt. Two attempts in flight may take the last one
        twice: no harm.
        """
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            bucket = _Bucket(float(self._burst), self._clock.monotonic())
        self._refill(bucket)
        bucket.tokens = max(0.0, bucket.tokens - 1.0)
        self._buckets[address] = bucket
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def _refill(self, bucket: _Bucket) -> None:
        now = self._clock.monotonic()
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
