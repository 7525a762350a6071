"""The store in memory. A write works on a copy, which replaces the state at its end."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from harness.domain.errors import StoreUnavailable
from harness.domain.operations.row_signatures import RowFault
from harness.domain.providers.credentials import keys_for_routers
from harness.domain.routing.kill_switch import active_switches
from harness.domain.routing.snapshot_lineage import Lineage
from harness.domain.routing.table import Snapshot
from harness.ports import Clock
from harness.store.memory.alerts import MemoryAlerts, MemoryDeliveries, MemoryFailovers
from harness.store.memory.audited_rows import MemoryAuditedRows
from harness.store.memory.captures import MemoryCaptures
from harness.store.memory.credentials import MemoryCredentials, MemorySignIns
from harness.store.memory.decisions import (
    MemoryApprovals,
    MemoryProposals,
    MemoryRollouts,
    MemoryVerdicts,
)
from harness.store.memory.drift import MemoryDrift
from harness.store.memory.evals import MemoryEvalRuns, MemorySuites
from harness.store.memory.installation import MemoryInstallation
from harness.store.memory.listings import MemoryListings
from harness.store.memory.operations import (
    MemoryApiKeys,
    MemoryAuditLog,
    MemoryObservations,
    MemoryPrincipals,
)
from harness.store.memory.provider_checks import MemoryProviderChecks
from harness.store.memory.routing import MemoryProviders, MemoryRouting, MemoryWaivers
from harness.store.memory.shadows import MemoryShadows
from harness.store.memory.sightings import MemorySightings
from harness.store.memory.state import State, Unit
from harness.store.memory.switches import MemorySwitches
from harness.store.rules import grants, revoked_ids

LOCK_TIMEOUT_S: Final = 10.0


class MemoryTransaction:
    """One unit of work; see harness.ports.Transaction."""

    def __init__(self, state: State, *, writable: bool, secret: bytes) -> None:
        unit = Unit(state, writable=writable)
        self.routing = MemoryRouting(unit)
        self.providers = MemoryProviders(unit)
        self.proposals = MemoryProposals(unit)
        self.approvals = MemoryApprovals(unit)
        self.runs = MemoryEvalRuns(unit)
        self.suites = MemorySuites(unit)
        self.verdicts = MemoryVerdicts(unit)
        self.rollouts = MemoryRollouts(unit)
        self.observations = MemoryObservations(unit)
        self.audit = MemoryAuditLog(unit, secret)
        self.principals = MemoryPrincipals(unit)
        self.audited = MemoryAuditedRows()
        self.keys = MemoryApiKeys(unit)
        self.waivers = MemoryWaivers(unit)
        self.switches = MemorySwitches(unit)
        self.shadows = MemoryShadows(unit)
        self.alerts = MemoryAlerts(unit)
        self.deliveries = MemoryDeliveries(unit)
        self.failovers = MemoryFailovers(unit)
        self.sightings = MemorySightings(unit)
        self.drift = MemoryDrift(unit)
        self.captures = MemoryCaptures(unit)
        self.credentials = MemoryCredentials(unit)
        self.sign_ins = MemorySignIns(unit)
        self.provider_checks = MemoryProviderChecks(unit)
        self.installation = MemoryInstallation(unit)


class MemoryStore:
    """A store that lives and dies with its process; one writer at a time, as in SQLite."""

    def __init__(self, *, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        self._state = State()
        self._writer = threading.Lock()
        self._changed = threading.Condition()
        self._commits = 0
        self._seen = threading.local()

    @contextmanager
    def write(self) -> Iterator[MemoryTransaction]:
        if not self._writer.acquire(timeout=LOCK_TIMEOUT_S):
            raise StoreUnavailable("another unit of work has the store: end it, then try again")
        try:
            state = self._state.fork()
            yield MemoryTransaction(state, writable=True, secret=self._secret)
            with self._changed:
                self._state = state
                self._commits += 1
                self._changed.notify_all()
        finally:
            self._writer.release()

    @contextmanager
    def read(self) -> Iterator[MemoryTransaction]:
        yield MemoryTransaction(self._state, writable=False, secret=self._secret)

    @contextmanager
    def listings(self) -> Iterator[MemoryListings]:
        yield MemoryListings(self._state)

    def snapshot(self) -> Snapshot:
        state = self._state
        tx = MemoryTransaction(state, writable=False, secret=self._secret)
        keys = list(state.keys.values())
        switches = active_switches(tx.switches.not_lifted(), self._clock.now())
        shadows = tuple(tx.shadows.live())
        return Snapshot(
            tx.routing.table(),
            tx.providers.all(),
            grants(keys),
            state.etag,
            switches,
            shadows,
            keys_for_routers(tx.credentials.all(), self._clock.now()),
            lineage=tx.installation.lineage(),
            revoked=revoked_ids(keys),
        )

    def lacking(self, known: Lineage) -> Sequence[str]:
        """Of routes alone: nothing is written here but by Swapgate."""
        return [f"route {name}" for name in known.heads if name not in self._state.routes]

    def etag(self) -> str:
        return self._state.etag

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:  # noqa: ARG002 - the port's name
        """None: nobody writes here but Swapgate."""
        return ()

    def wait_for_change(self, timeout_s: float) -> bool:
        with self._changed:
            changed = self._changed.wait_for(self._unseen, timeout=timeout_s)
            self._seen.commits = self._commits
        return changed

    def _unseen(self) -> bool:
        return self._commits != getattr(self._seen, "commits", 0)

    def try_lead(self, owner: str) -> bool:  # noqa: ARG002 - nobody else can lead
        return True

    def close(self) -> None:
        """Nothing to close."""
