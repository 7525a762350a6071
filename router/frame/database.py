"""The part of the database that a router uses: its snapshot, and the records of its traffic.

The router's modules know only these Protocols, so they import no table and no database driver.
`harness.app.store.router_store` implements them, and `harness.app.router_process` passes it in.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from typing import Any, Protocol

from harness.evals.account_meter import StoredLoads
from harness.evals.month_spending import SpendingSums
from harness.frame.alerts.alert import Alert
from harness.frame.people.limits import KeySpend
from harness.frame.signing.signed_rows import Lineage
from harness.gate.online.exposures import Exposure, ExposureCount, ExposureEvent
from harness.gate.online.observation import AskedName, ObservationBlock, TrafficMinute
from harness.gate.pins import Sighting
from harness.providers.models.model_ends import EndStatement
from harness.routing.capture import CapturedRequest, CaptureResult
from harness.routing.kept_responses import KeptPiece
from harness.routing.records.router_reports import RouterReport
from harness.routing.reliability.failover import Failover
from harness.routing.shadow import ShadowTally
from harness.routing.table import Snapshot
from router.frame.caller_database import CallerRows


class ObservationRows(CallerRows, Protocol):
    """Blocks, traffic, and the spend of client keys."""

    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend],
        asked_names: Iterable[AskedName],
    ) -> None:
        """Stores new blocks, and adds the other rows to the stored sums."""
        ...

    def begin_batch(self, id_: str, at: datetime) -> bool:
        """Marks a batch as stored. Returns False if it is stored already."""
        ...

    def forget_batches(self, ids: Collection[str]) -> None:
        """Deletes the marks of batches that the router will not send again."""
        ...

    def blocks(self, rollout: str, *, after: int) -> Sequence[ObservationBlock]:
        """Lists a rollout's blocks with a number above `after`, by number."""
        ...

    def spends(self, *, since: date, keys: Collection[str]) -> Sequence[KeySpend]:
        """Lists the spend of client keys since a day."""
        ...


class ExposureRows(Protocol):
    """The facts of canaries, and how much of each worker's file is stored."""

    def now(self) -> datetime | None:
        """Returns the time of the database's clock; None if it is this machine's."""
        ...

    def append(
        self,
        exposures: Sequence[Exposure],
        events: Sequence[ExposureEvent],
    ) -> None:
        """Stores new rows with the next numbers of their rollouts, first the exposures."""
        ...

    def add_counts(self, counts: Iterable[ExposureCount]) -> None:
        """Adds requests to the stored counts."""
        ...

    def note_file(
        self,
        worker: str,
        router: str,
        bytes_: int,
        at: datetime,
    ) -> None:
        """Stores how many bytes of a worker's file are in the database."""
        ...

    def file_positions(self, workers: Collection[str]) -> Mapping[str, int]:
        """Returns how many bytes of workers' files are stored, without unknown workers."""
        ...

    def forget_files(self, workers: Collection[str]) -> None:
        """Deletes the positions of files that the router has deleted."""
        ...


class FailoverRows(Protocol):
    def append(self, new: Iterable[Failover]) -> None:
        """Stores failovers, except those that are stored already."""
        ...


class ShadowRows(Protocol):
    """The counts of shadows."""

    def append(self, tallies: Iterable[ShadowTally]) -> None:
        """Adds a worker's counts to the stored ones."""
        ...

    def tallies(self, shadows: Sequence[str], *, since: date) -> Sequence[ShadowTally]:
        """Lists the counts of shadows since a day, of all workers."""
        ...


class AlertRows(Protocol):
    def fold(self, alerts: Iterable[Alert]) -> None:
        """Combines alerts with the stored ones of the same key."""
        ...


class SightingRows(Protocol):
    def note(self, sightings: Iterable[Sighting]) -> None:
        """Stores the models that targets' providers reported serving."""
        ...


class EndStatementRows(Protocol):
    """Statements about the ends of targets' models."""

    def all(self) -> Sequence[EndStatement]:
        """Lists the statements of all sources."""
        ...

    def note(self, statements: Iterable[EndStatement]) -> None:
        """Adds or replaces statements. An older reading never replaces a newer one."""
        ...


class CaptureRows(Protocol):
    """Redacted requests with their answers."""

    def store(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        """Stores a sampled request, or counts its repetition."""
        ...

    def store_pair(self, pair: CapturedRequest) -> CaptureResult:
        """Enters a shadow pair whose answer is pending, or stores an entered pair's answer."""
        ...


class KeptPieceRows(Protocol):
    """Pieces of the histories that routes keep for Responses. A caller finds only its own."""

    def store(self, pieces: Sequence[KeptPiece]) -> None:
        """Stores pieces, or replaces the content of stored ones."""
        ...

    def prolong(self, caller: str, ids: Collection[str], until: datetime) -> int:
        """Keeps stored pieces at least until a time. Returns how many of them it found."""
        ...

    def find(
        self, caller: str, ids: Collection[str], now: datetime
    ) -> Mapping[str, Mapping[str, Any]]:
        """Returns the contents of a caller's pieces by id, without expired pieces."""
        ...

    def sizes(self, caller: str, ids: Collection[str]) -> Mapping[str, int]:
        """Returns the sizes of a caller's pieces in bytes, by id."""
        ...

    def total_bytes(self) -> int:
        """Returns the size of all pieces of all callers."""
        ...


class RouterReportRows(Protocol):
    """Reports that a process serves callers."""

    def keep(self, report: RouterReport) -> None:
        """Replaces the process's earlier report."""
        ...

    def forget(self, worker: str) -> None:
        """Deletes the report of a process that ends."""
        ...


class RouterTransaction(Protocol):
    """The records of one transaction."""

    @property
    def observations(self) -> ObservationRows: ...
    @property
    def exposures(self) -> ExposureRows: ...
    @property
    def failovers(self) -> FailoverRows: ...
    @property
    def shadows(self) -> ShadowRows: ...
    @property
    def alerts(self) -> AlertRows: ...
    @property
    def sightings(self) -> SightingRows: ...
    @property
    def end_statements(self) -> EndStatementRows: ...
    @property
    def captures(self) -> CaptureRows: ...
    @property
    def kept_pieces(self) -> KeptPieceRows: ...
    @property
    def router_reports(self) -> RouterReportRows: ...


class RouterDatabase(Protocol):
    """The database of a router. Every method raises StoreUnavailable.

    spending: the month's spending on models. loads: the reports on providers' accounts.
    """

    @property
    def spending(self) -> SpendingSums: ...
    @property
    def loads(self) -> StoredLoads: ...

    def read(self) -> AbstractContextManager[RouterTransaction]:
        """Opens a transaction that only reads, from one state of the database."""
        ...

    def write(self) -> AbstractContextManager[RouterTransaction]:
        """Opens a transaction that commits at the block's end."""
        ...

    def snapshot(self) -> Snapshot:
        """Reads the snapshot. Raises SnapshotInvalid if its rows do not verify."""
        ...

    def etag(self) -> str:
        """Returns the ETag of the snapshot's rows, which changes with each of their changes."""
        ...

    def missing_lineage(self, lineage: Lineage) -> Sequence[str]:
        """Lists the parts of a lineage that the database lacks."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Waits for a commit. Returns False if the time ended first."""
        ...
