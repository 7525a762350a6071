"""Defines the recording port: the interface through which observers record requests.

Observers know only this class, so they work in the same way in a worker and in a router of one
process. `recorder` and `reporter` implement it. The format of feedback is here as well, because
both ends read it.
"""

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.frame.alerts.alert import Alert
from harness.frame.errors import InputError
from harness.frame.people.limits import KeySpend, SpendTotals, total_spend
from harness.frame.ports import Clock
from harness.gate.online.observation import AskedName, ObservationBlock
from harness.gate.online.outcome import ROUTER_FAULT, ExposureOutcome, JudgeOutcome
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    LaterTurn,
    LedgerExposure,
)
from harness.routing.capture import CapturedRequest
from harness.routing.reliability.failover import Failover
from harness.routing.shadow import ShadowTally, ShadowUsage, sum_usage
from harness.routing.table import Arm, Canary
from router.frame.body import FieldError
from router.frame.json_spans import parse_object
from router.recording.caller_history import CallerHistory
from router.recording.exposure_writer import ExposureWriter
from router.recording.ledger import Ledger
from router.recording.metrics import RouterMetrics
from router.recording.shared_files import LocalAbort
from router.recording.spool import Batch
from router.recording.sums import (
    SUMMED,
    CompletedRequest,
    DayTotals,
    ServedNames,
    Sums,
)

MAX_BODY_BYTES: Final = 16 * 1024
MAX_LABEL: Final = 64
# A lower score counts as bad feedback.
GOOD_FROM: Final = 0.5
FIELDS: Final = ("request_id", "thumb", "score", "label")


class FeedbackVerdict(StrEnum):
    GOOD = "good"
    BAD = "bad"
    NONE = "none"  # feedback with only a label


class FeedbackOutcome(StrEnum):
    COUNTED = "counted"
    LATE = "late"  # the block is already in the database
    NOT_SCORED = "not_scored"  # without a canary, or not counted for it


class FeedbackBody(NamedTuple):
    """One caller's feedback, in the form that all processes exchange."""

    request_id: str
    verdict: FeedbackVerdict
    label: str  # the caller's own word; empty without one

    @property
    def worker(self) -> str:
        """The name of the worker that served the request. The request's id contains it."""
        return self.request_id.removeprefix("req_").rpartition("-")[0]


def read_feedback(body: bytes) -> FeedbackBody:
    """Reads the body of a feedback.

    Raises InputError, with the field's name if it knows one.
    """
    members = parse_object(body)
    for name in members.values:
        if name not in FIELDS:
            raise FieldError(name, f"unknown field; known: {', '.join(FIELDS)}")
    request_id = members.get("request_id")
    label = members.get("label")
    if not isinstance(request_id, str) or not request_id:
        raise FieldError("request_id", "must be the answer's x-swapproof-request-id")
    if label is not None and not (
        isinstance(label, str) and 0 < len(label) <= MAX_LABEL and label.isprintable()
    ):
        raise FieldError("label", f"must be 1 to {MAX_LABEL} printable characters")
    opinion = {name: members.get(name) for name in ("thumb", "score")}
    if label is None and all(value is None for value in opinion.values()):
        raise InputError("needs a thumb, a score or a label")
    return FeedbackBody(request_id, _read_verdict(opinion), str(label or ""))


def _read_verdict(opinion: Mapping[str, object]) -> FeedbackVerdict:
    thumb = opinion["thumb"]
    score = opinion["score"]
    if thumb not in (None, "up", "down"):
        raise FieldError("thumb", 'must be "up" or "down"')
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0
    ):
        raise FieldError("score", "must be a number from 0 to 1")
    if thumb == "down" or (isinstance(score, int | float) and score < GOOD_FROM):
        return FeedbackVerdict.BAD
    return FeedbackVerdict.NONE if thumb is None and score is None else FeedbackVerdict.GOOD


# Limits the log: in an outage, every request fails over.
FAILOVERS_PER_S: Final = 20
MAX_ALERTS: Final = 1000


class CaptureDraft(NamedTuple):
    """An unredacted request and its answer, for the capture writer. Never logged.

    An entry of a shadow pair has no texts; the draft of its answer follows it.
    """

    head: CapturedRequest  # without content
    per_day: int
    client_body: str
    answer: str  # the answer's body, or its events
    candidate_answer: str = ""  # of a shadow pair

    def __repr__(self) -> str:
        return f"Draft({self.head.route!r}, {self.head.request!r})"

    @property
    def size(self) -> int:
        return len(self.client_body) + len(self.answer) + len(self.candidate_answer)


class ScoredExposure(NamedTuple):
    """A request that counts in a rollout's statistics, in the process of the ledger."""

    ledger: Ledger
    exposure: LedgerExposure | LaterTurn
    ticket: int = 0  # of its row; 0 if another process writes the rows

    @property
    def first(self) -> LedgerExposure | None:
        """The exposure, if this is a caller's first request; None for a later one."""
        return self.exposure if isinstance(self.exposure, LedgerExposure) else None


# A number, if another process keeps the ledger.
Ticket = ScoredExposure | int


# key: the id of the API key that sends the feedback. Returns None for an unknown request.
EnterFeedback = Callable[[FeedbackBody, str], Awaitable[FeedbackOutcome | None]]


