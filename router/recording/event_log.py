"""The event log writes a worker's events (alerts, failovers) to the process's log, in a thread
of its own, and drops and counts what finds no room.

A log that nobody reads, or that a full disk refuses, must not hold up a request, nor break it.
"""

import threading
from collections.abc import Mapping
from queue import Empty, Full, Queue
from typing import Final

import structlog

log = structlog.get_logger("swapgate.router")

QUEUE: Final = 10_000
STOP_S: Final = 5.0


class EventLog:
    """Queues events, up to a bound, and logs them in its own thread. dropped: had no room."""

    def __init__(self) -> None:
        self.dropped = 0
        self._events: Queue[Mapping[str, object] | None] = Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)

    def put(self, event: str, **fields: object) -> None:
        try:
            self._events.put_nowait({"event": event, **fields})
        except Full:
            self.dropped += 1

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, within STOP_S."""
        if self._thread.is_alive():
            try:
                self._events.put(None, timeout=STOP_S)
            except Full:
                return
            self._thread.join(STOP_S)

    def drain(self) -> None:
        """Write all that is waiting, here and now."""
        while True:
            try:
                fields = self._events.get_nowait()
            except Empty:
                return
            if fields is not None:
                log.warning(**fields)

    def _run(self) -> None:
        while (fields := self._events.get()) is not None:
            try:
                log.warning(**fields)
            except Exception:  # noqa: BLE001 - whoever reads the log left; requests go on
                self.dropped += 1
