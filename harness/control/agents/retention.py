"""Deletes transcripts of sessions that nobody used for as long as the settings say
(`purge_idle`, a periodic job), or that it is told (`purge_sessions`). Control ends grants by
`revoke_stale_grants`: when they, their session or their agent have ended.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from harness.control.agents import sessions
from harness.control.agents.agents import end_grants
from harness.control.context import Context
from harness.domain.agents.agent import SessionState
from harness.domain.agents.grant import AgentGrant
from harness.domain.errors import NotFound
from harness.ports import Transaction

PURGED: Final = "its transcript was deleted"
# How long a request may be sent again under its idempotency key.
KEEP_ANSWERS: Final = timedelta(days=1)
_AT_A_TIME: Final = 100


def purge_idle(ctx: Context, keep: timedelta) -> int:
    """Delete sessions whose newest message is older, and then deleted agents; how many
    sessions. keep: how long they are kept.
    """
    now, count = ctx.clock.now(), 0
    while True:
        with ctx.store.write() as tx:
            idle = tx.sessions.idle_since(now - keep, limit=_AT_A_TIME)
            count += purge_sessions(ctx, tx, idle)
            if not idle:
                tx.idempotent_answers.forget(now - KEEP_ANSWERS)
                tx.agents.forget(now - keep)
                break
    if count:
        ctx.store.drop_deleted()
    return count


def purge_sessions(ctx: Context, tx: Transaction, ids: Sequence[str]) -> int:
    """Delete sessions with all that was said in them; how many. ids: each before the one that
    spawned it.
    """
    for session in ids:
        sessions.close_in_unit(ctx, tx, session, PURGED)
        tx.switch_requests.blank(session)
        tx.sessions.delete(session)
    return len(ids)


def revoke_stale_grants(ctx: Context) -> int:
    """Revoke the grants that open nothing any more, so that routers need not carry them."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        known = tx.agent_grants.not_revoked()
        stale = [g for g in known if now >= g.expires_at or _has_ended(tx, g)]
    if stale:
        end_grants(ctx, stale, "ended")
    return len(stale)


def _has_ended(tx: Transaction, grant: AgentGrant) -> bool:
    """Whether its agent, or its session, is there no more."""
    try:
        if tx.agents.get(grant.agent).deleted_at is not None:
            return True
        session = tx.sessions.get(grant.session) if grant.session else None
    except NotFound:
        return True
    return session is not None and session.state is SessionState.CLOSED
