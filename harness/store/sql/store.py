"""The store in SQL: SQLite or PostgreSQL, by URL."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from harness.domain.credentials import for_routers
from harness.domain.routing import Snapshot
from harness.domain.switches import in_force
from harness.ports import Clock
from harness.store.rules import grants
from harness.store.sql import engine
from harness.store.sql.alerts import SqlAlerts, SqlDeliveries
from harness.store.sql.audit import SqlAuditLog
from harness.store.sql.captures import SqlCaptures
from harness.store.sql.changes import Changes
from harness.store.sql.credentials import SqlCredentials, SqlSignIns
from harness.store.sql.decisions import SqlProposals, SqlRollouts, SqlVerdicts
from harness.store.sql.drift import SqlDrift
from harness.store.sql.evals import SqlEvalRuns, SqlSuites
from harness.store.sql.evidence import SqlWaivers
from harness.store.sql.failovers import SqlFailovers
from harness.store.sql.failures import translated
from harness.store.sql.leader import leadership
from harness.store.sql.operations import SqlApiKeys, SqlObservations, SqlProviders
from harness.store.sql.provider_checks import SqlProviderChecks
from harness.store.sql.routing import REVISION, SqlRouting
from harness.store.sql.shadows import SqlShadows
from harness.store.sql.sightings import SqlSightings
from harness.store.sql.switches import SqlSwitches
from harness.store.sql.unit import Unit
from harness.store.tables.operations import meta

ETAG = sa.select(
    meta.c.installation, meta.c.changes, REVISION.scalar_subquery().label("revision")
)


class SqlTransaction:
    """One unit of work; see harness.ports.Transaction."""

    def __init__(self, unit: Unit, *, secret: bytes, clock: Clock) -> None:
        now = clock.now()
        self.routing = SqlRouting(unit)
        self.providers = SqlProviders(unit, now)
        self.proposals = SqlProposals(unit)
        self.runs = SqlEvalRuns(unit)
        self.suites = SqlSuites(unit)
        self.verdicts = SqlVerdicts(unit)
        self.rollouts = SqlRollouts(unit)
        self.observations = SqlObservations(unit)
        self.audit = SqlAuditLog(unit, secret)
        self.keys = SqlApiKeys(unit)
        self.waivers = SqlWaivers(unit, now)
        self.switches = SqlSwitches(unit)
        self.shadows = SqlShadows(unit)
        self.alerts = SqlAlerts(unit)
        self.deliveries = SqlDeliveries(unit)
        self.failovers = SqlFailovers(unit)
        self.sightings = SqlSightings(unit)
        self.drift = SqlDrift(unit)
        self.captures = SqlCaptures(unit)
        self.credentials = SqlCredentials(unit)
        self.sign_ins = SqlSignIns(unit)
        self.provider_checks = SqlProviderChecks(unit)
        self._unit = unit

    def etag(self) -> str:
        row = self._unit.read(ETAG).one()
        return f"{row.installation[:12]}-{row.revision}-{row.changes}"


class SqlStore:
    """A store on the database at `url`, migrated to this version (harness.store.migrate).

    url: `sqlite:///path/to/file.db` or `postgresql://…`. secret: signs the audit log. It
    connects when it is first used. Raises ConfigError for another kind of URL.
    """

    def __init__(self, url: str, *, secret: bytes, clock: Clock) -> None:
        self._url = engine.parse(url)
        self._secret = secret
        self._clock = clock
        self._engine = engine.make(self._url, pool_timeout=engine.LOCK_TIMEOUT_MS / 1000)
        writing, reading = engine.OPTIONS[self._engine.dialect.name]
        self._writing = self._engine.execution_options(**writing)
        self._reading = self._engine.execution_options(**reading)
        self._changes = Changes(self._url)
        self._leadership = leadership(self._url)
        self._snapshot: Snapshot | None = None

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        with translated(), self._writing.begin() as db:
            yield self._transaction(db, writable=True)

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        with translated(), self._reading.begin() as db:
            yield self._transaction(db, writable=False)

    def _transaction(self, db: sa.Connection, *, writable: bool) -> SqlTransaction:
        unit = Unit(db, writable=writable)
        return SqlTransaction(unit, secret=self._secret, clock=self._clock)

    def snapshot(self) -> Snapshot:
        with self.read() as tx:
            etag = tx.etag()
            kept = self._snapshot
            if kept is not None and kept.etag == etag:
                return kept
            keys = grants(tx.keys.list())
            switches = in_force(tx.switches.not_lifted(), self._clock.now())
            found = Snapshot(
                tx.routing.table(),
                tx.providers.all(),
                keys,
                etag,
                switches,
                tuple(tx.shadows.live()),
                for_routers(tx.credentials.all(), self._clock.now()),
            )
        self._snapshot = found
        return found

    def etag(self) -> str:
        with self.read() as tx:
            return tx.etag()

    def wait_for_change(self, timeout_s: float) -> bool:
        return self._changes.wait(timeout_s)

    def try_lead(self, owner: str) -> bool:
        return self._leadership.try_lead(owner)

    def close(self) -> None:
        self._changes.close()
        self._leadership.close()
        self._engine.dispose()
