"""Checks that a connection to PostgreSQL has a server session of its own
(`require_own_session`). Locks, LISTEN and timeouts belong to a session, and a pooler in
transaction mode lends one session to several connections.
"""

from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.domain.errors import DatabaseUnusable
from harness.store import engine

_SESSION: Final = sa.text("SELECT pg_backend_pid()")
_POOLER_PORT: Final = 6543


def require_own_session(url: str) -> None:
    """Checks a database that answers; SQLite has no sessions. Raises DatabaseUnusable behind a
    pooler in transaction mode.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() != "postgresql":
        return
    made = engine.make(parsed, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        # A server that is away is not refused: who starts goes on without it.
        with suppress(sa.exc.SQLAlchemyError):
            if _is_shared(made):
                raise DatabaseUnusable(_refusal(parsed))
    finally:
        made.dispose()


def _is_shared(made: sa.Engine) -> bool:
    """Two connections are open at once. A pooler in transaction mode lends the second one the
    session of the first, or takes another session for the first one's next statement.
    """
    with made.connect() as first, made.connect() as second:
        before = first.execute(_SESSION).scalar_one()
        within = second.execution_options(isolation_level="READ COMMITTED")
        with within.begin():
            held = within.execute(_SESSION).scalar_one()
            return bool(held == before or first.execute(_SESSION).scalar_one() != before)


def _refusal(url: sa.URL) -> str:
    pooled = url.port == _POOLER_PORT or "-pooler" in (url.host or "")
    address = f" ({url.host}:{url.port} is the address of a pooler)" if pooled else ""
    return (
        f"the database is behind a connection pooler in transaction mode{address}, and "
        "Swapgate needs sessions of its own: set `pool_mode = session`, or use the address of "
        "PostgreSQL itself"
    )
