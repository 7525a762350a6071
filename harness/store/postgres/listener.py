"""`PostgresListener` notices changes on PostgreSQL by LISTEN; triggers
(`harness.store.guards.triggers`) send the NOTIFY. It is loaded only there, as the driver's
import takes long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import sqlalchemy as sa

from harness.store import engine
from harness.store.database_errors import clear_frames

CHANNEL: Final = "swapgate_changed"


class PostgresListener:
    """Listens for changes of the database on one connection. Raises OSError when it is lost."""

    def __init__(self, url: sa.URL) -> None:
        with _as_lost():
            self._db = psycopg.connect(autocommit=True, **engine.driver_arguments(url))
            self._db.execute(f"LISTEN {CHANNEL}")

    def poll_changes(self, timeout_s: float) -> bool:
        """Waits for a change, and tells whether there was one; False after `timeout_s`."""
        with _as_lost():
            return any(True for _ in self._db.notifies(timeout=timeout_s, stop_after=1))

    def close(self) -> None:
        self._db.close()


@contextmanager
def _as_lost() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        clear_frames(error)
        raise ConnectionError("the connection to PostgreSQL is lost") from error
