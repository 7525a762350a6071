"""Shares the rate limits of providers between the eval workers of all hosts, in PostgreSQL: the
state of a limit is a row (`PostgresRates`), a call under way an advisory lock
(`PostgresSlotLocks`), and the clock is the database's.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.domain.content_hash import short_hash
from harness.domain.evals.run import LEASE_S
from harness.domain.reliability.rate_limits import RateState
from harness.store import engine
from harness.store.postgres.database_roles import QUEUE_SCHEMA
from harness.store.postgres.lock_heartbeat import LockHeartbeat

log = logging.getLogger(__name__)

CLOCK_EVERY_S: Final = 30.0
# The server's patience with a connection that holds slots: a run's lease ends by then as well.
SILENT_AFTER_S: Final = LEASE_S
HEARTBEAT_S: Final = 2.0
_RATE: Final = sa.table(
    "rate",
    sa.column("name", sa.Text),
    sa.column("requests_until", sa.Float),
    sa.column("tokens_until", sa.Float),
    schema=QUEUE_SCHEMA,
)
_ADD: Final = sa.text(
    f"INSERT INTO {QUEUE_SCHEMA}.rate VALUES (:key, 0, 0) ON CONFLICT DO NOTHING"  # noqa: S608 - a constant
)
_LOCKED: Final = (
    sa.select(_RATE.c.requests_until, _RATE.c.tokens_until)
    .where(_RATE.c.name == sa.bindparam("key"))
    .with_for_update()
)
_CHANGE: Final = (
    sa.update(_RATE)
    .where(_RATE.c.name == sa.bindparam("key"))
    .values(requests_until=sa.bindparam("requests"), tokens_until=sa.bindparam("tokens"))
)
_NOW: Final = sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")


class PostgresRates:
    """Implements ports.RateBook. While the database is away, this process counts alone."""

    def __init__(self, url: str) -> None:
        self._engine = engine.make(engine.parse(url), pool_size=1, max_overflow=1)
        self._alone: dict[str, RateState] = {}
        self._ahead_s = 0.0  # the database's clock, before this process's monotonic one
        self._compared: float | None = None

    def now(self) -> float:
        """The database's clock, in seconds; compared with ours every half minute."""
        ours = time.monotonic()
        if self._compared is None or ours - self._compared > CLOCK_EVERY_S:
            try:
                with self._engine.connect() as db:
                    self._ahead_s = db.execute(_NOW).scalar_one() - time.monotonic()
            except sa.exc.SQLAlchemyError as error:
                log.warning("rates are counted by this host's clock: %s", error)
            self._compared = ours
        return time.monotonic() + self._ahead_s

    def change(self, key: str, change: Callable[[RateState], RateState]) -> RateState:
        try:
            with self._engine.begin() as db:
                # Whoever is stopped here must not keep the row from all others.
                engine.limit_pauses(db)
                db.execute(_ADD, {"key": key})
                before = RateState(*db.execute(_LOCKED, {"key": key}).one())
                after = change(before)
                if after != before:
                    values = {"requests": after[0], "tokens": after[1]}
                    db.execute(_CHANGE, {"key": key, **values})
        except sa.exc.SQLAlchemyError as error:
            log.warning("rates are counted in this process alone: %s", error)
            before = self._alone.get(key, RateState())
            self._alone[key] = change(before)
        return before

    def close(self) -> None:
        self._engine.dispose()


class PostgresSlotLocks:
    """Implements ports.SlotLocks by advisory locks on a connection of its own: the server frees
    them when it ends, and ends it when its heartbeat is missing. So the slots of a host that is
    stopped or cut off are others' a few seconds later.
    """

    def __init__(self, url: str, provider: str) -> None:
        self._engine = engine.make(
            engine.parse(url),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            patience_s=SILENT_AFTER_S,
        )
        self._class = int.from_bytes(short_hash(provider)[:4], signed=True)
        self._db: sa.Connection | None = None
        self._turn = threading.Lock()
        self._heartbeat = LockHeartbeat(self._beat, HEARTBEAT_S)

    def try_lock(self, slot: int) -> bool:
        key = sa.func.pg_try_advisory_lock(self._class, slot)
        with self._turn:
            try:
                if self._db is None:
                    self._db = self._engine.connect()
                return bool(self._db.execute(sa.select(key)).scalar_one())
            except sa.exc.SQLAlchemyError as error:
                self._disconnect()
                raise OSError(f"the database does not lend a slot: {error}") from error
            finally:
                self._heartbeat.start()

    def unlock(self, slot: int) -> None:
        with self._turn:
            self._ask(sa.func.pg_advisory_unlock(self._class, slot))

    def _beat(self) -> None:
        with self._turn:
            self._ask(sa.literal(1))

    def _ask(self, what: sa.ColumnElement[object]) -> None:
        """Where the connection is lost, the server has freed all that it held."""
        if self._db is not None:
            try:
                self._db.execute(sa.select(what))
            except sa.exc.SQLAlchemyError:
                self._disconnect()

    def _disconnect(self) -> None:
        if self._db is not None:
            # The server frees the locks of a connection that ends a moment later: now, then.
            with suppress(sa.exc.SQLAlchemyError):  # the connection may be lost
                self._db.execute(sa.select(sa.func.pg_advisory_unlock_all()))
            self._db.close()
            self._db = None

    def close(self) -> None:
        self._heartbeat.stop()
        with self._turn:
            self._disconnect()
        self._engine.dispose()
