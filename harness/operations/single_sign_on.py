"""Signs people in to the dashboard by OpenID Connect. The server decides the role at each
sign-in; the first sign-in fixes the name. `FailedAttempts` limits failed attempts by address,
for the management API, the agents' API and the dashboard.

The caller has verified the signature of the claims; this module checks their values. Sessions
of links and keys are in `harness.operations.dashboard_sessions`.
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
from harness.operations.dashboard_sessions import ActorSession, refuse_invalid_rows
from harness.routing.settings import OidcSettings

# Allowed difference between two machines' clocks.
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
# Values of the claim `email_verified`; some servers send booleans as texts.
VERIFIED_VALUES: Final = (True, "true", "True")
# Limit of OpenID Connect Core, in ASCII characters.
MAX_SUBJECT_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class SignedInIdentity:
    """A person as the sign-on server describes them. Issuer and subject identify the person."""

    issuer: str
    subject: str
    name: str
    role: Role  # the highest role of the person's groups
    issued_at: datetime
    sign_in: str  # the claims as a text, unique for each sign-in

    def require_current(self, now: datetime, lasts: timedelta) -> None:
        """Checks that the sign-in is not older than `lasts`. Raises NotAllowed."""
        if not self.issued_at - CLOCK_TOLERANCE <= now < self.issued_at + lasts:
            raise NotAllowed("Your session has expired: sign in again.")


def read_identity(claims: Mapping[str, object], settings: OidcSettings) -> SignedInIdentity:
    """Parses the claims of an ID token. Raises NotAllowed for another issuer, for a missing
    subject, name or time, for an unverified e-mail address, and for a person without a role.
    """
    issuer = _read_text_claim(claims, "iss")
    if issuer != settings.issuer:
        raise NotAllowed(
            f"the sign-in comes from {issuer!r}, and `ui.oidc.issuer` is {settings.issuer!r}"
        )
    name = _read_text_claim(claims, settings.name_claim)
    if settings.name_claim == "email" and claims.get("email_verified") not in VERIFIED_VALUES:
        # If the server does not verify addresses, a person could enter another person's
        # address.
        raise NotAllowed(
            f"{issuer} does not confirm that it verified the address {name[:MAX_NAME_LENGTH]}: "
            "verify it there, or let an admin name another claim in `ui.oidc.name_claim`"
        )
    subject = _read_text_claim(claims, "sub")
    if len(subject) > MAX_SUBJECT_LENGTH or not (subject.isascii() and subject.isprintable()):
        raise NotAllowed(
            f"the claim 'sub' of {issuer} is not at most {MAX_SUBJECT_LENGTH} ASCII characters"
        )
    return SignedInIdentity(
        issuer=issuer,
        subject=subject,
        name=name,
        role=_choose_role(claims, settings, name),
        issued_at=_read_issue_time(claims, issuer),
        sign_in=canonical_json(dict(claims)),
    )


def _read_issue_time(claims: Mapping[str, object], issuer: str) -> datetime:
    """Returns the time of the sign-in. Raises NotAllowed if the claim is missing or is not a
    time.
    """
    seconds = claims.get("iat")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        # The number may not be a valid time.
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(seconds, UTC)
    raise NotAllowed(f"{issuer} did not send the time of your sign-in (`iat`)")


def _read_text_claim(claims: Mapping[str, object], claim: str) -> str:
    """Returns a claim's text. Raises NotAllowed if it is missing or empty."""
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip():
        raise NotAllowed(f"the sign-in has no claim {claim!r}, which must identify you")
    return value


def _choose_role(
    claims: Mapping[str, object],
    settings: OidcSettings,
    name: str,
) -> Role:
    """Returns the highest role of the person's groups. Raises NotAllowed if no group has a
    role.
    """
    claimed_groups = claims.get(settings.roles_claim, ())
    groups = (claimed_groups,) if isinstance(claimed_groups, str) else claimed_groups
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
    """Finds or begins the session of a sign-in. Raises NotAllowed if the sign-in is too old, or
    another principal has the person's name.

    Args:
        former: the cookie, or the sign-in's text, of the browser's earlier session. That
            session ends, and the audit log records its principal.
    """
    identity.require_current(ctx.clock.now(), lasts)
    hash_ = key_hash(identity.sign_in, secret)
    with refuse_invalid_rows(), ctx.store.read() as tx:
        session = DashboardSessions(tx).by_cookie(hash_)
        if session is not None:
            return _resume(tx, session, identity)
    with refuse_invalid_rows(), ctx.store.write() as tx:
        # Two tabs may sign in at once.
        session = DashboardSessions(tx).by_cookie(hash_, lock=True)
        if session is None:
            former_session = dashboard_sessions.find_former(tx, former, secret)
            session = _begin_session(ctx, tx, identity, hash_, lasts, former_session)
        return _resume(tx, session, identity)


