"""Detects poolers in transaction mode, which give one server session to several connections.
Advisory locks and LISTEN need a separate session; routers use neither.
"""

from typing import Final

import sqlalchemy as sa

from harness.frame.errors import DatabaseUnusable
from harness.frame.records.transaction import clear_frames
from harness.store import engine

_SESSION: Final = sa.text("SELECT pg_backend_pid()")
_POOLER_PORT: Final = 6543
# A pooler that rotates its sessions uses another session for a second statement.
_STATEMENTS: Final = 3


def require_own_session(url: str | sa.URL) -> None:
    """Raises DatabaseUnusable if the database answers behind a pooler in transaction mode."""
    parsed = engine.parse(url) if isinstance(url, str) else url
    try:
        if has_shared_session(parsed):
            raise DatabaseUnusable(_refusal(parsed))
    except sa.exc.DBAPIError as error:
        # An unavailable server is not an error here, because a process can start without it.
        clear_frames(error, error.orig)


def has_shared_session(url: sa.URL) -> bool:
    """Returns whether connections share sessions; False on SQLite, which has no sessions.

    Opens two connections. A pooler in transaction mode gives the second connection the session
    of the first, or uses another session for the first connection's next statement.
    """
    if url.get_backend_name() != "postgresql":
        return False
    with (
        engine.temporary(url, isolation_level="AUTOCOMMIT") as made,
        made.connect() as first,
        made.connect() as second,
    ):
        own = _sessions(first)
        within = second.execution_options(isolation_level="READ COMMITTED")
        with within.begin():
            held = _sessions(within)
            own |= _sessions(first)
        return len(own) > 1 or bool(own & held)


def _sessions(db: sa.Connection) -> set[int]:
    return {db.execute(_SESSION).scalar_one() for _ in range(_STATEMENTS)}


def _refusal(url: sa.URL) -> str:
    pooled = url.port == _POOLER_PORT or "-pooler" in (url.host or "")
    address = f" ({url.host}:{url.port} is the address of a pooler)" if pooled else ""
    return (
        f"the connection pooler in front of the database is in transaction mode{address}, and "
        "Swapgate needs separate sessions: set `pool_mode = session`, or use the address of "
        "PostgreSQL itself; only `swapgate serve router` may use this pooler"
    )
