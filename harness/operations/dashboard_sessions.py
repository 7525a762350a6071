"""Signs people in to the dashboard, by a one-time link or a management key. The database has
only hashes of links and cookies. The audit log records each step under the person's name.

A session has no role of its own: each request reads the role of the session's key.
`dashboard.sign_in_page` sets the cookies; single sign-on is in
`harness.operations.single_sign_on`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from harness.frame.errors import Conflict, NotAllowed, NotFound
from harness.frame.people.access import (
    COOKIE_PREFIX,
    LINK_LASTS,
    LINK_PREFIX,
    LOCAL_PRINCIPAL,
    OPERATOR,
    Actor,
    DashboardSession,
    Role,
    check_lifetime,
    key_hash,
    require_link_right,
)
from harness.frame.people.four_eyes import load_key_creators
from harness.frame.people.records import (
    ApiKeys,
    DashboardSessions,
    Principals,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.operations import keys
from harness.operations.context import Context

NO_LINK: Final = (
    "this link is not from this installation; `swapproof key sign-in-link` prints a new one"
)
refuse_invalid_rows = partial(keys.refuse_invalid_rows, "Swapproof refuses every sign-in")
NEW_LINK_ADVICE: Final = "`swapproof key sign-in-link` prints a new one"


@dataclass(frozen=True, slots=True)
class ActorSession:
    """A session with the actor that it acts as now."""

    session: DashboardSession
    actor: Actor


def create_link(
    ctx: Context,
    actor: Actor,
    key: str | None = None,
    *,
    secret: bytes,
    lasts: timedelta = LINK_LASTS,
) -> tuple[DashboardSession, str]:
    """Creates a link that signs in once. Returns it with its text, which is never shown again.

    Args:
        key: the id of the management key that the session acts with; None for the actor's own.

    Raises NotFound, NotAllowed for another person's key that the actor may not use.
    """
    now = ctx.clock.now()
    text = f"{LINK_PREFIX}{ctx.chance.secret()}"
    with refuse_invalid_rows(), ctx.store.write() as tx:
        owner = _find_owner(tx, actor, key)
        session = DashboardSession(
            id=ctx.chance.token("ds_"),
            principal=owner.principal,
            key=owner.key,
            created_at=now,
            created_by=actor.principal,
            created_with=actor.key,
            link_hash=key_hash(text, secret),
            link_expires_at=now + check_lifetime(lasts),
        )
        DashboardSessions(tx).add(session)
        details = {
            "for": owner.name,
            "principal": owner.principal,
            "key": owner.key,
        }
        AuditLog(tx).append(actor, "dashboard.link", f"session {session.id}", details)
    return session, text


def _find_owner(
    tx: Transaction,
    actor: Actor,
    key: str | None,
) -> Actor:
    """Returns the actor of the key that a new link acts with.

    Args:
        key: None for the actor's own key.

    Raises NotFound, NotAllowed.
    """
    if key is None or key == actor.key:
        return actor
    if ApiKeys(tx).find(key) is None:
        raise NotFound(f"there is no key {key}: `swapproof key list` shows them")
    owner = keys.actor_behind(tx, key)
    require_link_right(
        for_key=key,
        creator=actor.principal,
        creator_key=actor.key,
        key_creators=load_key_creators(tx, key),
    )
    return owner


def preview_link(
    ctx: Context,
    link: str,
    *,
    secret: bytes,
    former: str = "",
) -> ActorSession:
    """Finds the actor that an unused link would sign in. Raises NotAllowed."""
    waiting = _find_waiting(ctx, link, former, secret)
    if waiting is not None:
        return waiting
    with refuse_invalid_rows(), ctx.store.write() as tx:
        replayed = _end_replayed(tx, link, former, secret)
        if replayed is None:
            return _require_waiting(tx, link, secret)
    raise NotAllowed(replayed)


def open_link(
    ctx: Context,
    link: str,
    *,
    secret: bytes,
    lasts: timedelta,
    former: str = "",
) -> tuple[ActorSession, str]:
    """Opens a session by a link, once. Returns it with the cookie's text. Raises NotAllowed.

    If another browser sends a used link before the link expires, two people have the link. In
    that case, the session that the link opened ends.

    Args:
        former: the browser's present cookie, whose session ends.
    """
    _find_waiting(ctx, link, former, secret)
    with refuse_invalid_rows(), ctx.store.write() as tx:
        replayed = _end_replayed(tx, link, former, secret)
        if replayed is None:
            waiting_session = _require_waiting(tx, link, secret)
            opened_session, cookie = _open_now(
                ctx,
                waiting_session.session,
                secret,
                lasts,
            )
            DashboardSessions(tx).save(opened_session)
            _record_start(
                tx,
                ActorSession(opened_session, waiting_session.actor),
                _end_former(tx, former, secret),
            )
    if replayed is not None:
        raise NotAllowed(replayed)
    return ActorSession(opened_session, waiting_session.actor), cookie


def open_with_key(
    ctx: Context,
    text: str,
    *,
    secret: bytes,
    lasts: timedelta,
    former: str = "",
) -> tuple[ActorSession, str]:
    """Opens a session by a management key.

    Args:
        former: as for `open_link`.

    Raises NotAllowed.
    """
    actor = keys.authenticate(ctx.store, text, secret=secret)
    now = ctx.clock.now()
    new_session = DashboardSession(
        id=ctx.chance.token("ds_"),
        principal=actor.principal,
        key=actor.key,
        created_at=now,
        created_by=actor.principal,
        created_with=actor.key,
    )
    session, cookie = _open_now(
        ctx,
        new_session,
        secret,
        lasts,
    )
    with ctx.store.write() as tx:
        DashboardSessions(tx).add(session)
        _record_start(tx, ActorSession(session, actor), _end_former(tx, former, secret))
    return ActorSession(session, actor), cookie


def resume(
    ctx: Context,
    cookie: str,
    *,
    secret: bytes,
) -> ActorSession:
    """Finds the actor of a cookie, with its present role. Raises NotAllowed."""
    with refuse_invalid_rows(), ctx.store.read() as tx:
        session = DashboardSessions(tx).by_cookie(key_hash(cookie, secret))
        if session is None:
            raise NotAllowed("this browser is not signed in")
        session.require_open(ctx.clock.now())
        return ActorSession(session, _load_actor(tx, session))


def end(ctx: Context, signed_in: ActorSession) -> None:
    """Signs out: the browser's cookie becomes invalid."""
    with refuse_invalid_rows(), ctx.store.write() as tx:
        _end_by_cookie(tx, signed_in.session.cookie_hash)


