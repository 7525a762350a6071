"""`SqlStore` is the store on SQLite or PostgreSQL, by URL: units of work that write or read
(`SqlTransaction` bundles all repositories), lists, the verified snapshot for routers, waiting
for changes, leadership, and the removal of forged rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.errors import SignatureInvalid
from harness.domain.operations.access import Actor
from harness.domain.operations.row_signatures import RowFault, SignedRows
from harness.domain.proposals.proof import Proof
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.snapshot_lineage import Lineage
from harness.domain.routing.table import Snapshot
from harness.ports import Clock, Signatures
from harness.store import engine, schema_revisions
from harness.store.change_listener import Changes, change_marks
from harness.store.database_errors import translated
from harness.store.engine import SqliteFile
from harness.store.leader import leadership
from harness.store.schema.operations import meta
from harness.store.signing import signed_snapshot
from harness.store.signing.proof_rows import read_proof
from harness.store.signing.row_faults import (
    remove_rows,
    row_faults,
    sign_rows,
    without_triggers,
    working_faults,
)
from harness.store.signing.row_signatures import RowSignatures
from harness.store.sql.agents import SqlAgentGrants, SqlAgents, SqlSwitchRequests
from harness.store.sql.audit import SqlAuditLog
from harness.store.sql.drift import SqlDrift
from harness.store.sql.evals import SqlEvalRuns, SqlSuites
from harness.store.sql.evidence import SqlWaivers
from harness.store.sql.installation import SqlInstallation, missing_heads
from harness.store.sql.interventions import SqlBreakGlasses, SqlFreezes, SqlSwitches
from harness.store.sql.listings import SqlListings
from harness.store.sql.observations import SqlCaptures, SqlFailovers, SqlObservations
from harness.store.sql.operations import (
    SqlAlerts,
    SqlApiKeys,
    SqlDashboardSessions,
    SqlDeliveries,
    SqlPersonLinks,
    SqlPrincipals,
)
from harness.store.sql.preload import SqlPreload
from harness.store.sql.proposals import SqlApprovals, SqlProposals, SqlRollouts, SqlVerdicts
from harness.store.sql.providers import (
    SqlCredentials,
    SqlDiscoveredModels,
    SqlProviderChecks,
    SqlProviders,
    SqlSightings,
    SqlSignIns,
)
from harness.store.sql.routing import SqlRouting
from harness.store.sql.sessions import (
    SqlIdempotentAnswers,
    SqlIdempotentRequests,
    SqlSessionMessages,
    SqlSessions,
    SqlTurns,
)
from harness.store.sql.shadow import SqlShadows
from harness.store.sql.spending import SqlSpending
from harness.store.unit_of_work import Unit

# Each waits for readers as long as for a lock.
CHECKPOINT_ATTEMPTS: Final = 3


class SqlTransaction:
    """One unit of work; see harness.ports.database.Transaction."""

    def __init__(self, unit: Unit, *, secret: bytes, clock: Clock) -> None:
        now = clock.now()
        self.routing = SqlRouting(unit)
        self.providers = SqlProviders(unit, now)
        self.proposals = SqlProposals(unit)
        self.approvals = SqlApprovals(unit)
        self.runs = SqlEvalRuns(unit)
        self.suites = SqlSuites(unit)
        self.verdicts = SqlVerdicts(unit)
        self.rollouts = SqlRollouts(unit)
        self.observations = SqlObservations(unit)
        self.audit = SqlAuditLog(unit, secret)
        self.principals = SqlPrincipals(unit)
        self.person_links = SqlPersonLinks(unit)
        self.keys = SqlApiKeys(unit)
        self.dashboard_sessions = SqlDashboardSessions(unit)
        self.waivers = SqlWaivers(unit, now)
        self.switches = SqlSwitches(unit)
        self.freezes = SqlFreezes(unit)
        self.break_glasses = SqlBreakGlasses(unit)
        self.shadows = SqlShadows(unit)
        self.spending = SqlSpending(unit)
        self.alerts = SqlAlerts(unit)
        self.deliveries = SqlDeliveries(unit)
        self.failovers = SqlFailovers(unit)
        self.sightings = SqlSightings(unit)
        self.drift = SqlDrift(unit)
        self.captures = SqlCaptures(unit)
        self.credentials = SqlCredentials(unit)
        self.sign_ins = SqlSignIns(unit)
        self.provider_checks = SqlProviderChecks(unit)
        self.discovered_models = SqlDiscoveredModels(unit)
        self.agents = SqlAgents(unit)
        self.agent_grants = SqlAgentGrants(unit)
        self.sessions = SqlSessions(unit)
        self.session_messages = SqlSessionMessages(unit)
        self.turns = SqlTurns(unit)
        self.switch_requests = SqlSwitchRequests(unit)
        self.idempotent_answers = SqlIdempotentAnswers(unit)
        self.idempotent_requests = SqlIdempotentRequests(unit)
        self.installation = SqlInstallation(unit)
        self.preload = SqlPreload(unit)
        self._unit = unit

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        lost = [
            f"the served version of route {name}"
            for name in missing_heads(self._unit, known.heads)
        ]
        number, _, mac = known.log_end.partition(":")
        if number and [event.mac for event in self.audit.after(int(number) - 1, 1)] != [mac]:
            lost.append(f"event {number} of the audit log")
        return lost

    def signed_rows(self) -> SignedRows:
        """Reads the rows that make a snapshot, not verified yet."""
        return signed_snapshot.read(self._unit, self.installation.lineage().installation)

    def export_proof(self, proposal: Proposal, at: datetime) -> Proof:
        installation = self.installation.lineage().installation
        return read_proof(self._unit, installation, proposal, at.isoformat())

    def finish(self, now: datetime) -> None:
        self._unit.finish(now)


class SqlStore:
    """Keeps all state in the database at `url`, which is at this version's schema
    (harness.store.migrate).

    url: `sqlite:///path/to/file.db` or `postgresql://…`. secret: signs the audit log.
    signatures: signs and verifies rows.

    It connects when it is first used. Raises ConfigError for another kind of URL.
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
        self._file = self._sqlite_file()
        self._changes = Changes(self._url, self._require_file)
        self._marks = change_marks(self._reading)
        self._leadership = leadership(self._url)
        self._snapshot: Snapshot | None = None
        self._schema_checked = False

    def _sqlite_file(self) -> SqliteFile | None:
        """None on PostgreSQL."""
        if self._engine.dialect.name != "sqlite":
            return None
        return SqliteFile(engine.file_of(self._url), self._close_idle)

    def _close_idle(self) -> None:
        """And forget what was read of a file that may be another one now."""
        self._engine.dispose()
        self._schema_checked, self._installation, self._snapshot = False, None, None

    def _require_file(self) -> None:
        if self._file is not None:
            self._file.require()

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        """Opens a unit of work that commits at its end. Raises StoreUnavailable, also where it
        was committed into a file that another one replaced.
        """
        self._require_file()
        with translated(), self._writing.begin() as db:
            engine.limit_pauses(db)
            tx = self._transaction(db, writable=True)
            yield tx
            tx.finish(self._clock.now().astimezone(UTC))
            if self._file is not None:
                self._file.require_same()
        if self._file is not None:
            self._file.require_same(committed=True)

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        self._require_file()
        with translated(), self._reading.begin() as db:
            yield self._transaction(db, writable=False)

    @contextmanager
    def listings(self) -> Iterator[SqlListings]:
        self._require_file()
        with translated(), self._reading.begin() as db:
            self._check_schema(db)
            yield SqlListings(self._unit(db, writable=False))

    def _transaction(self, db: sa.Connection, *, writable: bool) -> SqlTransaction:
        self._check_schema(db)
        unit = self._unit(db, writable=writable)
        return SqlTransaction(unit, secret=self._secret, clock=self._clock)

    def _check_schema(self, db: sa.Connection) -> None:
        """Checks once that this version may use the database."""
        if not self._schema_checked:
            self._schema_checked = schema_revisions.is_usable(db)

    def _unit(self, db: sa.Connection, *, writable: bool) -> Unit:
        return Unit(db, self._row_signatures(db), writable=writable)

    def _row_signatures(self, db: sa.Connection) -> RowSignatures:
        return RowSignatures(self._signatures, lambda: self._installation_of(db))

    def _installation_of(self, db: sa.Connection) -> str:
        # It never changes while the file is the same.
        if self._installation is None:
            self._installation = str(db.execute(sa.select(meta.c.installation)).scalar_one())
        return self._installation

    def snapshot(self) -> Snapshot:
        with self.read() as tx:
            etag = tx.installation.etag()
            kept = self._snapshot
            if kept is not None and kept.etag == etag:
                return kept
            rows = tx.signed_rows()
            snapshot = signed_snapshot.verified(rows, self._signatures, etag, self._clock.now())
        self._snapshot = snapshot
        return snapshot

    def etag(self) -> str:
        with self.read() as tx:
            return tx.installation.etag()

    def change_mark(self) -> str:
        self._require_file()
        return self._marks.read()

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        with self.read() as tx:
            return tx.missing_lineage(known)

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        look = working_faults if working else row_faults
        with translated(), self._reading.begin() as db:
            return list(look(self._unit(db, writable=False)))

    def sign_again(self, *, actor: Actor, reason: str) -> int:
        """Sign every row with the key that signs now, so that older ones can be retired.

        As the tables' owner. Raises SignatureInvalid where a row does not hold.
        """
        with translated(), self._writing.begin() as db:
            unit = self._unit(db, writable=True)
            unit.serialize()
            for fault in row_faults(unit):
                raise SignatureInvalid(f"{fault.name}: {fault.why}")
            with without_triggers(unit):
                count = sign_rows(unit)
            self._record(unit, actor, "database.sign_again", {"rows": count, "reason": reason})
        return count

    def remove_forged(self, faults: Sequence[RowFault], *, actor: Actor, reason: str) -> int:
        """Take out those of the rows that are at fault still, and sign the manifest; how many.

        As the tables' owner. Raises RowRefused where a row that stays needs one of them.
        """
        with translated(), self._writing.begin() as db:
            unit = self._unit(db, writable=True)
            unit.serialize()
            now_at_fault = set(row_faults(unit))
            with without_triggers(unit):
                count = remove_rows(unit, [fault for fault in faults if fault in now_at_fault])
            details = {"rows": [fault.name for fault in faults], "reason": reason}
            self._record(unit, actor, "database.remove_forged", details)
        return count

    def _record(
        self, unit: Unit, actor: Actor, action: str, details: Mapping[str, object]
    ) -> None:
        now = self._clock.now().astimezone(UTC)
        SqlAuditLog(unit, self._secret).append(
            at=now, actor=actor, action=action, subject="database", details=details
        )
        # So that routers take it for a change, and not for another history.
        unit.write(sa.update(meta).values(changes=meta.c.changes + 1))
        unit.write_manifest(now)

    def drop_deleted(self) -> None:
        if self._file is not None:
            with translated(), self._engine.connect() as db:
                # Not in a transaction, which a checkpoint refuses.
                connection: Any = db.connection.driver_connection
                for _ in range(CHECKPOINT_ATTEMPTS):
                    row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not row[0]:  # nobody was reading
                        break

    def wait_for_change(self, timeout_s: float) -> bool:
        return self._changes.wait(timeout_s)

    def try_lead(self, owner: str) -> bool:
        return self._leadership.try_lead(owner)

    def leader(self) -> str:
        return self._leadership.leader()

    def close(self) -> None:
        self._changes.close()
        self._marks.close()
        self._leadership.close()
        self._engine.dispose()