class Recording:
    """A Recorder, or the Reporter of a worker whose parent has the Recorder.

    worker: the process's name. Every process has a new name, new counters and new sums.
    rows: the writer of the process's exposures; None without a folder for them.
    on_abort: gets the canaries that other workers have stopped.
    """

    def __init__(self, worker: str, clock: Clock, exposures: Path | None = None) -> None:
        self.worker = worker
        self.rows = ExposureWriter(exposures, worker, clock) if exposures else None
        self.counters: Counter[str] = Counter()
        self._sums: dict[str, Sums[Any]] = {kind: Sums(kind) for kind in SUMMED}
        self.spends: DayTotals[KeySpend, SpendTotals] = DayTotals(
            worker, self._sums["spends"], "key", total_spend
        )
        self.shadows: DayTotals[ShadowTally, ShadowUsage] = DayTotals(
            worker, self._sums["shadows"], "shadow", sum_usage
        )
        self.served_names = ServedNames(clock, self._sums["sightings"])
        self._callers = CallerHistory()
        self.on_abort: Callable[[LocalAbort], None] = ignore_event
        # Returns further names that requests asked for, once for each batch.
        self.more_names: Callable[[], Sequence[AskedName]] = tuple
        self._clock = clock
        self._metrics: RouterMetrics | None = None
        self._pending_lock = threading.Lock()  # failovers and alerts, until the next batch
        self._failovers: list[Failover] = []
        self._alerts: list[Alert] = []
        # The current second of the monotonic clock, and the failovers entered in it.
        self._second = 0
        self._failovers_in_second = 0

    def _take_sums(self, blocks: Sequence[ObservationBlock] = ()) -> Batch:
        with self._pending_lock:
            failovers = self._failovers
            alerts = self._alerts
            self._failovers = []
            self._alerts = []
        self._sums["asked_names"].add(self.more_names())
        if self.rows is not None:
            self._sums["exposure_counts"].add(self.rows.take_counts())
        sums: dict[str, Any] = {kind: new.take() for kind, new in self._sums.items()}
        return Batch(
            blocks=blocks,
            failovers=failovers,
            alerts=alerts,
            **sums,
        )

    def spent(self, key: str, today: date) -> SpendTotals:
        """Returns an API key's spending that this process knows."""
        return self.spends.used(key, today)

    def note_asked(self, name: str, route: str) -> None:
        """Counts a request by the name that it asked for (`AskedName`).

        The caller limits the number of names.
        """
        row = AskedName(name, self._clock.now().date(), route, 1)
        self._sums["asked_names"].add((row,))

    def admit(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
        traits: int = 0,
        client: str = "",
    ) -> Ticket | None:
        """Admits a request. Returns None for a request without a score.

        Args:
            traits: flags of `RequestTraits`.
            client: the id of the client's key.
        """
        raise NotImplementedError

    def note_uncounted(
        self,
        canary: Canary,
        arm: Arm,
        key: str,
    ) -> None:
        """Counts a request of a rollout without an exposure.

        Args:
            key: the reason, a key of `ObservationBlock.uncounted`.
        """
        raise NotImplementedError

    def finish(
        self,
        ticket: Ticket | None,
        ended: CompletedRequest,
        sample: GuardrailSample | None = None,
        outcome: ExposureOutcome = ROUTER_FAULT,
    ) -> None:
        """Records a finished request, and ends its exposure.

        Args:
            ticket: None without a score.
            sample: the values for its guardrails.
            outcome: the default marks a fault of the router, so the exposure is not measured.
        """
        raise NotImplementedError

    def settle(self, ticket: Ticket, outcome: ExposureOutcome) -> None:
        """Enters the outcome of a scored request that no router served."""
        raise NotImplementedError

    def failed_over(self, rows: Sequence[Failover]) -> None:
        """Enters rows into the failover log; drops and counts rows beyond the limit."""
        second = int(self._clock.monotonic())
        with self._pending_lock:
            if second != self._second:
                self._second = second
                self._failovers_in_second = 0
            free_rows = max(0, FAILOVERS_PER_S - self._failovers_in_second)
            self._failovers += rows[:free_rows]
            self._failovers_in_second += len(rows[:free_rows])
            self.counters["failover_rows_dropped"] += len(rows[free_rows:])

    def notify(self, *alerts: Alert) -> None:
        """Enters alerts for the next batch. Drops and counts alerts beyond MAX_ALERTS."""
        with self._pending_lock:
            free_places = max(0, MAX_ALERTS - len(self._alerts))
            self._alerts += alerts[:free_places]
            self.counters["alerts_dropped"] += len(alerts[free_places:])

    def capture(self, draft: CaptureDraft) -> None:
        """Queues a draft to redact and store. Drops and counts it if the queue is full."""
        raise NotImplementedError

    def on_feedback(self, enter: EnterFeedback) -> None:
        """Sets the function that enters other workers' feedback. The default has no workers."""

    async def note_feedback(self, ticket: Ticket, *, bad: bool) -> bool:
        """Enters feedback about a scored request; False if its block is closed."""
        raise NotImplementedError

    def judged(
        self,
        rollout: str,
        ticket: Ticket | None,
        judged: JudgeOutcome,
        cost_usd: float,
    ) -> None:
        """Enters the judgement of a sampled request.

        Args:
            ticket: None if only the cost counts.
        """
        raise NotImplementedError

    async def forward_feedback(self, opinion: FeedbackBody, key: str) -> FeedbackOutcome | None:  # noqa: ARG002 - the default
        """Asks another worker; None if it does not know the key's request.

        Raises TimeoutError.
        """
        return None

    def announce(self, abort: LocalAbort) -> None:
        """Sends an abort of this worker to the other workers. The default has none."""

    def attach(self, metrics: RouterMetrics) -> None:
        """Sets the metrics that count finished requests."""
        self._metrics = metrics

    async def text(self) -> bytes:
        """Returns the metrics of all workers of the router. Raises TimeoutError."""
        return self._metrics.text() if self._metrics is not None else b""

    def start(self) -> None:
        """Starts to write or send the records."""
        raise NotImplementedError

    def stop(self) -> None:
        """Writes or sends the rest within a bounded time."""
        raise NotImplementedError


def ignore_event(event: object) -> None: ...
