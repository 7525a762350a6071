"""Writes a worker's events to the process's log in a thread, and drops what finds no room."""

import threading
from collections.abc import Mapping
from queue import Empty, Full, Queue
from typing import Final

import structlog

log = structlog.get_logger("swapgate.router")

QUEUE: Final = 10_000
STOP_S: Final = 5.0


class EventLog:
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
