"""Sends a worker's records to the parent every INTERVAL_S; no request waits for it.

A worker keeps no ledger and writes to no database. In the parent, `worker_aggregator` does.
`spool.encode_frame` lists the messages of both sides. A router of one process uses `recorder`
directly. If the parent has ended, the worker ends, because it could not record.
"""

import asyncio
import logging
import math
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.frame.people.limits import SpendTotals
from harness.frame.plain_data import from_plain, short_hash, to_plain
from harness.frame.ports import Clock
from harness.gate.online.outcome import ROUTER_FAULT, ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.scored_exposures import GuardrailSample
from harness.routing.table import Arm, Canary
from router.recording.exposure_writer import ExposureWriter
from router.recording.internal_errors import place_of
from router.recording.port import (
    CaptureDraft,
    EnterFeedback,
    FeedbackBody,
    FeedbackOutcome,
    FeedbackVerdict,
    Recording,
    Ticket,
    ignore_event,
)
from router.recording.shared_files import LocalAbort
from router.recording.spool import ExposureEntry, FrameReader, encode_frame
from router.recording.sums import CompletedRequest, minute_rows, spend_rows

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.05
# The longest pause after an empty report; the next request ends the pause.
QUIET_S: Final = 1.0
# The time between two reports of metrics. Other workers' scrapes may be this much out of date.
METRICS_EVERY_S: Final = 3.0
ANSWER_S: Final = 5.0
STOP_S: Final = 10.0
# The most unsent data for the parent. Beyond it, the worker serves requests without a score.
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024
MAX_EXPOSURES: Final = 200_000
# The most characters of waiting drafts. A report has fewer: a large report delays requests.
MAX_DRAFT_CHARS: Final = 32 * 1024 * 1024
MAX_REPORT_DRAFT_CHARS: Final = 256 * 1024
# The most finished requests that one turn of the event loop adds up.
MAX_ENDED_REQUESTS: Final = 1000
_get_target_and_model: Final = attrgetter("target", "model")
# Up to Python 3.11, finding a member in its class takes ten times as long.
_ADMITTED = ExposureEntry.ADMITTED.value
_ENDED = ExposureEntry.ENDED.value
_JUDGED = ExposureEntry.JUDGED.value
_UNCOUNTED = ExposureEntry.UNCOUNTED.value


class ReportedRollout(NamedTuple):
    """A rollout in this worker's reports, and facts of its latest canary.

    number: names the rollout in reports. candidate_arm: the arm of the candidate's requests.
    """

    canary: Canary
    number: int
    candidate_arm: Arm
    candidate_bps: int


