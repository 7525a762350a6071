"""The part of the store that a router uses: its snapshot, and the records of its traffic.

It gives a router no access to decisions, such as proposals, verdicts or route versions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.app.store.store import Store
from harness.evals.account_meter import StoredLoads
from harness.evals.spending_meter import StoredSpending
from harness.frame.alerts.records import Alerts
from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import Lineage
from harness.operations.records import Captures
from harness.providers.records import EndStatements, Sightings
from harness.routing.records.exposures import Exposures
from harness.routing.records.failovers import Failovers
from harness.routing.records.interventions import Shadows
from harness.routing.records.kept_pieces import KeptPieces
from harness.routing.records.observations import Observations
from harness.routing.records.router_reports import RouterReports
from harness.routing.table import Snapshot


class RouterRecords:
    """A router's repositories in one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self.observations = Observations(tx)
        self.exposures = Exposures(tx)
        self.failovers = Failovers(tx)
        self.shadows = Shadows(tx)
        self.alerts = Alerts(tx)
        self.sightings = Sightings(tx)
        self.end_statements = EndStatements(tx)
        self.captures = Captures(tx)
        self.kept_pieces = KeptPieces(tx)
        self.router_reports = RouterReports(tx)


class RouterStore:
    """Implements `router.frame.database.RouterDatabase`. See `Store` for errors."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.spending = StoredSpending(store)
        self.loads = StoredLoads(store)

    @contextmanager
    def read(self) -> Iterator[RouterRecords]:
        with self._store.read() as tx:
            yield RouterRecords(tx)

    @contextmanager
    def write(self) -> Iterator[RouterRecords]:
        with self._store.write() as tx:
            yield RouterRecords(tx)

    def snapshot(self) -> Snapshot:
        return self._store.snapshot()

    def etag(self) -> str:
        return self._store.etag()

    def missing_lineage(self, lineage: Lineage) -> Sequence[str]:
        return self._store.missing_lineage(lineage)

    def wait_for_change(self, timeout_s: float) -> bool:
        return self._store.wait_for_change(timeout_s)
