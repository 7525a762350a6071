"""The store on SQLite or PostgreSQL, by URL.

Each use opens one transaction: `write` and `read` for decisions, `listings` for people. The
repositories of the subjects work in a transaction; this module does not contain their rules.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import sqlalchemy as sa

from harness.app.store import schema_revisions, signed_snapshot
from harness.app.store.manifest import Manifests
from harness.app.store.row_faults import (
    find_row_faults,
    find_working_faults,
    remove_rows,
    sign_rows,
    without_triggers,
)
from harness.frame.database import engine
from harness.frame.database.change_listener import Changes
from harness.frame.database.engine import SqliteFile
from harness.frame.database.leader import leadership
from harness.frame.errors import SignatureInvalid
from harness.frame.people.access import Actor
from harness.frame.ports import Clock, Signatures
from harness.frame.records.signed_tables import RowSignatures
from harness.frame.records.transaction import Transaction, translated
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.signed_rows import Lineage, RowFault
from harness.operations.listings import Listings
from harness.routing.records.installation import (
    Installations,
    meta,
    missing_lineage,
)
from harness.routing.table import Snapshot

# Each attempt waits for readers, at most for the lock timeout.
CHECKPOINT_ATTEMPTS: Final = 3
# Contains the server's start time, so that a restarted or new server never repeats a mark.
LOG_POSITION: Final = sa.text(
    "SELECT pg_postmaster_start_time()::text || ' ' || pg_current_wal_insert_lsn()::text"
)


class Store:
    """Stores all state in a database with this version's schema (harness.app.store.migrate).
    Connects at the first use.

    url: `sqlite:///path/to/file.db` or `postgresql://…`.
    secret: the key of the audit log's HMAC chain.
    signatures: signs and verifies rows.
    Raises ConfigError for other URLs.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes,
        clock: Clock,
        signatures: Signatures,
    ) -> None:
        self._url = engine.parse(url)
        self._secret = secret
        self._clock = clock
        self._signatures = signatures
        self._installation: str | None = None
        self._engine = engine.make(self._url, pool_timeout=engine.LOCK_TIMEOUT_MS / 1000)
        writing, reading = engine.OPTIONS[self._engine.dialect.name]
        self._writing = self._engine.execution_options(**writing)
        self._reading = self._engine.execution_options(**reading)
        self._file = self._open_sqlite_file()
        self._changes = Changes(self._url, self._require_file)
        self._leadership = leadership(self._url)
        self._snapshot: Snapshot | None = None
        self._schema_checked = False

    def _open_sqlite_file(self) -> SqliteFile | None:
        if self._engine.dialect.name != "sqlite":
            return None
        return SqliteFile(engine.file_of(self._url), self._close_idle)

    def _close_idle(self) -> None:
        """Closes idle connections and forgets cached rows, because the file may be
        a new one.
        """
        self._engine.dispose()
        self._schema_checked = False
        self._installation = None
        self._snapshot = None

    def _require_file(self) -> None:
        if self._file is not None:
            self._file.require()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Opens a transaction that commits at the block's end. Raises StoreUnavailable."""
        self._require_file()
        with translated(), self._writing.begin() as db:
            engine.limit_waits(db)
            tx = self._build_transaction(db, writable=True)
            yield tx
            tx.finish()
            if self._file is not None:
                self._file.require_same()
        if self._file is not None:
            self._file.require_same(committed=True)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Opens a read-only transaction with a consistent view."""
        self._require_file()
        with translated(), self._reading.begin() as db:
            yield self._build_transaction(db, writable=False)

    @contextmanager
    def listings(self) -> Iterator[Listings]:
        """Opens a read-only transaction for people. A page names a forged row, and does not
        raise.
        """
        self._require_file()
        with translated(), self._reading.begin() as db:
            yield Listings(self._build_transaction(db, writable=False))

    @property
    def lists(self) -> Listings:
        """The listings. Each call of a method runs in its own transaction."""
        return cast("Listings", _SingleListings(self))

    def _check_schema(self, db: sa.Connection) -> None:
        if not self._schema_checked:
            self._schema_checked = schema_revisions.has_schema(db)

    def _build_transaction(self, db: sa.Connection, *, writable: bool) -> Transaction:
        self._check_schema(db)
        return Transaction(
            db,
            self._build_row_signatures(db),
            Manifests(),
            secret=self._secret,
            clock=self._clock,
            writable=writable,
        )

    def _build_row_signatures(self, db: sa.Connection) -> RowSignatures:
        return RowSignatures(self._signatures, lambda: self._read_installation(db))

    def _read_installation(self, db: sa.Connection) -> str:
        # Cached, because a database never changes its id.
        if self._installation is None:
            self._installation = str(db.execute(sa.select(meta.c.installation)).scalar_one())
        return self._installation

    def snapshot(self) -> Snapshot:
        """Returns the routers' snapshot, verified. Builds it again only if the ETag has
        changed.

        Raises SnapshotInvalid for rows that do not verify, StoreUnavailable.
        """
        with self.read() as tx:
            etag = Installations(tx).etag()
            cached = self._snapshot
            if cached is not None and cached.etag == etag:
                return cached
            rows = signed_snapshot.read(tx)
            snapshot = signed_snapshot.build_verified(
                rows, self._signatures, etag, self._clock.now()
            )
        self._snapshot = snapshot
        return snapshot

    def etag(self) -> str:
        """Returns the ETag of the snapshot's rows, which changes with each of their changes."""
        with self.read() as tx:
            return Installations(tx).etag()

    def change_mark(self) -> str:
        """Reads a mark that changes with each commit. On PostgreSQL, the mark is the position
        of the server's log, so it changes with commits of other databases, too.
        """
        self._require_file()
        if self._file is not None:
            return engine.file_mark(engine.file_of(self._url))
        with translated(), self._reading.begin() as db:
            return str(db.execute(LOG_POSITION).scalar_one())

    def missing_lineage(self, lineage: Lineage) -> Sequence[str]:
        """Lists the parts of a lineage's `heads` and `log_end` that the database lacks."""
        with self.read() as tx:
            return missing_lineage(tx, lineage)

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        """Finds the rows with invalid signatures.

        Args:
            working: checks only the rows of unfinished work.
        """
        find_faults = find_working_faults if working else find_row_faults
        with translated(), self._reading.begin() as db:
            return list(find_faults(self._build_transaction(db, writable=False)))

    def sign_all_rows(self, *, actor: Actor, reason: str) -> int:
        """Signs all rows with the current key. The database role must own the tables. Raises
        SignatureInvalid.
        """
        with translated(), self._writing.begin() as db:
            tx = self._build_transaction(db, writable=True)
            tx.serialize()
            for fault in find_row_faults(tx):
                raise SignatureInvalid(f"{fault.name}: {fault.why}")
            with without_triggers(tx):
                count = sign_rows(tx)
            self._record_repair(
                tx,
                actor,
                "database.sign_again",
                {"rows": count, "reason": reason},
            )
        return count

    def remove_forged(
        self,
        faults: Sequence[RowFault],
        *,
        actor: Actor,
        reason: str,
    ) -> int:
        """Deletes the given rows that still have a fault, and signs the manifest. Returns the
        number of deleted rows. The database role must own the tables. Raises RowRefused if a
        remaining row refers to a deleted row.
        """
        with translated(), self._writing.begin() as db:
            tx = self._build_transaction(db, writable=True)
            tx.serialize()
            current_faults = set(find_row_faults(tx))
            with without_triggers(tx):
                count = remove_rows(tx, [fault for fault in faults if fault in current_faults])
            details = {
                "rows": [fault.name for fault in faults],
                "reason": reason,
            }
            self._record_repair(tx, actor, "database.remove_forged", details)
        return count

    def _record_repair(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        details: Mapping[str, object],
    ) -> None:
        """Writes the audit event of a repair, and signs the manifest of the repaired rows."""
        AuditLog(tx).append(actor, action, "database", details)
        # Routers refuse a snapshot whose rows changed while the count of changes did not.
        tx.write(sa.update(meta).values(changes=meta.c.changes + 1))
        Manifests().write(tx)

    def drop_deleted(self) -> None:
        """Removes deleted rows from SQLite's log too, so that no file contains deleted texts.
        Gives up after `CHECKPOINT_ATTEMPTS` if readers keep the log in use. Does nothing on
        PostgreSQL.
        """
        if self._file is not None:
            with translated(), self._engine.connect() as db:
                # Outside a transaction, because SQLite allows a checkpoint only there.
                connection: Any = db.connection.driver_connection
                for _ in range(CHECKPOINT_ATTEMPTS):
                    row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not row[0]:  # no reader blocked the checkpoint
                        break

    def wait_for_change(self, timeout_s: float) -> bool:
        """Waits for a commit, as `Changes.wait`. Reports each commit once to each thread."""
        return self._changes.wait(timeout_s)

    def try_lead(self, owner: str) -> bool:
        """Tries to make `owner` the leader of the control processes (`leader.Leadership`)."""
        return self._leadership.try_lead(owner)

    def leader(self) -> str:
        return self._leadership.leader()

    def close(self) -> None:
        self._changes.close()
        self._leadership.close()
        self._engine.dispose()


@dataclass(frozen=True, slots=True)
class _SingleListings:
    """Runs each method of `Listings` in its own transaction."""

    store: Store

    def __getattr__(self, name: str) -> Callable[..., object]:
        def read(*arguments: object, **filters: object) -> object:
            with self.store.listings() as listings:
                return getattr(listings, name)(*arguments, **filters)

        return read
