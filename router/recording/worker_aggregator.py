"""Gathers all workers' reports in the parent, so that a sticky key counts once.

The parent alone has ledgers and writes to the database (`recorder`). A worker's side is
`reporter`; `spool.encode_frame` lists their messages. The aggregator passes feedback and aborts
from worker to worker. `router.workers.parent` starts the processes.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Final

import structlog

from harness.frame.metrics import router_metric
from harness.frame.plain_data import from_plain, to_plain
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.scored_exposures import GuardrailSample, RequestTraits
from harness.routing.capture import CapturedRequest
from router.frame.limits import BoundedMap
from router.recording.metrics import GAUGE, MetricTotals, counter_names
from router.recording.port import CaptureDraft, ScoredExposure
from router.recording.recorder import Recorder
from router.recording.shared_files import LocalAbort
from router.recording.spool import (
    ExposureEntry,
    FrameReader,
    batch_from_json,
    encode_frame,
)

log = structlog.get_logger("swapproof.router")

MAX_PENDING_OPINIONS: Final = 1000
# The most of a worker's scored requests that may get feedback after their end.
MAX_FEEDBACK_EXPOSURES: Final = 20_000


class WorkerAggregator:
    """Gathers the reports of all workers.

    recorder: gets data only from this aggregator.
    counters: the parent's own counters, such as `worker_restarts`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._live: frozenset[str] = frozenset()
        recorder.live_rollouts = lambda: self._live
        recorder.serves = lambda: self._serving > 0
        self.recorder = recorder
        self.counters: Counter[str] = Counter()
        self._reports: list[WorkerReports] = []
        self._ended_totals = MetricTotals()
        self._enter_entry = itertools.count(1)
        self._opinions: BoundedMap[int, Callable[[str], None]] = BoundedMap(
            MAX_PENDING_OPINIONS
        )
        self._aborted: dict[str, LocalAbort] = {}

    def open(self, slot: int) -> "WorkerReports":
        """Returns the reports of a new worker.

        Args:
            slot: its number among the router's workers.
        """
        reports = WorkerReports(self, slot)
        self._reports.append(reports)
        return reports

    def closed(self, reports: "WorkerReports") -> None:
        """Keeps an ended worker's counts."""
        # Keep its rollouts. If it was the last worker, the ledgers would forget their keys.
        self._reports.remove(reports)
        self._ended_totals.add_counts(reports.families)

    def live_changed(self) -> None:
        self._live = frozenset().union(*(reports.live for reports in self._reports))

    def abort(self, abort: LocalAbort) -> None:
        """Passes a worker's abort to all workers. Ignores a repeated abort."""
        if abort.rollout in self._aborted:
            return
        self._aborted[abort.rollout] = abort
        self.counters["canaries_aborted"] += 1
        for reports in self._reports:
            reports.send_abort(abort)

    def aborts(self) -> list[LocalAbort]:
        return [abort for abort in self._aborted.values() if abort.rollout in self._live]

    def forward(
        self,
        worker: str,
        opinion: list[str],
        answer: Callable[[str], None],
    ) -> None:
        number = next(self._enter_entry)
        candidates = (reports for reports in self._reports if reports.worker == worker)
        receiver = next(candidates, None)
        if receiver is None or not receiver.opinion(number, opinion):
            answer("")
            return
        # If that worker ends, the asking worker's time limit ends the wait.
        self._opinions.put(number, answer)

    def entered(self, number: int, outcome: str) -> None:
        if (answer := self._opinions.get(number)) is not None:
            answer(outcome)

    def text(self) -> bytes:
        """Returns the metrics of all workers and of the parent, for a scrape."""
        sums = deepcopy(self._ended_totals)
        # In the order of age: if two workers share a slot, the newer worker's states remain.
        for reports in self._reports:
            sums.add(reports.families, worker=str(reports.slot))
        sums.add(self._parent_families())
        return sums.text()

    @property
    def _serving(self) -> int:
        """The number of workers that serve."""
        return sum(reports.ready.is_set() for reports in (*self._reports,))

    def _parent_families(self) -> list[list[object]]:
        counts = counter_names(self.recorder.counters + self.counters)
        serving = self._serving
        name = "swapproof_router_workers"
        meaning = router_metric("router_workers").meaning
        families: list[list[object]] = [[name, GAUGE, meaning, [[name, {}, serving]]]]
        for name, count in counts.items():
            samples = [[f"swapproof_{name}_total", {}, count]]
            families.append(
                [
                    f"swapproof_{name}",
                    "counter",
                    router_metric(name).meaning,
                    samples,
                ]
            )
        return families


