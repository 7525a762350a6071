"""Starts a PostgreSQL server for one test alone, which may stop and start it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.store.migrate import upgrade


class OwnPostgres:
    """A server of this test alone, which it may stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        from tests.support.store.postgres import started  # noqa: PLC0415 - the package is for Linux only

        self._server = started(self._folder)

    def stop(self) -> None:
        self._server.stop()

    def url(self, database: str) -> str:
        return self._server.get_uri(database=database, driver="psycopg")


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    from tests.support.store.postgres import stop_server  # noqa: PLC0415 - as above

    # As in conftest: pytest's own folder is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="swapgate-own-pg-"))
    server = OwnPostgres(folder)
    try:
        upgrade(server.url("postgres"))
        yield server
    finally:
        stop_server(folder)
