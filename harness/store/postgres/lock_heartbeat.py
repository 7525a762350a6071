"""`LockHeartbeat` keeps a connection alive that holds locks. Where it is missing, since the
process is stopped or cut off, the server ends the connection (`engine.make`'s `patience_s`) and
so frees the locks.
"""

import threading
from collections.abc import Callable


class LockHeartbeat:
    """Calls `beat` again and again on a thread of its own: no long job delays it."""

    def __init__(self, beat: Callable[[], None], every_s: float) -> None:
        self._beat, self._every_s = beat, every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._beat()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
