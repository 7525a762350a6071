"""Counts, logs and alerts faults of the router's own code. The request continues if it can.

A part that may fail has a name (`RouterPart`), so that an alert shows where the fault is and
whether it changed the answer. Logs and alerts have the error's type and place, but never its
text, because the text may contain content. Failures of providers do not belong here.
"""

import asyncio
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from queue import Empty, Full, Queue
from typing import Final

import structlog

from harness.routing.table import Arm
from router.recording.metrics import RouterMetrics
from router.snapshot.compiled import CompiledRoute

log = logging.getLogger(__name__)

NO_ARM: Final = "none"


class RouterPart(StrEnum):
    """The part of the router that failed.

    ATTEMPT: code for a single target. BACKGROUND: tasks outside any request.
    """

    REQUEST = "request"
    LIMITS = "limits"
    PLAN = "plan"
    SCORING = "scoring"
    JUDGE = "judge"
    FEEDBACK = "feedback"
    TRACING = "tracing"
    CAPTURE = "capture"
    SHADOW = "shadow"
    GUARDRAILS = "guardrails"
    HEADERS = "headers"
    HEARTBEAT = "heartbeat"
    ATTEMPT = "attempt"
    DISPATCH = "dispatch"
    STREAM = "stream"
    RECORDING = "recording"
    BACKGROUND = "background"


class InternalErrors:
    """Notes faults of the router's own code, for one event loop.

    tell: sends an alert, like `WorkerAlerts.internal_error`. A process logs a part's fault at
    one place once, but counts and alerts it each time.
    """

    def __init__(
        self,
        metrics: RouterMetrics,
        counters: Counter[str],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._metrics = metrics
        self._counters = counters
        self._tell = tell
        self._logged: set[tuple[RouterPart, str]] = set()

    def note(
        self,
        part: RouterPart,
        error: BaseException,
        route: CompiledRoute | None = None,
        arm: Arm | None = None,
    ) -> None:
        """Counts and logs an internal error; raises nothing.

        Args:
            arm: the assigned arm.
        """
        try:
            self._note(part, error, route, arm.value if arm else NO_ARM)
        except Exception as fault:
            log.error("an internal error could not be reported: %s", place_of(fault))  # noqa: TRY400

    def _note(
        self,
        part: RouterPart,
        error: BaseException,
        route: CompiledRoute | None,
        arm: str,
    ) -> None:
        self._counters["internal_errors"] += 1
        self._metrics.internal_error(part.value, arm)
        place = place_of(error)
        # A fault in every request must not fill the log.
        if (part, place) not in self._logged:
            self._logged.add((part, place))
            # Do not log the error's message, because it may contain content.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error(
                "internal error in part %s: %s\n%s",
                part.value,
                place,
                frames,
            )
        experiment = route.experiment if route else None
        subject = f"route {route.route.name}" if route else "the router"
        effect = (
            "The answer did not depend on it."
            if part in HARMLESS_PARTS
            else "The router tried again."
        )
        message = f"{place}, in part {part.value}, arm {arm}. {effect}"
        self._tell(experiment.rollout if experiment else subject, subject, message)


# Faults in these parts do not change the answer.
HARMLESS_PARTS: Final = frozenset(RouterPart) - {
    RouterPart.REQUEST,
    RouterPart.PLAN,
    RouterPart.ATTEMPT,
    RouterPart.DISPATCH,
    RouterPart.STREAM,
}


def place_of(error: BaseException) -> str:
    """Returns an error's type, file, line and function, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    name = type(error).__name__
    if not frames:
        return name
    file = frames[-1].filename
    last = frames[-1]
    return f"{name} in {'/'.join(file.split('/')[-2:])}:{last.lineno} ({last.name})"


# The pause before a failed background task restarts.
RESTART_PAUSE_S: Final = 1.0
Watch = Callable[[], Awaitable[None]]


class Background:
    """Runs one worker's background tasks between `start` and `stop`."""

    def __init__(self, watches: Sequence[Watch], errors: InternalErrors) -> None:
        self._watches = tuple(watches)
        self._errors = errors
        self._tasks: list[asyncio.Future[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self.keep_up(watch)) for watch in self._watches]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep_up(self, watch: Watch) -> None:
        """Restarts a task after it ends or fails, with a pause of RESTART_PAUSE_S."""
        while True:
            try:
                await watch()
            except Exception as error:
                self._errors.note(RouterPart.BACKGROUND, error)
            await asyncio.sleep(RESTART_PAUSE_S)


events = structlog.get_logger("swapproof.router")

MAX_QUEUED_EVENTS: Final = 10_000
STOP_S: Final = 5.0


class EventLog:
    """Writes log events in a thread, so that no request waits for the log's output.

    dropped: the number of lost events: the queue was full, or writing failed.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._events: Queue[Mapping[str, object] | None] = Queue(MAX_QUEUED_EVENTS)
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)

    def put(self, event: str, **fields: object) -> None:
        """Queues an event; drops and counts it if the queue is full."""
        try:
            self._events.put_nowait({"event": event, **fields})
        except Full:
            self.dropped += 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Writes the waiting events within STOP_S."""
        if self._thread.is_alive():
            try:
                self._events.put(None, timeout=STOP_S)
            except Full:
                return
            self._thread.join(STOP_S)

    def drain(self) -> None:
        """Writes the queued events in the caller's thread."""
        while True:
            try:
                fields = self._events.get_nowait()
            except Empty:
                return
            if fields is not None:
                events.warning(**fields)

    def _run(self) -> None:
        while (fields := self._events.get()) is not None:
            try:
                events.warning(**fields)
            except Exception:
                self.dropped += 1