def find_former(
    tx: Transaction,
    cookie: str,
    secret: bytes,
) -> DashboardSession | None:
    """Ends the session of the browser's earlier cookie, and returns it; None without one."""
    former = DashboardSessions(tx).by_cookie(key_hash(cookie, secret)) if cookie else None
    if former is not None:
        _end_by_cookie(tx, former.cookie_hash)
    return former


def _end_former(
    tx: Transaction,
    cookie: str,
    secret: bytes,
) -> Actor | None:
    return _end_by_cookie(tx, key_hash(cookie, secret)) if cookie else None


def _end_by_cookie(tx: Transaction, cookie_hash: str | None) -> Actor | None:
    """Ends the session of a cookie. Returns the session's actor; None if no session is open."""
    session = DashboardSessions(tx).by_cookie(cookie_hash, lock=True) if cookie_hash else None
    if session is None or session.ended_at is not None:
        return None
    DashboardSessions(tx).save(replace(session, ended_at=tx.now()))
    name = Principals(tx).get(session.principal).name
    # Everybody may sign out, even with a revoked key.
    actor = Actor(name, Role.VIEWER, session.principal, session.key)
    AuditLog(tx).append(actor, "dashboard.sign_out", f"session {session.id}", {})
    return actor


@dataclass(frozen=True, slots=True)
class SignedInSession:
    """An open session for lists, without secrets."""

    id: str
    principal: str
    name: str
    by: str  # key, link or oidc
    key: str | None  # id of the management key with which the session acts
    opened_at: datetime
    expires_at: datetime


def list_open(ctx: Context, actor: Actor | None) -> Sequence[SignedInSession]:
    """Lists open sessions, newest first: all for an admin, otherwise the actor's own.

    Args:
        actor: None if the caller is not signed in.
    """
    if actor is None:
        return []
    with refuse_invalid_rows(), ctx.store.read() as tx:
        return [
            _summarize(tx, session)
            for session in DashboardSessions(tx).open_at(ctx.clock.now())
            if actor.role >= Role.ADMIN or session.principal == actor.principal
        ]


def end_session(
    ctx: Context,
    actor: Actor,
    session: str,
    reason: str,
) -> SignedInSession:
    """Ends a session, which makes the browser's cookie invalid. Needs an admin, except for the
    caller's own session. Raises NotFound, NotAllowed, InputError without a reason, Conflict for
    an ended session.
    """
    checked_reason = require_reason(reason, "to end a session")
    now = ctx.clock.now()
    with refuse_invalid_rows(), ctx.store.write() as tx:
        stored_session = DashboardSessions(tx).get(session)
        if stored_session.principal != actor.principal:
            actor.require(Role.ADMIN)
        if stored_session.opened_at is None or stored_session.ended_at is not None:
            raise Conflict(f"the session {session} has ended already")
        DashboardSessions(tx).save(replace(stored_session, ended_at=now))
        details = {"of": stored_session.principal, "reason": checked_reason}
        AuditLog(tx).append(actor, "dashboard.end", f"session {session}", details)
        return _summarize(tx, stored_session)


