"""Adds up requests in memory, and writes the sums to the database in a thread.

If the database is down, the recorder writes batches to the spool, and replays them in order. A
repeated batch counts once. No request waits for the database or the disk. Ledgers are in
`ledger`, sums in `sums`, the file in `spool`. A worker sends its records by `reporter` instead.
"""

import itertools
import logging
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.errors import StoreUnavailable
from harness.frame.ports import Clock
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import ROUTER_FAULT, ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.scored_exposures import GuardrailSample
from harness.routing.records.router_reports import REPORT_EVERY_S, RouterReport
from harness.routing.table import Arm, Canary
from router.frame.database import RouterDatabase, RouterTransaction
from router.recording.caller_windows import FailureExchange, WindowsOfLedger
from router.recording.capture_writer import CaptureWriter
from router.recording.exposure_flusher import ExposureFlusher
from router.recording.exposure_writer import TIME_EVERY_S, WRITE_EVERY_S
from router.recording.ledger import KeyClaims, Ledger
from router.recording.port import CaptureDraft, Recording, ScoredExposure, Ticket
from router.recording.spool import NOTHING, Batch, Spool
from router.recording.sums import (
    SUMMED,
    CompletedRequest,
    minute_rows,
    spend_rows,
    sum_rows,
)

log = logging.getLogger(__name__)

# Longer than the store waits for a database lock.
STOP_S: Final = 15.0
# The rows whose minutes are those of the whole router.
_OF_ROUTER: Final = frozenset({"traffic", "exposure_counts"})
# Batches in one transaction: after an outage, thousands wait, and a commit takes time.
MAX_BATCHES_TOGETHER: Final = 50


