"""Advisory locks and LISTEN need a server session of their own, and a pooler in transaction
mode lends one session to several connections. Routers need none.
"""

from typing import Final

import sqlalchemy as sa

from harness.frame.errors import DatabaseUnusable
from harness.frame.records.transaction import clear_frames
from harness.store import engine

_SESSION: Final = sa.text("SELECT pg_backend_pid()")
_POOLER_PORT: Final = 6543
# A pooler that takes its sessions by turns lends another one for a second statement.
_STATEMENTS: Final = 3


def require_own_session(url: str | sa.URL) -> None:
    """Checks a database that answers. Raises DatabaseUnusable behind a pooler in transaction
    mode.
    """
    parsed = engine.parse(url) if isinstance(url, str) else url
    try:
        if has_shared_session(parsed):
            raise DatabaseUnusable(_refusal(parsed))
    except sa.exc.DBAPIError as error:
        # A server that is away is not refused: a process that starts goes on without it.
        clear_frames(error, error.orig)


def has_shared_session(url: sa.URL) -> bool:
    """Tells whether several connections share one session; False on SQLite, which has none.

    Two connections are open at once. A pooler in transaction mode lends the second one the
    session of the first, or takes another session for the first one's next statement.
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
        f"the database is behind a connection pooler in transaction mode{address}, and "
        "Swapgate needs sessions of its own: set `pool_mode = session`, or use the address of "
        "PostgreSQL itself; only `swapgate serve router` may stay behind this pooler"
    )