def _summarize(tx: Transaction, session: DashboardSession) -> SignedInSession:
    if session.opened_at is None or session.expires_at is None:
        raise Conflict(f"the session {session.id} was never opened")
    by = "link" if session.link_hash is not None else "key" if session.key else "oidc"
    return SignedInSession(
        id=session.id,
        principal=session.principal,
        name=Principals(tx).get(session.principal).name,
        by=by,
        key=session.key,
        opened_at=session.opened_at,
        expires_at=session.expires_at,
    )


def _find_waiting(
    ctx: Context,
    link: str,
    former: str,
    secret: bytes,
) -> ActorSession | None:
    """Finds the session of an unused link; None for a link that another browser used. Raises
    NotAllowed. Only reads, because anybody can send wrong links, and a wrong link must not
    start a write transaction.
    """
    with refuse_invalid_rows(), ctx.store.read() as tx:
        if _find_replayed(tx, link, former, secret) is not None:
            return None
        return _require_waiting(tx, link, secret)


def _require_waiting(
    tx: Transaction,
    link: str,
    secret: bytes,
) -> ActorSession:
    """Finds the session of an unused link. Raises NotAllowed for an unknown, used or expired
    link, and if a key behind it was revoked.
    """
    session = DashboardSessions(tx).by_link(key_hash(link, secret))
    if session is None:
        raise NotAllowed(NO_LINK)
    session.require_link(tx.now())
    if session.created_with is not None:
        # A person whose key is revoked may still have an unused link.
        keys.actor_behind(tx, session.created_with)
    return ActorSession(session, _load_actor(tx, session))


def _end_replayed(
    tx: Transaction,
    link: str,
    former: str,
    secret: bytes,
) -> str | None:
    """Ends the session of a link that a second browser sends. Returns the message for that
    browser; None for any other link.
    """
    session = _find_replayed(tx, link, former, secret)
    if session is None or session.opened_at is None:
        return None
    DashboardSessions(tx).save(replace(session, ended_at=tx.now()))
    actor = _load_actor(tx, session)
    details = {"opened_at": session.opened_at.isoformat()}
    AuditLog(tx).append(actor, "dashboard.link_replayed", f"session {session.id}", details)
    return (
        f"this link was used at {session.opened_at:%H:%M} UTC already, so another person may "
        f"have it. Swapproof ended the session that it opened; {NEW_LINK_ADVICE}"
    )


def _find_replayed(
    tx: Transaction,
    link: str,
    former: str,
    secret: bytes,
) -> DashboardSession | None:
    """Finds the session of a used link that another browser sends before the link expires."""
    session = DashboardSessions(tx).by_link(key_hash(link, secret))
    if session is None or session.opened_at is None or session.link_expires_at is None:
        return None
    has_ended = tx.now() >= session.link_expires_at or session.ended_at is not None
    return None if has_ended or session.cookie_hash == key_hash(former, secret) else session


def _open_now(
    ctx: Context,
    session: DashboardSession,
    secret: bytes,
    lasts: timedelta,
) -> tuple[DashboardSession, str]:
    """Returns the session in its opened state, without storing it, and the text of its new
    cookie.
    """
    now = ctx.clock.now()
    # Always a new cookie, so that an attacker cannot plant a known cookie in the browser.
    cookie = f"{COOKIE_PREFIX}{ctx.chance.secret()}"
    opened_session = replace(
        session,
        cookie_hash=key_hash(cookie, secret),
        opened_at=now,
        expires_at=now + lasts,
    )
    return opened_session, cookie


def _load_actor(tx: Transaction, session: DashboardSession) -> Actor:
    """Returns the session's actor with its present role. Raises NotAllowed."""
    if session.key is not None:
        return keys.actor_behind(tx, session.key)
    if session.principal != LOCAL_PRINCIPAL.id:
        raise NotAllowed("this session has no key, which only the local operator may omit")
    return OPERATOR


def _record_start(
    tx: Transaction,
    signed_in: ActorSession,
    former_actor: Actor | None,
) -> None:
    """Records a sign-in.

    Args:
        former_actor: the actor whose session in the same browser ended.
    """
    session = signed_in.session
    details = {
        "by": "key" if session.link_hash is None else "link",
        "made_by": session.created_by,
        "made_with": session.created_with,
        # Reviews of the four-eyes rule need this: the browser was signed in as another
        # principal.
        "instead_of": former_actor.principal if former_actor is not None else None,
    }
    subject = f"session {session.id}"
    AuditLog(tx).append(signed_in.actor, "dashboard.sign_in", subject, details)
