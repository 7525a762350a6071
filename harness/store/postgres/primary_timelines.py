"""Keeps an engine from a PostgreSQL server that was the primary once and is not any more
(`watch`): it connects to no server on an older timeline than one that was seen of the same
cluster.

Each promotion of a standby begins the next timeline. `SEEN` knows the newest of this process,
and keeps it in a file for all processes of a `home`. A promotion that none of them has met is
unknown here: a cluster manager still has to fence an old primary.
"""

import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

log = logging.getLogger(__name__)

# A standby that is none yet has no timeline of its own to write on.
_TIMELINE: Final = (
    "SELECT system_identifier::text, CASE WHEN NOT pg_is_in_recovery() THEN"
    " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END"
    " FROM pg_control_system()"
)
_PLACE: Final = "swapgate_timeline"


class Timeline(NamedTuple):
    """Names a timeline of a cluster.

    cluster: PostgreSQL's system identifier, which a standby shares with its primary.
    """

    cluster: str
    number: int


class PrimaryTimelines:
    """Knows the newest timeline of each cluster."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._file: Path | None = None
        self._lock = threading.Lock()

    def keep_in(self, file: Path) -> None:
        """Reads and writes the file from now on; several processes may share it."""
        with self._lock:
            self._file = file

    def newest(self, cluster: str) -> int:
        with self._lock:
            self._read()
            return self._newest.get(cluster, 0)

    def is_old(self, timeline: Timeline) -> bool:
        """Whether this process knows of a newer one."""
        return timeline.number < self._newest.get(timeline.cluster, 0)

    def note(self, timeline: Timeline) -> None:
        with self._lock:
            self._read()
            before = self._newest.get(timeline.cluster, 0)
            if timeline.number <= before:
                return
            self._newest[timeline.cluster] = timeline.number
            # A cluster that was never promoted has nothing to be kept from.
            if self._file is not None and timeline.number > 1:
                with suppress(OSError):  # a full disk keeps nobody from the database
                    self._write(self._file)

    def _read(self) -> None:
        if self._file is None:
            return
        with suppress(OSError, ValueError, AttributeError):
            for cluster, number in json.loads(self._file.read_text("utf-8")).items():
                self._newest[cluster] = max(int(number), self._newest.get(cluster, 0))

    def _write(self, file: Path) -> None:
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(json.dumps(self._newest), "utf-8")
        draft.replace(file)


SEEN: Final = PrimaryTimelines()


def read(connection: Any) -> Timeline | None:
    """Returns the timeline of the server that a connection of psycopg reaches; None of one that
    does not say, such as a standby. Leaves no transaction open.
    """
    import psycopg  # noqa: PLC0415 - loaded for PostgreSQL alone

    try:
        row = connection.execute(_TIMELINE).fetchone()
    except psycopg.Error as error:
        log.info("the server does not tell its timeline: %s", error)
        row = None
    finally:
        if not connection.closed:
            connection.rollback()
    return Timeline(row[0], row[1]) if row and row[1] is not None else None


def admit(connection: Any) -> Timeline | None:
    """The timeline of a new connection of psycopg. Raises its OperationalError, and closes the
    connection, where the server is an old primary.
    """
    import psycopg  # noqa: PLC0415 - loaded for PostgreSQL alone

    timeline = read(connection)
    if timeline is None:
        return None
    newest = SEEN.newest(timeline.cluster)
    if timeline.number < newest:
        host = f"{connection.info.host}:{connection.info.port}"
        connection.close()
        raise psycopg.OperationalError(
            f"{host} is an old primary, on timeline {timeline.number} of {newest}: stop that "
            "server, and make it a standby of the new primary"
        )
    SEEN.note(timeline)
    return timeline


def watch(engine: sa.Engine) -> None:
    """Refuses new connections to an old primary, and drops those that the pool has."""

    def connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_PLACE] = admit(getattr(connection, "driver_connection", connection))

    def check_out(
        connection: DBAPIConnection,  # noqa: ARG001 - the event's signature
        record: ConnectionPoolEntry,
        proxy: sa.PoolProxiedConnection,  # noqa: ARG001
    ) -> None:
        timeline = record.info.get(_PLACE)
        if timeline is not None and SEEN.is_old(timeline):
            raise sa.exc.DisconnectionError("the server is an old primary")

    sa.event.listen(engine, "connect", connect)
    sa.event.listen(engine, "checkout", check_out)
