"""Signs people in to the dashboard by OpenID Connect. The server decides the role at each
sign-in; the first sign-in fixes the name. `FailedAttempts` limits failed attempts by address,
for the management API, the agents' API and the dashboard.

The claims are verified before they come here: this module checks their values, not their
signature. Sessions of links and keys are in `harness.operations.dashboard_sessions`.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from harness.frame.errors import Conflict, InputError, NotAllowed
from harness.frame.people.access import (
    MAX_NAME_LENGTH,
    SYSTEM,
    Actor,
    DashboardSession,
    Principal,
    PrincipalKind,
    Role,
    check_principal_name,
    fold_name,
    key_hash,
)
from harness.frame.people.records import DashboardSessions, Principals
from harness.frame.plain_data import canonical_json
from harness.frame.ports import Clock
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.operations import dashboard_sessions
from harness.operations.context import Context
from harness.operations.dashboard_sessions import ActorSession, refusing
from harness.routing.settings import OidcSettings

# Allowed difference between two machines' clocks.
CLOCKS_DIFFER: Final = timedelta(minutes=5)
# Values of the claim `email_verified`; some servers send booleans as texts.
VERIFIED: Final = (True, "true", "True")
# Limit of OpenID Connect Core, in ASCII characters.
LONGEST_SUBJECT: Final = 255


@dataclass(frozen=True, slots=True)
class SignedInIdentity:
    """A person as the identity provider describes them.

    Issuer and subject identify the person.
    """

    issuer: str
    subject: str
    name: str
    role: Role  # the highest role of the person's groups
    issued_at: datetime
    sign_in: str  # the claims as a text, unique for each sign-in

    def require_current(self, now: datetime, lasts: timedelta) -> None:
        """Checks that the sign-in is not older than `lasts`. Raises NotAllowed."""
        if not self.issued_at - CLOCKS_DIFFER <= now < self.issued_at + lasts:
            raise NotAllowed("Your session has expired: sign in again.")


def read_identity(claims: Mapping[str, object], settings: OidcSettings) -> SignedInIdentity:
    """Parses the claims of an ID token. Raises NotAllowed for another issuer, for a missing
    subject, name or time, for an unverified e-mail address, and for a person without a role.
    """
    issuer = _text(claims, "iss")
    if issuer != settings.issuer:
        raise NotAllowed(
            f"the sign-in comes from {issuer!r}, and `ui.oidc.issuer` is {settings.issuer!r}"
        )
    name = _text(claims, settings.name_claim)
    if settings.name_claim == "email" and claims.get("email_verified") not in VERIFIED:
        # At a server that verifies no address, a person could enter another person's address.
        raise NotAllowed(
            f"{issuer} does not confirm that it verified the address {name[:MAX_NAME_LENGTH]}: "
            "verify it there, or let an admin name another claim in `ui.oidc.name_claim`"
        )
    subject = _text(claims, "sub")
    if len(subject) > LONGEST_SUBJECT or not (subject.isascii() and subject.isprintable()):
        raise NotAllowed(
            f"the claim 'sub' of {issuer} is not at most {LONGEST_SUBJECT} ASCII characters"
        )
    return SignedInIdentity(
        issuer=issuer,
        subject=subject,
        name=name,
        role=_role(claims, settings, name),
        issued_at=_issued_at(claims, issuer),
        sign_in=canonical_json(dict(claims)),
    )


def _issued_at(claims: Mapping[str, object], issuer: str) -> datetime:
    """Returns the time of the sign-in. Raises NotAllowed if the claim is missing or no time."""
    seconds = claims.get("iat")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        # The number may not be a valid time.
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(seconds, UTC)
    raise NotAllowed(f"{issuer} did not send the time of your sign-in (`iat`)")


def _text(claims: Mapping[str, object], claim: str) -> str:
    """Returns a claim's text. Raises NotAllowed if it is missing or empty."""
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip():
        raise NotAllowed(f"the sign-in has no claim {claim!r}, which must identify you")
    return value


def _role(
    claims: Mapping[str, object],
    settings: OidcSettings,
    name: str,
) -> Role:
    """Returns the highest role of the person's groups. Raises NotAllowed without one."""
    found = claims.get(settings.roles_claim, ())
    groups = (found,) if isinstance(found, str) else found
    if not isinstance(groups, list | tuple):
        groups = ()
    roles = [
        Role[settings.roles[group].upper()]
        for group in groups
        if isinstance(group, str) and group in settings.roles
    ]
    if not roles:
        raise NotAllowed(
            f"{name[:MAX_NAME_LENGTH]} is in none of the groups that have a role here: an "
            f"admin of {settings.issuer} adds you to one of {', '.join(sorted(settings.roles))}"
        )
    return max(roles)