class Reporter(Recording):
    """Records for a worker.

    live_rollouts: the rollouts of the serving snapshot.
    channel: a socket connected to the parent.
    on_orphaned: called in the event loop after the connection to the parent ended.
    exposures: the folder of the files of exposures; None to write none.
    on_fault: gets the exceptions that reports raise.
    """

    def __init__(
        self,
        channel: socket.socket,
        *,
        worker: str,
        clock: Clock,
        live_rollouts: Callable[[], frozenset[str]],
        on_orphaned: Callable[[], None],
        exposures: Path | None = None,
    ) -> None:
        super().__init__(worker, clock, exposures)
        # The requests that ended in the minute `_minute` and are in no sum yet. The minute
        # ends at `_minute_ends` by the monotonic clock. Only the keys' sums contain requests:
        # the first `_spent`.
        self._ended: list[CompletedRequest] = []
        self._spent = 0
        self._minute = datetime.min.replace(tzinfo=UTC)
        self._minute_ends = -math.inf
        self._channel = channel
        self._live_rollouts = live_rollouts
        self._on_orphaned = on_orphaned
        self._live: frozenset[str] = frozenset()
        self._rollouts: dict[str, ReportedRollout] = {}
        self._new_rollouts: list[list[object]] = []
        self._exposures: list[tuple[object, ...]] = []  # entries of `ExposureEntry`
        self._drafts: deque[CaptureDraft] = deque()
        self._draft_chars = 0
        self._tickets = 0
        self.on_fault: Callable[[Exception], None] = ignore_event
        self._failed_report: dict[str, Any] = {}  # a failed report, which is sent once more
        self._transport: asyncio.WriteTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._next_record: asyncio.Future[None] | None = None  # waits for the next record
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._enter_feedback: EnterFeedback | None = None
        self._feedback_tasks: set[asyncio.Task[None]] = set()
        self._last_query = 0
        self._is_ending = False
        self._closed = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None  # lines of exposures

    def admit(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
        traits: int = 0,
        client: str = "",
    ) -> int | None:
        """See `Recording.admit`."""
        if len(self._exposures) >= MAX_EXPOSURES:
            # This causes no bias: no outcome is known yet, and the limit is the same for both
            # arms.
            self.counters["rows_dropped"] += 1
            return None
        self._tickets += 1
        reported = self._rollouts.get(canary.rollout)
        if reported is None or reported.canary is not canary:
            reported = self._note_rollout(canary)
        entry = (
            _ADMITTED,
            self._tickets,
            reported.number,
            int.from_bytes(short_hash(key)),
            int(arm is reported.candidate_arm),
            reported.candidate_bps,
            traits,
            client,
        )
        self._exposures.append(entry)
        if self.rows is not None:
            self.rows.admit(
                self._tickets,
                canary,
                key,
                candidate=arm is reported.candidate_arm,
                traits=traits,
                client=client,
            )
        if self._next_record is not None:
            self._wake()
        return self._tickets

    def note_uncounted(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
    ) -> None:
        """See `Recording.note_uncounted`."""
        if len(self._exposures) >= MAX_EXPOSURES:
            self.counters["rows_dropped"] += 1
            return
        reported = self._note_rollout(canary)
        is_canary = int(arm is reported.candidate_arm)
        self._exposures.append(
            (_UNCOUNTED, reported.number, is_canary, reported.candidate_bps, key)
        )
        if self.rows is not None:
            self.rows.note_uncounted(canary, key, candidate=bool(is_canary))
        if self._next_record is not None:
            self._wake()

    def _note_rollout(self, canary: Canary) -> ReportedRollout:
        earlier = self._rollouts.get(canary.rollout)
        if earlier is None:
            self._new_rollouts.append([canary.rollout, to_plain(canary.unit_rule)])
        number = len(self._rollouts) if earlier is None else earlier.number
        reported = ReportedRollout(canary, number, canary.candidate_arm, canary.candidate_bps)
        self._rollouts[canary.rollout] = reported
        return reported

    def finish(
        self,
        ticket: Ticket | None,
        ended: CompletedRequest,
        sample: GuardrailSample | None = None,
        outcome: ExposureOutcome = ROUTER_FAULT,
    ) -> None:
        """See `Recording.finish`."""
        if isinstance(ticket, int):
            values = sample.plain if sample is not None else ()
            self._exposures.append((_ENDED, ticket, outcome.plain, ended.model, values))
            if self.rows is not None:
                self.rows.finish(ticket, outcome, ended.model, sample)
        if (
            self._clock.monotonic() >= self._minute_ends
            or len(self._ended) >= MAX_ENDED_REQUESTS
        ):
            self._add_up()
            self._minute = at = self._clock.now()
            left_s = 60.0 - at.second - at.microsecond / 1e6
            self._minute_ends = self._clock.monotonic() + left_s
        self._ended.append(ended)
        if self._next_record is not None:
            self._wake()

    def settle(self, ticket: Ticket, outcome: ExposureOutcome) -> None:
        """See `Recording.settle`."""
        if isinstance(ticket, int):
            self._exposures.append((_ENDED, ticket, outcome.plain, "", ()))
            if self.rows is not None:
                self.rows.finish(ticket, outcome)
        if self._next_record is not None:
            self._wake()

    def _add_up(self) -> None:
        """Adds newly finished requests to all sums.

        The next finished request reads the wall clock again, because its time may have changed.
        """
        if self._spent < len(self._ended):
            self._note_spends()
        requests = self._ended
        self._ended = []
        self._spent = 0
        self._minute_ends = -math.inf
        if requests:
            rows = minute_rows(requests, self._minute, self.worker, self._callers)
            self._sums["traffic"].add(rows)
            for target_and_model in set(map(_get_target_and_model, requests)):
                self.served_names.note(*target_and_model)
            if self._metrics is not None:
                self._metrics.finished(requests)

    def _note_spends(self) -> None:
        requests = self._ended[self._spent :]
        self._spent = len(self._ended)
        self.spends.note(spend_rows(requests, self._minute, self.worker))

    def spent(self, key: str, today: date) -> SpendTotals:
        if self._spent < len(self._ended):
            self._note_spends()
        return self.spends.used(key, today)

    def capture(self, draft: CaptureDraft) -> None:
        if self._draft_chars + draft.size > MAX_DRAFT_CHARS:
            self.counters["captures_dropped"] += 1
            return
        self._draft_chars += draft.size
        self._drafts.append(draft)

    def announce(self, abort: LocalAbort) -> None:
        # Send it at once, because other workers still send users to the canary.
        self._send({"abort": to_plain(abort)})

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._handle_task_end)

    def stop(self) -> None:
        self._is_ending = True

    async def aclose(self) -> None:
        self._is_ending = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self.report(final=True)
        except Exception as error:
            self.on_fault(error)
            self.report(final=True)  # sends a failed report once more
        if self.rows is not None:
            await self._finish_writing(self.rows)
        # The parent closes the channel after it has read everything.
        self._transport.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._closed.wait()
        self._transport.close()

    async def text(self) -> bytes:
        self._add_up()
        return (await self._ask_parent({"metrics": self._read_metrics()}, "ask")).encode()

    def on_feedback(self, enter: EnterFeedback) -> None:
        self._enter_feedback = enter

    async def note_feedback(self, ticket: Ticket, *, bad: bool) -> bool:
        if self.rows is not None and isinstance(ticket, int):
            self.rows.note_feedback(ticket, bad=bad)
        # Send the request first, because the parent must know it before its feedback.
        self.report()
        try:
            return bool(await self._ask_parent({"opined": [ticket, bad]}, "of"))
        except TimeoutError:
            return False

    def judged(
        self,
        rollout: str,
        ticket: Ticket | None,
        judged: JudgeOutcome,
        cost_usd: float,
    ) -> None:
        if isinstance(ticket, int):
            number = self._rollouts[rollout].number
            self._exposures.append((_JUDGED, ticket, number, int(judged), cost_usd))
        if self.rows is not None:
            self.rows.judged(
                rollout, ticket if isinstance(ticket, int) else 0, judged, cost_usd
            )

    async def forward_feedback(self, opinion: FeedbackBody, key: str) -> FeedbackOutcome | None:
        outcome = await self._ask_parent({"opinion": [opinion.worker, key, *opinion]}, "of")
        return FeedbackOutcome(outcome) if outcome else None

    async def _ask_parent(self, message: dict[str, Any], number: str) -> str:
        if self._transport is None or self._transport.is_closing():
            raise TimeoutError
        self._last_query += 1
        query_number = self._last_query
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[query_number] = answer
        try:
            self._send({**message, number: query_number})
            async with asyncio.timeout(ANSWER_S):
                return await answer
        finally:
            del self._answers[query_number]

    async def _enter_forwarded_feedback(
        self,
        number: int,
        key: str,
        opinion_fields: list[str],
    ) -> None:
        outcome = None
        if self._enter_feedback is not None:
            request_id, verdict, label = opinion_fields
            opinion = FeedbackBody(request_id, FeedbackVerdict(verdict), label)
            outcome = await self._enter_feedback(opinion, key)
        self._send({"entered": number, "outcome": outcome or ""})

    def report(self, *, final: bool = False, counts: bool = False) -> bool:
        """Sends new records unless the parent is far behind. Returns whether nothing was new.

        Args:
            final: sends everything, at the worker's end.
            counts: also sends the metrics.
        """
        self._begin_writing()
        unsent_bytes = self._transport.get_write_buffer_size() if self._transport else 0
        if not final and unsent_bytes > MAX_UNSENT_BYTES:
            return False
        if self._failed_report:  # send it once more; a second failure loses it
            failed_message = self._failed_report
            self._failed_report = {}
            self._send(failed_message)
        message: dict[str, Any] = {}
        try:
            self._fill_report(message, final=final, counts=counts or final)
            if message:
                self._send(message)
        except Exception:
            self._failed_report = message
            raise
        return not message.keys() - {"metrics"}

    def _begin_writing(self) -> None:
        """Writes the lines of exposures in a thread, so that no request waits for the disk.
        Raises an unexpected error of the last writing.
        """
        last_writing = self._writing
        if self.rows is None or not (last_writing is None or last_writing.done()):
            return
        self._writing = None
        if last_writing is not None:
            last_writing.result()
        self.counters["exposure_rows_dropped"] += self.rows.take_dropped()
        if self.rows.has_work:
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, self.rows.write)

    async def _finish_writing(self, rows: ExposureWriter) -> None:
        """Writes the rest. A disk that does not answer loses it."""
        if self._writing is not None:
            _, unfinished = await asyncio.wait([self._writing], timeout=STOP_S)
            if unfinished:
                log.warning("the disk does not answer; the last rows of canaries are lost")
                return
        rows.close()

    def _fill_report(
        self,
        message: dict[str, Any],
        *,
        final: bool,
        counts: bool,
    ) -> None:
        live_rollouts = self._live_rollouts()
        if live_rollouts != self._live:
            self._live = live_rollouts
            message["live"] = sorted(live_rollouts)
            if self.rows is not None:
                self.rows.forget_ended(live_rollouts)
        if self._new_rollouts:
            message["rollouts"] = self._new_rollouts
            self._new_rollouts = []
        if self._exposures:
            message["units"] = self._exposures
            self._exposures = []
        self._add_up()
        batch = self._take_sums()
        if batch.rows:
            message["batch"] = batch._asdict()
        if self._drafts:
            message["captures"] = self._take_drafts(take_all=final)
        if counts:
            message["metrics"] = self._read_metrics()

    def _take_drafts(self, *, take_all: bool) -> list[dict[str, Any]]:
        drafts: list[dict[str, Any]] = []
        chars = 0
        while self._drafts and (take_all or chars < MAX_REPORT_DRAFT_CHARS):
            draft = self._drafts.popleft()
            chars += draft.size
            drafts.append(to_plain(draft._asdict()))
        self._draft_chars -= chars
        return drafts

    def _read_metrics(self) -> object:
        return self._metrics.families() if self._metrics else []

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(message))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(
            lambda: _FrameProtocol(self), sock=self._channel
        )
        self._send(
            {
                "ready": True,
                "worker": self.worker,
                "metrics": self._read_metrics(),
            }
        )
        counted_at_s = loop.time()
        while True:
            await asyncio.sleep(INTERVAL_S)
            are_counts_due = loop.time() - counted_at_s >= METRICS_EVERY_S
            if are_counts_due:
                counted_at_s = loop.time()
            try:
                is_quiet = self.report(counts=are_counts_due)
            except Exception as error:
                # Continue after an error, or the parent would get no more records.
                self.on_fault(error)
            else:
                if is_quiet:
                    await self._wait_for_record(loop)

    async def _wait_for_record(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next_record = loop.create_future()
        timer = loop.call_later(QUIET_S, self._wake)
        try:
            await self._next_record
        finally:
            timer.cancel()
            self._next_record = None

    def _wake(self) -> None:
        if self._next_record is not None and not self._next_record.done():
            self._next_record.set_result(None)

    def _handle_task_end(self, task: asyncio.Task[None]) -> None:
        """Ends the worker if its reports failed. A new worker replaces it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the worker cannot report: %s", place_of(error))
            self._on_orphaned()

    def handle_message(self, message: dict[str, Any]) -> None:
        """Handles the parent's message: an abort, another worker's feedback, or an answer."""
        if "aborted" in message:
            self.on_abort(from_plain(LocalAbort, message["aborted"]))
            return
        if "opinion" in message:
            key, *opinion = message["opinion"]
            task = asyncio.ensure_future(
                self._enter_forwarded_feedback(message["of"], key, opinion)
            )
            self._feedback_tasks.add(task)
            task.add_done_callback(self._feedback_tasks.discard)
            return
        answer = self._answers.get(message["answer"])
        if answer is not None and not answer.done():
            answer.set_result(message["text"])

    def hung_up(self) -> None:
        self._closed.set()
        if not self._is_ending:
            self._on_orphaned()


class _FrameProtocol(asyncio.Protocol):
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._frames = FrameReader()

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            self._reporter.handle_message(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._reporter.hung_up()