class Recorder(Recording):
    """Records for a router that is one process, and for the parent of workers.

    worker: a new name for every process, because every process numbers its blocks from 1.
    live_rollouts: the rollouts of the serving snapshots. serves: whether clients get answers.
    queue_rows: the most rows in memory if neither the database nor the disk accepts them; the
    recorder drops and counts the oldest rows beyond it.
    captures: builds the capture writer from the counters; None to store no captures.
    exposures: the folder of the files of exposures; None to write and flush none.
    """

    def __init__(  # noqa: PLR0913 - all by name but two
        self,
        store: RouterDatabase,
        spool: Spool,
        *,
        worker: str,
        clock: Clock,
        live_rollouts: Callable[[], frozenset[str]] = frozenset,
        flush_interval_s: float = 1.0,
        queue_rows: int = 50_000,
        captures: Callable[[Counter[str]], CaptureWriter] | None = None,
        exposures: Path | None = None,
    ) -> None:
        super().__init__(worker, clock, exposures)
        self._flusher = (
            ExposureFlusher(exposures, store, clock, worker, self.counters)
            if exposures
            else None
        )
        self._tickets = itertools.count(1)
        self._has_lines = threading.Event()  # lines of exposures wait
        self._line_thread = threading.Thread(
            target=self._write_lines, name="exposures", daemon=True
        )
        self._captures = captures(self.counters) if captures else None
        self._store = store
        self._spool = spool
        self._refused_spool = Spool(spool.file.with_suffix(".refused"))
        self.live_rollouts = live_rollouts
        self.serves: Callable[[], bool] = lambda: True
        self._report: RouterReport | None = None  # the last one
        self._reported_at_s = 0.0  # monotonic
        self._flush_interval_s = flush_interval_s
        self._queue_rows = queue_rows
        self._lock = threading.Lock()
        self._ledgers: dict[str, Ledger] = {}
        self._claims = KeyClaims(store, clock, self._lock, self.counters)
        self._failures = FailureExchange(store, clock, self._lock, self.counters)
        self._open_alerts: dict[AlertKind, Alert] = {}
        self._queue: deque[Batch] = deque()
        self._current_batch = NOTHING
        self._complete_until: datetime | None = None  # see `RouterReport`
        # This prefix distinguishes the batches from batches of all other and earlier processes.
        self._batch_prefix = f"{worker}.{secrets.token_hex(8)}"
        self._batch_numbers = itertools.count()
        self._forgettable_batches: set[str] = (
            set()
        )  # stored batches, which the database may forget
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def admit(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
        traits: int = 0,
        client: str = "",
    ) -> ScoredExposure | None:
        """See `Recording.admit`."""
        is_candidate = canary.is_candidate(arm)
        scored = self.admit_to(
            canary.rollout,
            canary.unit_rule,
            key,
            canary=is_candidate,
            weight_bps=canary.candidate_bps,
            traits=traits,
            client=client,
        )
        if scored is None or self.rows is None:
            return scored
        ticket = next(self._tickets)
        self.rows.admit(
            ticket,
            canary,
            key,
            candidate=is_candidate,
            traits=traits,
            client=client,
        )
        self._has_lines.set()
        return scored._replace(ticket=ticket)

    def admit_to(
        self,
        rollout: str,
        rule: ExposureRule,
        key: str | int,
        *,
        canary: bool,
        weight_bps: int,
        traits: int = 0,
        client: str = "",
    ) -> ScoredExposure | None:
        """Admits a request. Returns None for a request without a score.

        Args:
            key: the sticky key, or its hash.
            client: the id of the client's key.
        """
        now = self._clock.monotonic()
        at = self._clock.now()
        with self._lock:
            ledger = self._find_or_create_ledger(rollout, rule)
            exposure = ledger.admit(
                key,
                canary=canary,
                weight_bps=weight_bps,
                now=now,
                at=at,
                traits=traits,
                client=client,
            )
            return ScoredExposure(ledger, exposure) if exposure else None

    def _find_or_create_ledger(self, rollout: str, rule: ExposureRule) -> Ledger:
        """Returns a rollout's ledger, or creates it. The caller holds the lock."""
        ledger = self._ledgers.get(rollout)
        if ledger is None:
            ledger = self._ledgers[rollout] = Ledger(rollout, self.worker, rule)
        return ledger

    def note_uncounted(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
    ) -> None:
        """See `Recording.note_uncounted`."""
        self.note_uncounted_in(
            canary.rollout,
            canary.unit_rule,
            key,
            canary=canary.is_candidate(arm),
            weight_bps=canary.candidate_bps,
        )
        if self.rows is not None:
            self.rows.note_uncounted(canary, key, candidate=canary.is_candidate(arm))

    def note_uncounted_in(
        self,
        rollout: str,
        rule: ExposureRule,
        key: str,
        *,
        canary: bool,
        weight_bps: int,
    ) -> None:
        """Counts a request of a rollout without an exposure.

        Args:
            key: the reason.
        """
        now = self._clock.monotonic()
        at = self._clock.now()
        with self._lock:
            self._find_or_create_ledger(rollout, rule).note_uncounted(
                key,
                canary=canary,
                weight_bps=weight_bps,
                now=now,
                at=at,
            )

    def finish(
        self,
        ticket: Ticket | None,
        ended: CompletedRequest,
        sample: GuardrailSample | None = None,
        outcome: ExposureOutcome = ROUTER_FAULT,
    ) -> None:
        """See `Recording.finish`."""
        at = self._clock.now()
        if ticket is not None:
            self.settle(
                ticket,
                outcome,
                sample=sample,
                served=ended.model,
            )
        rows = minute_rows((ended,), at, self.worker, self._callers)
        self._sums["traffic"].add(rows)
        self.spends.note(spend_rows((ended,), at, self.worker))
        self.served_names.note(ended.target, ended.model)
        if self._metrics is not None:
            self._metrics.finished((ended,))

    def settle(
        self,
        ticket: Ticket,
        outcome: ExposureOutcome,
        *,
        sample: GuardrailSample | None = None,
        served: str = "",
    ) -> None:
        """Ends an exposure.

        Args:
            served: the model that the answer names.
        """
        if isinstance(ticket, ScoredExposure):
            now = self._clock.monotonic()
            with self._lock:
                ticket.ledger.finish(
                    ticket.exposure,
                    outcome=outcome,
                    sample=sample,
                    served=served,
                    now=now,
                )
            if self.rows is not None and ticket.ticket:
                self.rows.finish(ticket.ticket, outcome, served, sample)
                self._has_lines.set()

    async def note_feedback(self, ticket: Ticket, *, bad: bool) -> bool:
        if self.rows is not None and isinstance(ticket, ScoredExposure):
            self.rows.note_feedback(ticket.ticket, bad=bad)
            self._has_lines.set()
        return isinstance(ticket, ScoredExposure) and self.note_exposure_feedback(
            ticket, bad=bad
        )

    def judged(
        self,
        rollout: str,
        ticket: Ticket | None,
        judged: JudgeOutcome,
        cost_usd: float,
    ) -> None:
        exposure = ticket.first if isinstance(ticket, ScoredExposure) else None
        with self._lock:
            ledger = self._ledgers.get(rollout)
            if ledger is not None:
                ledger.judged(exposure, judged, cost_usd)
        if self.rows is not None:
            own = ticket.ticket if isinstance(ticket, ScoredExposure) else 0
            self.rows.judged(rollout, own, judged, cost_usd)
            self._has_lines.set()

    def note_exposure_feedback(self, scored: ScoredExposure, *, bad: bool) -> bool:
        """Enters feedback about an exposure; False if it is too late."""
        exposure = scored.first
        now = self._clock.monotonic()
        with self._lock:
            return exposure is not None and scored.ledger.note_feedback(
                exposure, bad=bad, now=now
            )

    def absorb(self, batch: Batch) -> None:
        """Adds a worker's report. The minutes of all workers become one row."""
        for kind, sums in self._sums.items():
            rows = getattr(batch, kind)
            if kind in _OF_ROUTER:
                rows = [replace(row, worker=self.worker) for row in rows]
            sums.add(rows)
        self.failed_over(batch.failovers)
        self.notify(*batch.alerts)

    def capture(self, draft: CaptureDraft) -> None:
        if self._captures is not None:
            self._captures.put(draft)

    def start(self) -> None:
        self._thread.start()
        if self.rows is not None:
            self._line_thread.start()
        if self._captures is not None:
            self._captures.start()

    def stop(self) -> None:
        self._stopping.set()
        self._has_lines.set()
        if self._line_thread.is_alive():
            self._line_thread.join(timeout=STOP_S)
        if self.rows is not None:
            self.rows.close()
        if self._captures is not None:
            self._captures.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_S)
        if self._thread.is_alive():
            log.warning("the database does not answer; the recorder spools observations")
            self._keep_batch(self._current_batch)
            self._keep_batch(self._take_batch(final=True))
        else:
            self.flush(final=True)
        if self._flusher is not None:
            self._flusher.close()
        queued_spends = [row for batch in self._queue for row in batch.spends]
        lost_rows = sum(batch.rows for batch in self._queue) - len(queued_spends)
        spends = [*queued_spends, *self._sums["spends"].take()]
        if lost_rows or spends:
            usd = sum(row.cost_usd for row in spends)
            log.error(
                "%d rows of observations are lost, and %.2f US dollars of keys' spending: "
                "neither the database nor the disk accepted them",
                lost_rows,
                usd,
            )

    def flush(self, *, final: bool = False) -> None:
        """Writes complete data. Raises nothing: after a failure, the data wait."""
        with self._lock:
            ledgers = list(self._ledgers.values())
        self._claims.ask(ledgers, final=final)
        self._failures.exchange(self._due_windows(ledgers, final=final))
        batch = self._current_batch = self._take_batch(final=final)
        try:
            self._replay()
            self._write(batch)
            self._allow_to_forget(batch)
        except StoreUnavailable:
            self.counters["flushes_failed"] += 1
            self._keep_batch(batch)
        else:
            self._end_alerts()
            with suppress(StoreUnavailable):
                self._flush_exposures()
                self._report_presence(final=final)
        self._current_batch = NOTHING

    def _flush_exposures(self) -> None:
        """Brings the files of exposures into the database. Raises StoreUnavailable."""
        if self._flusher is not None and self.rows is not None:
            self.rows.forget_ended(self.live_rollouts())
            self.counters["exposure_rows_dropped"] += self.rows.take_dropped()
            try:
                self._complete_until = self._flusher.flush()
            except OSError as error:
                # The reports go on: the rows wait, and until when is not known.
                self._complete_until = None
                log.warning("the files of a canary's rows cannot be read: %s", error)

    def _report_presence(self, *, final: bool) -> None:
        """Stores every REPORT_EVERY_S that this process serves, and at the end that it ended.
        Raises StoreUnavailable.
        """
        now_s = self._clock.monotonic()
        if final:
            if self._report is not None:
                with self._store.write() as tx:
                    tx.router_reports.forget(self.worker)
            return
        if self._report is not None and now_s - self._reported_at_s < REPORT_EVERY_S:
            return
        if not self.serves():
            return
        at = self._clock.now()
        began_at = self._report.began_at if self._report is not None else at
        report = RouterReport(self.worker, began_at, at, self._complete_until)
        with self._store.write() as tx:
            tx.router_reports.keep(report)
        self._report = report
        self._reported_at_s = now_s

    def _due_windows(self, ledgers: Iterable[Ledger], *, final: bool) -> list[WindowsOfLedger]:
        now = self._clock.monotonic()
        at = self._clock.now()
        with self._lock:
            due = [ledger.due_windows(now, at, final=final) for ledger in ledgers]
        return [windows for windows in due if windows is not None]

    def _run(self) -> None:
        while not self._stopping.wait(self._flush_interval_s):
            try:
                self.flush()
            except Exception:
                log.exception("a flush failed; recording continues")

    def _write_lines(self) -> None:
        """Writes the lines of exposures of this process, if it serves itself."""
        while not self._stopping.is_set():
            self._has_lines.wait(TIME_EVERY_S)
            self._has_lines.clear()
            self._stopping.wait(WRITE_EVERY_S)
            if self.rows is not None:
                self.rows.write()

    def _take_batch(self, *, final: bool) -> Batch:
        """Takes all complete blocks and sums as one batch.

        Args:
            final: closes open blocks, too.

        Drops an empty ledger of an ended rollout.
        """
        now = self._clock.monotonic()
        at = self._clock.now()
        live_rollouts = self.live_rollouts()
        blocks: list[ObservationBlock] = []
        with self._lock:
            for rollout, ledger in list(self._ledgers.items()):
                blocks += ledger.close(now, at) if final else ledger.tick(now, at)
                if ledger.idle and rollout not in live_rollouts:
                    self.counters["unscored_units"] += ledger.unscored
                    del self._ledgers[rollout]
            batch_id = f"{self._batch_prefix}.{next(self._batch_numbers)}"
            return self._take_sums(blocks)._replace(id=batch_id)

    def _write(self, *batches: Batch) -> None:
        """Writes batches in one transaction. After a refusal, writes batches, then parts alone.

        Sets aside a part that the store refuses alone. Raises StoreUnavailable.
        """
        rows = sum(batch.rows for batch in batches)
        if not rows:
            return
        try:
            self._commit(*batches)
        except StoreUnavailable:
            raise
        except Exception:
            parts = batches if len(batches) > 1 else batches[0].parts
            if len(parts) > 1:
                for part in parts:
                    self._write(part)
                return
            # Another attempt would fail in the same way, and block all later batches.
            log.exception("the store refused %d rows; see %s", rows, self._refused_spool.file)
            # The database skips the batch from now on, also if another process replays it.
            self._commit(NOTHING._replace(id=batches[0].id))
            self._append(self._refused_spool, batches[0])
            self.counters["rows_refused"] += rows
            return
        self.counters["rows_written"] += rows

    def _replay(self) -> None:
        """Writes the spool, then the queue, oldest first. Raises StoreUnavailable."""
        try:
            self._replay_spool()
        except OSError as error:
            log.warning("the spool cannot be read: %s", error)
        while self._queue:
            self._write(self._queue[0])
            self._allow_to_forget(self._queue.popleft())

    def _replay_spool(self) -> None:
        if self._spool.empty:
            return
        stored_batches: list[Batch] = []
        with self._spool.lock(), closing(self._spool.batches()) as batches:
            while batches_together := list(itertools.islice(batches, MAX_BATCHES_TOGETHER)):
                self._write(*batches_together)
                stored_batches += [NOTHING._replace(id=batch.id) for batch in batches_together]
            # If the process ends here, the database recognizes the repeated batches.
            self._spool.clear()
        self._allow_to_forget(*stored_batches)

    def _commit(self, *batches: Batch) -> None:
        """Writes batches in one transaction.

        The database may commit without a confirmation. If the recorder then repeats the
        batches, the database recognizes and skips them.
        """
        at = self._clock.now()
        forgettable = tuple(self._forgettable_batches)
        with self._store.write() as tx:
            new_batches = [
                batch
                for batch in batches
                if not batch.id or tx.observations.begin_batch(batch.id, at)
            ]
            tx.observations.forget_batches(forgettable)
            _write_all(tx, *new_batches)
        self._forgettable_batches.difference_update(forgettable)

    def _allow_to_forget(self, *batches: Batch) -> None:
        """Lets the database forget stored batches that no process repeats."""
        self._forgettable_batches.update(batch.id for batch in batches if batch.id)

    def _append(self, spool: Spool, batch: Batch) -> bool:
        try:
            return spool.append(batch)
        except OSError as error:
            log.warning("observations not spooled: %s", error)
            return False

    def _keep_batch(self, batch: Batch) -> None:
        """Keeps a batch that the database did not accept, on disk or in memory.

        The memory has at most `queue_rows` rows.
        """
        if not batch.rows:
            return
        if self._append(self._spool, batch):
            self.counters["rows_spooled"] += batch.rows
            return
        self._alert_once(
            AlertKind.SPOOL_FULL,
            "observations are kept in memory only",
            "The database does not answer, and the spool on disk is full or cannot be written.",
        )
        # The queue has no alerts, because a lasting cause repeats its alert.
        self.notify(*batch.alerts)
        self._queue.append(batch._replace(alerts=()))
        while sum(report.rows for report in self._queue) > self._queue_rows:
            oldest = self._queue.popleft()
            # The recorder never drops spending, because its sums need little memory. If the
            # database stored the batch without a confirmation, the sums count twice.
            self._sums["spends"].add(oldest.spends)
            self.counters["rows_dropped"] += oldest._replace(spends=()).rows
            self._alert_once(
                AlertKind.OBSERVATIONS_DROPPED,
                "observations are being dropped",
                "The database and the disk accept no observations, and memory is full: the "
                "oldest are lost.",
            )

    def _alert_once(
        self,
        kind: AlertKind,
        title: str,
        text: str,
    ) -> None:
        if kind in self._open_alerts:
            return
        alert = Alert(
            kind=kind,
            subject=f"router worker {self.worker}",
            key=kind.value,
            title=title,
            text=f"{text} Worker {self.worker} saw it first.",
            at=self._clock.now(),
            source=self.worker,
        )
        self._open_alerts[kind] = alert
        self.notify(alert)

    def _end_alerts(self) -> None:
        if self._open_alerts and not self._queue and self._spool.empty:
            at = self._clock.now()
            self.notify(
                *(trouble.now(AlertEvent.ENDED, at) for trouble in self._open_alerts.values())
            )
            self._open_alerts.clear()


def _write_all(tx: RouterTransaction, *batches: Batch) -> None:
    # Add the batches up first, because batches of one minute change the same few rows.
    sums: dict[str, list[Any]] = {
        kind: sum_rows(kind, (row for batch in batches for row in getattr(batch, kind)))
        for kind in SUMMED
    }
    blocks = [observed for batch in batches for observed in batch.blocks]
    tx.observations.append(blocks, sums["traffic"], sums["spends"], sums["asked_names"])
    if failovers := [row for batch in batches for row in batch.failovers]:
        tx.failovers.append(failovers)
    if sums["shadows"]:
        tx.shadows.append(sums["shadows"])
    if sums["exposure_counts"]:
        tx.exposures.add_counts(sums["exposure_counts"])
    for batch in batches:
        if batch.alerts:
            tx.alerts.fold(batch.alerts)
    # Write them in one statement, so that two routers write the rows in the same order.
    if sums["sightings"]:
        tx.sightings.note(sums["sightings"])
