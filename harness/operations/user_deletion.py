"""Deletes a user's content from every table that has some (`delete_user`), and idle sessions
(`purge_idle`). Proof, such as verdicts and the audit log, has no content of users and stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from harness.agents import agents
from harness.agents.records import AgentGrants, Agents, Sessions, SwitchRequests
from harness.frame.errors import InputError, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.operations.records import Captures
from harness.routing.agent import AgentGrant, SessionState
from harness.routing.context import Context
from harness.routing.records.observations import Failovers
from harness.routing.reliability.failover import hash_user, user_hashes

# Copies that a deletion cannot reach.
BEYOND: Final = (
    "earlier backups contain the user's content until you delete them",
    "exports, reports and suites made of captures are your own files: search them by hand",
    "collectors, alert sinks and providers must delete the copies that they received",
)


@dataclass(frozen=True, slots=True)
class UserDeletion:
    sessions: int  # deleted with their messages, including sub-tasks' sessions
    captures: int
    failovers: int  # failovers whose user hash was blanked
    not_reached: Sequence[str]  # sentences


def delete_user(
    ctx: Context, actor: Actor, user: str, reason: str, *, secret: bytes
) -> UserDeletion:
    """Deletes a user's requests and answers, by the id that clients sent. The audit log records
    the reason and the counts, but not the id. Needs an admin. Raises NotAllowed, InputError
    without a user or a reason.
    """
    actor.require(Role.ADMIN)
    if not user.strip():
        raise InputError("name the user whose content to delete")
    if not reason.strip():
        raise InputError("give a reason: the audit log keeps it, but not the user's id")
    if user in reason:
        raise InputError(
            "the reason contains the user's id, but the audit log is kept for ever: give "
            "another reason, such as the number of the request"
        )
    with ctx.store.write() as tx:
        ids = Sessions(tx).of_user(user)
        # Agents send the session's id as the user, so captures must be found before the
        # session is deleted.
        of_sessions = (hash_user(f"header:{session}", secret) for session in ids)
        hashes = [*user_hashes(user, secret), *of_sessions]
        captures = Captures(tx).purge(users=hashes)
        failovers = Failovers(tx).blank_users(hashes)
        done = UserDeletion(purge_sessions(ctx, tx, ids), captures, failovers, BEYOND)
        counts = {name: getattr(done, name) for name in ("sessions", "captures", "failovers")}
        # Omits the user's id, because the log is kept for ever.
        AuditLog(tx).append(actor, "user.delete", "a user", {**counts, "reason": reason})
    ctx.store.drop_deleted()
    return done


PURGED: Final = "its transcript was deleted"
_AT_A_TIME: Final = 100


def purge_idle(ctx: Context, keep: timedelta) -> int:
    """Deletes sessions that were idle for `keep`, then deleted agents; counts the sessions."""
    now, count = ctx.clock.now(), 0
    while True:
        with ctx.store.write() as tx:
            idle = Sessions(tx).idle_since(now - keep, limit=_AT_A_TIME)
            count += purge_sessions(ctx, tx, idle)
            if not idle:
                Agents(tx).forget(now - keep)
                break
    if count:
        ctx.store.drop_deleted()
    return count


def purge_sessions(ctx: Context, tx: Transaction, ids: Sequence[str]) -> int:
    """Deletes sessions and counts them. ids: each session before its parent."""
    for session in ids:
        agents.close_in_unit(ctx, tx, session, PURGED)
        SwitchRequests(tx).blank(session)
        Sessions(tx).delete(session)
    return len(ids)


def revoke_stale_grants(ctx: Context) -> int:
    """Revokes grants that have expired or ended, so that routers need not load them."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        known = AgentGrants(tx).not_revoked()
        stale = [g for g in known if now >= g.expires_at or _has_ended(tx, g)]
    if stale:
        with ctx.store.write() as tx:
            for grant in stale:
                AgentGrants(tx).revoke(grant.id, now)
            details = {"grants": [grant.id for grant in stale], "reason": "ended"}
            AuditLog(tx).append(SYSTEM, "agent.grant_end", "grants of agents", details)
    return len(stale)


def _has_ended(tx: Transaction, grant: AgentGrant) -> bool:
    try:
        if Agents(tx).get(grant.agent).deleted_at is not None:
            return True
        session = Sessions(tx).get(grant.session) if grant.session else None
    except NotFound:
        return True
    return session is not None and session.state is SessionState.CLOSED