def sign_in(
    ctx: Context,
    identity: SignedInIdentity,
    *,
    secret: bytes,
    lasts: timedelta,
    former: str = "",
) -> ActorSession:
    """Finds or begins the session of a sign-in. Raises NotAllowed if the sign-in is over, or
    another principal has the person's name.

    former: the cookie of the browser's earlier session, or a sign-in's text. That session ends,
    and the audit log records whose it was.
    """
    identity.require_current(ctx.clock.now(), lasts)
    hash_ = key_hash(identity.sign_in, secret)
    with refusing(), ctx.store.read() as tx:
        session = DashboardSessions(tx).by_cookie(hash_)
        if session is not None:
            return _resumed(tx, session, identity)
    with refusing(), ctx.store.write() as tx:
        # Two tabs may sign in at once.
        session = DashboardSessions(tx).by_cookie(hash_, lock=True)
        if session is None:
            before = dashboard_sessions.find_former(tx, former, secret)
            session = _begin(ctx, tx, identity, hash_, lasts, before)
        return _resumed(tx, session, identity)


def _resumed(
    tx: Transaction,
    session: DashboardSession,
    identity: SignedInIdentity,
) -> ActorSession:
    session.require_open(tx.now())
    person = Principals(tx).get(session.principal)
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
    """Begins a session, and registers the person at the first sign-in.

    The session ends `lasts` after the sign-in at the server, not after the first request here.
    """
    now = ctx.clock.now()
    known = Principals(tx).signed_in(identity.issuer, identity.subject)
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
    DashboardSessions(tx).add(session)
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
    AuditLog(tx).append(actor, "dashboard.sign_in", f"session {session.id}", facts)
    return session


def _register(
    ctx: Context,
    tx: Transaction,
    identity: SignedInIdentity,
) -> Principal:
    """Creates the person's principal. Raises NotAllowed for a taken or invalid name."""
    if fold_name(identity.name) == SYSTEM.name:
        raise NotAllowed(f"{identity.name!r} is the audit log's name for Swapgate itself")
    person = Principal(
        id=ctx.chance.token("pr_"),
        kind=PrincipalKind.PERSON,
        name=_checked(identity.name),
        created_at=ctx.clock.now(),
        issuer=identity.issuer,
        subject=identity.subject,
    )
    try:
        Principals(tx).add(person)
    except Conflict as error:
        # A second principal of the same person could pass four eyes, so an admin decides.
        raise NotAllowed(
            f"another principal has the name {identity.name!r}, and Swapgate cannot know "
            "whether it is you: ask an admin, who sees the names in `swapgate key list`"
        ) from error
    return person


def _shown(name: str) -> str:
    try:
        return check_principal_name(name)
    except InputError:
        return "an invalid name"


def _checked(name: str) -> str:
    try:
        return check_principal_name(name)
    except InputError as error:
        raise NotAllowed(f"the name of this sign-in is invalid: {error}") from error


MOST_ADDRESSES = 10_000


class FailedAttempts:
    """Limits the failed attempts of each address by a leaky bucket. At MOST_ADDRESSES, it
    forgets the oldest address. It is not thread-safe: call it only in the event loop. burst:
    failures allowed at once. per_s: failures forgotten a second.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        burst: int = 10,
        per_s: float = 1.0,
    ) -> None:
        self._clock = clock
        self._each_s = 1.0 / per_s
        self._most_s = burst / per_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()  # monotonic seconds

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 for now."""
        return max(0.0, self._left_s(address) + self._each_s - self._most_s)

    def failed(self, address: str) -> None:
        """Counts a failed attempt."""
        left_s = min(self._most_s, self._left_s(address) + self._each_s)
        self._empty_at[address] = self._clock.monotonic() + left_s
        self._empty_at.move_to_end(address)
        while len(self._empty_at) > MOST_ADDRESSES:
            self._empty_at.popitem(last=False)

    def _left_s(self, address: str) -> float:
        now = self._clock.monotonic()
        return max(0.0, self._empty_at.get(address, now) - now)
