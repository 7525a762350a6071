"""Deletes a user's content from every table that has some (`delete_user`): sessions of agents
with their messages, captured requests, and the marks of fail-overs. What is proof, such as
verdicts, canaries and the audit log, holds no content of users and stays as it was signed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.control import audit
from harness.control.agents import retention
from harness.control.context import Context
from harness.domain.errors import InputError
from harness.domain.operations.access import Actor, Role
from harness.domain.privacy.stored_content import BEYOND
from harness.domain.reliability.failover import hash_user, user_hashes
from harness.ports import Transaction


@dataclass(frozen=True, slots=True)
class UserDeletion:
    """Says what of a user was deleted, and what such a deletion cannot reach."""

    sessions: int  # with what they spawned, and all messages
    captures: int
    failovers: int  # whose mark was blanked
    not_reached: Sequence[str]  # sentences


def delete_user(
    ctx: Context, actor: Actor, user: str, reason: str, *, secret: bytes
) -> UserDeletion:
    """Delete what a user said and got. user: the id as clients sent it. A second time deletes
    what came since, which may be nothing.

    Raises NotAllowed below an admin, InputError without a user or a reason.
    """
    actor.require(Role.ADMIN)
    if not user.strip():
        raise InputError("say whose content to delete")
    if not reason.strip():
        raise InputError("say why: the audit log keeps the reason, and not the user's id")
    if user in reason:
        raise InputError(
            "the reason names the user, and the audit log is kept for ever: give another one, "
            "such as the number of the request"
        )
    with ctx.store.write() as tx:
        done = _delete(ctx, tx, user, secret)
        audit.record(
            ctx, tx, actor, "user.delete", "a user", {**_counts(done), "reason": reason}
        )
    ctx.store.drop_deleted()
    return done


def purge_user(ctx: Context, actor: Actor, user: str, *, secret: bytes) -> UserDeletion:
    """Delete the same for the agents' API, which takes no reason. Raises NotAllowed below an
    admin, InputError without a user.
    """
    actor.require(Role.ADMIN)
    if not user.strip():
        raise InputError("say whose sessions to delete")
    with ctx.store.write() as tx:
        done = _delete(ctx, tx, user, secret)
        # Not the user's id: the log is kept for ever.
        audit.record(ctx, tx, actor, "agent.purge", "sessions of a user", _counts(done))
    ctx.store.drop_deleted()
    return done


def _delete(ctx: Context, tx: Transaction, user: str, secret: bytes) -> UserDeletion:
    ids = tx.sessions.of_user(user)
    # Agents ask the router in the name of the session: once that is gone, nobody finds what
    # was captured of it.
    of_sessions = (hash_user(f"header:{session}", secret) for session in ids)
    hashes = [*user_hashes(user, secret), *of_sessions]
    captures = tx.captures.purge(users=hashes)
    failovers = tx.failovers.blank_users(hashes)
    return UserDeletion(retention.purge_sessions(ctx, tx, ids), captures, failovers, BEYOND)


def _counts(done: UserDeletion) -> dict[str, object]:
    return {name: getattr(done, name) for name in ("sessions", "captures", "failovers")}