class WorkerReports(asyncio.Protocol):
    """One worker's channel, with its reports.

    ready: the worker serves. gone: the parent has read the worker's last report.
    """

    def __init__(self, aggregator: WorkerAggregator, slot: int) -> None:
        self.slot = slot
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.live: frozenset[str] = frozenset()
        self.families: list[Any] = []
        self._aggregator = aggregator
        self._frames = FrameReader()
        self._rollouts: list[tuple[str, ExposureRule]] = []
        self._open_exposures: dict[int, ScoredExposure] = {}
        self._judged_exposures: dict[int, ScoredExposure] = {}
        self._feedback_exposures: BoundedMap[int, ScoredExposure] = BoundedMap(
            MAX_FEEDBACK_EXPOSURES
        )
        self.worker = ""  # the worker's name, once it serves
        self._channel: asyncio.WriteTransport | None = None
        self._last_report_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Returns the seconds since a serving worker's last report; 0 before it serves."""
        return time.monotonic() - self._last_report_s if self.ready.is_set() else 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            self._channel = transport

    def data_received(self, data: bytes) -> None:
        self._last_report_s = time.monotonic()
        for report in self._frames.feed(data):
            try:
                self._enter_report(report)
            except Exception:
                # An unreadable report must not stop the other workers' reports.
                log.exception("report_refused", worker=self.slot)
                self._aggregator.counters["reports_refused"] += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        # Its unfinished exposures stay open in the ledger until their deadline.
        self._open_exposures.clear()
        self._judged_exposures.clear()
        self._channel = None
        self._aggregator.closed(self)
        self.gone.set()

    def _enter_report(self, report: dict[str, Any]) -> None:
        if "abort" in report:
            # Handle an abort first, because the rest of a report can wait.
            self._aggregator.abort(from_plain(LocalAbort, report["abort"]))
        if "ready" in report:
            self.worker = report.get("worker", "")
            self.ready.set()
            for abort in self._aggregator.aborts():
                self.send_abort(abort)
        if "live" in report:
            self.live = frozenset(report["live"])
            self._aggregator.live_changed()
        self._enter_entries(report)
        if "batch" in report:
            self._aggregator.recorder.absorb(batch_from_json(report["batch"]))
        for draft in report.get("captures", ()):
            head = from_plain(CapturedRequest, draft.pop("head"))
            self._aggregator.recorder.capture(CaptureDraft(head, **draft))
        if "metrics" in report:
            self.families = report["metrics"]
        if "ask" in report:
            self._answer(report["ask"], self._aggregator.text().decode())
        self._enter_feedback(report)

    def _enter_feedback(self, report: dict[str, Any]) -> None:
        if "opined" in report:
            ticket, is_bad = report["opined"]
            exposure = self._feedback_exposures.get(ticket)
            is_in_time = (
                exposure is not None
                and self._aggregator.recorder.note_exposure_feedback(exposure, bad=is_bad)
            )
            self._answer(report["of"], "in time" if is_in_time else "")
        if "opinion" in report:
            worker, *opinion = report["opinion"]
            self._aggregator.forward(worker, opinion, partial(self._answer, report["of"]))
        if "entered" in report:
            self._aggregator.entered(report["entered"], report["outcome"])

    def _enter_entries(self, report: dict[str, Any]) -> None:
        for rollout, rule in report.get("rollouts", ()):
            self._rollouts.append((rollout, from_plain(ExposureRule, rule)))
        for exposure in report.get("units", ()):
            self._enter_entry(exposure)

    def send_abort(self, abort: LocalAbort) -> None:
        self._send({"aborted": to_plain(abort)})

    def opinion(self, number: int, fields: list[str]) -> bool:
        return self._send({"opinion": fields, "of": number})

    def _answer(self, number: int, text: str) -> None:
        self._send({"answer": number, "text": text})

    def _send(self, message: dict[str, Any]) -> bool:
        """Sends a message to the worker. Returns False if the worker has ended."""
        if self._channel is not None:
            self._channel.write(encode_frame(message))
        return self._channel is not None

    def _enter_entry(self, entry: list[Any]) -> None:
        """Enters an entry of `units`. Raises ValueError for an unknown tag."""
        tag, *values = entry
        match ExposureEntry(tag):
            case ExposureEntry.ADMITTED:
                self._admit(*values)
            case ExposureEntry.ENDED:
                self._end(*values)
            case ExposureEntry.JUDGED:
                ticket, number, outcome, cost_usd = values
                rollout, _ = self._rollouts[number]
                exposure = self._judged_exposures.pop(ticket, None)
                verdict = JudgeOutcome(outcome)
                self._aggregator.recorder.judged(rollout, exposure, verdict, cost_usd)
            case ExposureEntry.UNCOUNTED:
                number, canary, weight_bps, key = values
                rollout, rule = self._rollouts[number]
                self._aggregator.recorder.note_uncounted_in(
                    rollout,
                    rule,
                    key,
                    canary=bool(canary),
                    weight_bps=weight_bps,
                )

    def _admit(
        self,
        ticket: int,
        rollout_number: int,
        key: int,
        canary: int,
        weight_bps: int,
        traits: int,
        client: str,
    ) -> None:
        rollout, rule = self._rollouts[rollout_number]
        scored = self._aggregator.recorder.admit_to(
            rollout,
            rule,
            key,
            canary=bool(canary),
            weight_bps=weight_bps,
            traits=traits,
            client=client,
        )
        if scored is None:
            return
        self._open_exposures[ticket] = scored
        if scored.first is None:
            return
        self._feedback_exposures.put(ticket, scored)
        if traits & RequestTraits.JUDGED.value:
            self._judged_exposures[ticket] = scored

    def _end(
        self,
        ticket: int,
        outcome: list[Any],
        served: str,
        values: list[Any],
    ) -> None:
        exposure = self._open_exposures.pop(ticket, None)
        if exposure is None:
            return
        sample = GuardrailSample.from_plain(values) if values else None
        self._aggregator.recorder.settle(
            exposure,
            ExposureOutcome.from_plain(outcome),
            sample=sample,
            served=served,
        )
