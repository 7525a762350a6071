"""The parent process of a router serves no request: it starts the pool of workers, makes a new
one when the configuration is reloaded, and ends all of them on SIGTERM or SIGINT. A
reload that fails leaves the old workers serving.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from harness.domain.errors import SwapgateError
from router.recording.worker_aggregator import WorkerAggregator
from router.workers.listeners import HAND_OVER
from router.workers.worker_pool import WorkerPool, WorkerSpec

log = structlog.get_logger("swapgate.router")

# Pools that were replaced have minutes to end. With no bound, a reload every few seconds would
# fill the machine with workers.
MOST_RETIRING: Final = 2


class WorkerParent:
    """Runs the pools of workers until a signal ends them. again: reads the configuration anew,
    for new workers; raises SwapgateError when it is not valid. books: gathers what all workers
    report. reload_on: the signal that asks for new workers.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        books: WorkerAggregator,
        again: Callable[[], WorkerSpec],
        *,
        reload_on: signal.Signals = signal.SIGHUP,
    ) -> None:
        self._listeners = listeners
        self._books = books
        self._again = again
        self._reload_on = reload_on
        self._stopping = asyncio.Event()
        self._signal = signal.SIGTERM
        self._reload = asyncio.Event()
        self._retiring: dict[asyncio.Task[None], WorkerPool] = {}

    async def run(self, orders: WorkerSpec) -> int:
        """Runs the workers until SIGTERM or SIGINT. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(self._reload_on, self._reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {self._reload_on})
        crew = WorkerPool(orders, self._listeners, self._books)
        code = await self._started(crew)
        while code == 0 and await self._reload_wanted():
            crew = await self._reloaded(crew)
        # The workers have their own of these. While one was left here, connections would wait
        # in its queue for nobody; now they are refused once the last worker has closed its own.
        for listener in self._listeners:
            listener.close()
        leaving = [crew, *self._retiring.values()]
        await asyncio.gather(*(pool.retire(self._signal) for pool in leaving))
        await asyncio.gather(*self._retiring)
        return code

    def _stop(self, number: signal.Signals) -> None:
        self._signal = number
        self._stopping.set()

    async def _reload_wanted(self) -> bool:
        """Wait for the next signal, and for room for one more pool; False for one to stop.

        Signals that come while there is no room are one reload, of what the file says then.
        """
        stop, reload = (asyncio.create_task(e.wait()) for e in (self._stopping, self._reload))
        await asyncio.wait((stop, reload), return_when=asyncio.FIRST_COMPLETED)
        if reload.done() and len(self._retiring) >= MOST_RETIRING:
            log.warning("reload_waits", reason=f"{MOST_RETIRING} crews before it still end")
        while len(self._retiring) >= MOST_RETIRING and not stop.done():
            await asyncio.wait((stop, *self._retiring), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        reload.cancel()
        self._reload.clear()
        return not self._stopping.is_set()

    async def _started(self, crew: WorkerPool) -> int:
        """0 once it serves, or when a signal to stop came first; else a worker's exit code."""
        start = asyncio.create_task(crew.start())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
            return start.result() if start.done() else 0
        finally:
            start.cancel()
            stop.cancel()

    async def _reloaded(self, old: WorkerPool) -> WorkerPool:
        try:
            orders = self._again()
        except SwapgateError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 - the message is the whole story
            self._books.counters["reloads_refused"] += 1
            return old
        new = WorkerPool(orders, self._listeners, self._books)
        code = await self._started(new)
        if code or self._stopping.is_set():
            if code:
                reason = f"a new worker ended with {code}; the old ones go on serving"
                log.error("reload_refused", reason=reason)
                self._books.counters["reloads_refused"] += 1
            self._leave(new, signal.SIGINT)
            return old
        log.info("reloaded", workers=orders.workers)
        self._books.counters["reloads"] += 1
        self._leave(old, HAND_OVER)
        return new

    def _leave(self, crew: WorkerPool, number: signal.Signals) -> None:
        """Not waited for: a signal to stop that comes meanwhile is for all pools at once."""
        leaving = asyncio.create_task(crew.retire(number))
        self._retiring[leaving] = crew
        leaving.add_done_callback(self._retiring.pop)
