"""The event queue holds failover rows and alerts for the recorder's next batch. Failovers past
20 in a second and alerts past 1000 are dropped, and counted.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from harness.domain.operations.alerts import Alert
from harness.domain.reliability.failover import Failover
from harness.ports import Clock

# Under an outage every request fails over: the log says which kinds, not each of them.
FAILOVERS_PER_S: Final = 20
MAX_ALERTS: Final = 1000


class EventQueue:
    """Holds failovers and alerts that wait for the next batch. counters: where dropped ones are
    counted.
    """

    def __init__(self, clock: Clock, counters: Counter[str]) -> None:
        self._clock = clock
        self._counters = counters
        self._lock = threading.Lock()
        self._failovers: list[Failover] = []
        self._alerts: list[Alert] = []
        self._second, self._in_second = 0, 0

    def failed_over(self, rows: Sequence[Failover]) -> None:
        second = int(self._clock.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._in_second = second, 0
            room = max(0, FAILOVERS_PER_S - self._in_second)
            self._failovers += rows[:room]
            self._in_second += len(rows[:room])
            self._counters["failover_rows_dropped"] += len(rows[room:])

    def notify(self, *alerts: Alert) -> None:
        with self._lock:
            room = max(0, MAX_ALERTS - len(self._alerts))
            self._alerts += alerts[:room]
            self._counters["alerts_dropped"] += len(alerts[room:])

    def take(self) -> tuple[Sequence[Failover], Sequence[Alert]]:
        with self._lock:
            taken = self._failovers, self._alerts
            self._failovers, self._alerts = [], []
        return taken