def _resume(
    tx: Transaction,
    session: DashboardSession,
    identity: SignedInIdentity,
) -> ActorSession:
    session.require_open(tx.now())
    person = Principals(tx).get(session.principal)
    return ActorSession(session, _build_actor(person, identity))


def _build_actor(person: Principal, identity: SignedInIdentity) -> Actor:
    return Actor(person.name, identity.role, person.id)


def _begin_session(
    ctx: Context,
    tx: Transaction,
    identity: SignedInIdentity,
    hash_: str,
    lasts: timedelta,
    former_session: DashboardSession | None,
) -> DashboardSession:
    """Begins a session, and registers the person at the first sign-in.

    The session ends `lasts` after the sign-in at the server, not after the first request here.
    """
    now = ctx.clock.now()
    registered = Principals(tx).signed_in(identity.issuer, identity.subject)
    person = registered or _register(ctx, tx, identity)
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
    actor = _build_actor(person, identity)
    details = {
        "by": "oidc",
        "issuer": identity.issuer,
        "subject": identity.subject,
        "role": actor.role.name.lower(),
        "called": _name_for_log(identity.name),
        "new": registered is None,
        "instead_of": former_session.principal if former_session is not None else None,
    }
    AuditLog(tx).append(actor, "dashboard.sign_in", f"session {session.id}", details)
    return session


def _register(
    ctx: Context,
    tx: Transaction,
    identity: SignedInIdentity,
) -> Principal:
    """Creates the person's principal. Raises NotAllowed if the name is invalid, or if another
    principal has it.
    """
    if fold_name(identity.name) == SYSTEM.name:
        raise NotAllowed(f"{identity.name!r} is the audit log's name for Swapproof itself")
    person = Principal(
        id=ctx.chance.token("pr_"),
        kind=PrincipalKind.PERSON,
        name=_require_name(identity.name),
        created_at=ctx.clock.now(),
        issuer=identity.issuer,
        subject=identity.subject,
    )
    try:
        Principals(tx).add(person)
    except Conflict as error:
        # A second principal of the same person could pass the four-eyes rule, so an admin
        # decides.
        raise NotAllowed(
            f"another principal has the name {identity.name!r}, and Swapproof cannot know "
            "whether it is you: ask an admin, who sees the names in `swapproof key list`"
        ) from error
    return person


def _name_for_log(name: str) -> str:
    try:
        return check_principal_name(name)
    except InputError:
        return "an invalid name"


def _require_name(name: str) -> str:
    try:
        return check_principal_name(name)
    except InputError as error:
        raise NotAllowed(f"the name of this sign-in is invalid: {error}") from error


MAX_ADDRESSES = 10_000


class FailedAttempts:
    """Limits the failed attempts of each address by a leaky bucket. At MAX_ADDRESSES, it
    forgets the oldest address. It is not thread-safe: only the event loop may use it. burst:
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
        self._seconds_per_attempt = 1.0 / per_s
        self._capacity_s = burst / per_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()  # monotonic seconds

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 for now."""
        return max(0.0, self._left_s(address) + self._seconds_per_attempt - self._capacity_s)

    def failed(self, address: str) -> None:
        """Counts a failed attempt."""
        left_s = min(self._capacity_s, self._left_s(address) + self._seconds_per_attempt)
        self._empty_at[address] = self._clock.monotonic() + left_s
        self._empty_at.move_to_end(address)
        while len(self._empty_at) > MAX_ADDRESSES:
            self._empty_at.popitem(last=False)

    def _left_s(self, address: str) -> float:
        now = self._clock.monotonic()
        return max(0.0, self._empty_at.get(address, now) - now)
