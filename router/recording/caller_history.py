"""Counts the callers of a route on each day.

The canary compares the candidate's failures with this history (`usual_rate`,
statistics.md §2.20). A process counts its own callers. It reads finished requests in batches,
so that no request waits for it.
"""

from collections import deque
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final, NamedTuple, Protocol

from harness.gate.online.guardrails import WINDOW_REQUESTS, Guardrail
from harness.gate.online.outcome import READINGS, OutcomeKind, Reading
from harness.gate.online.usual_rate import USUAL_WINDOW_S

# The most callers of a day that a process remembers.
MAX_CALLERS: Final = 100_000
# A window is complete this long after its end, because its last request may take so long.
COMPLETE_AFTER_S: Final = 120.0
_ERRORS: Final = READINGS[Guardrail.ERRORS]


class CallerRequest(Protocol):
    """A finished request.

    caller: a hash of the caller's name; 0 if unknown. kind: the outcome for the request's arm;
    None if unknown.
    """

    @property
    def caller(self) -> int: ...

    @property
    def kind(self) -> OutcomeKind | None: ...

    @property
    def latency_ms(self) -> float: ...


class CallerCounts(NamedTuple):
    """The numbers of callers' first requests of a day and of their windows, with failures."""

    first_requests: int
    first_failed: int
    windows: int
    windows_failed: int


class _Window:
    """A caller's requests within USUAL_WINDOW_S of the caller's first request of the day."""

    __slots__ = ("began_s", "caller", "reading", "requests")

    def __init__(self, caller: int, began_s: float) -> None:
        self.caller = caller
        self.began_s = began_s
        self.requests = 0
        self.reading = Reading.GOOD

    def add(self, reading: Reading) -> None:
        """Adds a request. The first request or any failure gives the window's reading."""
        self.requests += 1
        if self.requests == 1 or (reading is Reading.BAD and self.requests <= WINDOW_REQUESTS):
            self.reading = reading


class CallerHistory:
    """Finds each caller's first request of a UTC day on each route, and the caller's window.

    Beyond max_callers of a day, a process counts one caller of two, of four and so on, drawn by
    the hash. It keeps the draw for the next days, so that a day's first hours do not represent
    the whole day.
    """

    def __init__(self, max_callers: int = MAX_CALLERS) -> None:
        self._max_callers = max_callers
        self._draw_one_of = 1
        self._day = date.min
        self._callers: dict[str, set[int]] = {}  # by route
        self._caller_count = 0  # the callers of all routes
        # By route and arm: the windows that may get further requests, and all windows in the
        # order of their beginning.
        self._open_windows: dict[tuple[str, str], dict[int, _Window]] = {}
        self._windows: dict[tuple[str, str], deque[_Window]] = {}

    def count(
        self,
        route: str,
        arm: str,
        requests: Iterable[CallerRequest],
        at: datetime,
    ) -> CallerCounts:
        """Counts a batch of finished requests, and the windows that are complete now.

        Args:
            at: the time of the batch.

        As in a rollout, a first request does not count if its outcome is no evidence of errors.
        Its window then counts only if another request fails.
        """
        if at.date() != self._day:
            self._day = at.date()
            if self._caller_count < self._max_callers // 4:
                self._draw_one_of = max(1, self._draw_one_of // 2)
            self._callers = {}
            self._caller_count = 0
        now_s = at.timestamp()
        callers = self._callers.setdefault(route, set())
        open_windows = self._open_windows.setdefault((route, arm), {})
        queue = self._windows.setdefault((route, arm), deque())
        first_readings = []
        for request in requests:
            caller = request.caller
            if not caller or request.kind is None:
                continue
            reading = _ERRORS[request.kind]
            arrived_s = now_s - request.latency_ms / 1_000.0
            if caller not in callers and self._draw_new_caller(caller):
                callers.add(caller)
                self._caller_count += 1
                open_windows[caller] = new_window = _Window(caller, arrived_s)
                queue.append(new_window)
                first_readings.append(reading)
            window = open_windows.get(caller)
            if window is not None and arrived_s < window.began_s + USUAL_WINDOW_S:
                window.add(reading)
        window_readings = _take_complete(queue, open_windows, now_s)
        return CallerCounts(
            sum(reading is not Reading.UNKNOWN for reading in first_readings),
            first_readings.count(Reading.BAD),
            sum(reading is not Reading.UNKNOWN for reading in window_readings),
            window_readings.count(Reading.BAD),
        )

    def _draw_new_caller(self, caller: int) -> bool:
        """Returns whether to count a caller that is new today."""
        if caller % self._draw_one_of == 0 and self._caller_count >= self._max_callers:
            self._draw_one_of *= 2
            for callers in self._callers.values():
                callers -= {
                    counted_caller
                    for counted_caller in callers
                    if counted_caller % self._draw_one_of
                }
            self._caller_count = sum(map(len, self._callers.values()))
        return caller % self._draw_one_of == 0


def _take_complete(
    queue: deque[_Window], open_windows: dict[int, _Window], now_s: float
) -> list[Reading]:
    """Removes the complete windows, and returns their readings."""
    readings = []
    while queue and now_s >= queue[0].began_s + USUAL_WINDOW_S + COMPLETE_AFTER_S:
        window = queue.popleft()
        # Soon after midnight, the caller may have a new window.
        if open_windows.get(window.caller) is window:
            del open_windows[window.caller]
        readings.append(window.reading)
    return readings
