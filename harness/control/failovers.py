"""The failover log, searched."""

from collections.abc import Sequence
from datetime import timedelta

from harness.control.context import Context
from harness.domain.failover import Failover, hashes_of_user

DEFAULT_SINCE = timedelta(days=1)


def found(
    ctx: Context,
    *,
    secret: bytes,
    route: str | None = None,
    user: str | None = None,
    since: timedelta = DEFAULT_SINCE,
    limit: int = 100,
) -> Sequence[Failover]:
    """Newest first. user: the id as the client sent it; the log has its hash alone."""
    with ctx.store.read() as tx:
        return tx.failovers.list(
            since=ctx.clock.now() - since,
            route=route,
            user_hashes=hashes_of_user(user, secret) if user else (),
            limit=limit,
        )
