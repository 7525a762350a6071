"""The parent process of a router's workers starts, restarts, reloads and ends them.

It opens the listeners and passes them on, but accepts no connection and serves no request.
Workers report to `router.recording.worker_aggregator` in this process. A worker itself
begins in `router.server.process`.
"""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from harness.frame.errors import ConfigError, SwapproofError

if TYPE_CHECKING:
    from router.recording.worker_aggregator import (
        WorkerAggregator,
        WorkerReports,
    )

# TERM ends a worker after a delay for load balancers, INT at once. HAND_OVER ends a worker
# after other workers have begun to accept, so that no client notices.
HAND_OVER: Final = signal.SIGUSR1
STOP: Final = (signal.SIGTERM, signal.SIGINT, HAND_OVER)
# Common client pools keep a connection for less time, so the client closes it first.
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 2048


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Opens a listener for each address. Raises ConfigError.

    The parent keeps them, so that no waiting connection is lost if a worker ends.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(
            host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        for family, address in dict.fromkeys((info[0], info[4]) for info in addresses):
            listener = socket.create_server(address, family=family, backlog=BACKLOG)
            sockets.append(listener)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ConfigError(
            f"the router cannot listen on {host}:{port}: {error.strerror or error}; "
            "set router.host and router.port to a free address"
        ) from None
    return sockets


START_S: Final = 120.0
# A worker that ran this long did not fail at its start.
STEADY_S: Final = 10.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# Workers report at least every three seconds. A worker that does not report for this long
# serves no requests.
SILENT_S: Final = 60.0
# The time for a worker's last report, after the time for its requests.
STOP_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True)
class WorkerSpec:
    """How to start the workers of one configuration, and how long they may take to end."""

    command: Sequence[str]  # the command line, before `--slot`, `--channel` and `--listen`
    environment: Mapping[str, str]
    given: bytes  # its standard input
    workers: int
    drain_s: float  # how long a worker's requests may continue after its order to end
    shutdown_delay_s: float = 0.0  # how long it still accepts requests before that


def restart_pause_s(early_deaths: int) -> float:
    """Returns the pause before a restart: none after the first early death, then 0.5 s to 30
    s.
    """
    if early_deaths <= 1:
        return 0.0
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(early_deaths - 2, 32))


class WorkerPool:
    """Runs the workers of one configuration. listeners: bound, and shared by all workers.

    Each slot has one worker at a time. A worker that dies is replaced, unless the pool
    retires or the worker never served while the pool started: then the configuration is
    probably wrong, and `start` fails.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        listeners: Sequence[socket.socket],
        aggregator: "WorkerAggregator",
    ) -> None:
        self._spec = spec
        self._listeners = listeners
        self._aggregator = aggregator
        self._retiring = asyncio.Event()
        self._signal = signal.SIGTERM
        self._end_limit_s = 0.0  # how long a worker may take to end
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._has_started = False
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._started = [asyncio.Event() for _ in range(spec.workers)]
        self._keepers = [
            asyncio.create_task(self._keep_slot_filled(n)) for n in range(spec.workers)
        ]

    async def start(self) -> int:
        """Returns 0 once all workers serve. Otherwise returns a worker's exit code, or 1 after
        START_S.
        """
        all_started = asyncio.create_task(self._wait_until_all_serve())
        try:
            await asyncio.wait(
                (all_started, self._failed),
                timeout=START_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if all_started.done():
                self._has_started = True
                return 0
            return self._failed.result() if self._failed.done() else 1
        finally:
            all_started.cancel()

    async def _wait_until_all_serve(self) -> None:
        for process in self._started:
            await process.wait()

    async def retire(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends all workers.

        Args:
            number: of `STOP`. A second call may turn a hand-over into a stop.
        """
        grace_s = {
            signal.SIGTERM: self._spec.shutdown_delay_s,
            HAND_OVER: KEEP_ALIVE_S,
        }
        self._end_limit_s = grace_s.get(number, 0.0) + self._spec.drain_s + STOP_TIMEOUT_S
        self._signal = number
        self._retiring.set()
        for slot, process in self._processes.items():
            self._request_stop(slot, process)
        await asyncio.gather(*self._keepers)

    async def _keep_slot_filled(self, slot: int) -> None:
        """Keeps one slot filled until the pool retires."""
        early_deaths = 0
        loop = asyncio.get_running_loop()
        while not self._retiring.is_set():
            since = loop.time()
            code, served = await self._run_worker(slot)
            if self._retiring.is_set():
                return
            if not (self._has_started or served):
                if not self._failed.done():
                    self._failed.set_result(code if code > 0 else 1)
                return
            early_deaths = early_deaths + 1 if loop.time() - since < STEADY_S else 0
            log.error(
                "worker_died",
                worker=slot,
                code=code,
                again_in_s=restart_pause_s(early_deaths),
            )
            self._aggregator.counters["worker_restarts"] += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(restart_pause_s(early_deaths)):
                    await self._retiring.wait()

    async def _run_worker(self, slot: int) -> tuple[int, bool]:
        """Runs one worker to its end. Returns its exit code, and whether it ever served."""
        reports = self._aggregator.open(slot)
        try:
            process = await self._launch(slot, reports)
        except OSError as error:
            log.error("worker_not_started", worker=slot, reason=str(error))  # noqa: TRY400 - the system's message
            self._aggregator.closed(reports)
            return 1, False
        if self._retiring.is_set():
            self._request_stop(slot, process)
        await self._watch(slot, process, reports)
        return process.returncode or 0, reports.ready.is_set()

    async def _watch(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        reports: "WorkerReports",
    ) -> None:
        """Waits for a worker's end. Kills it if it stops reporting, or does not end in
        time.
        """
        serves = asyncio.create_task(self._note_ready(slot, process, reports))
        retiring = asyncio.create_task(self._retiring.wait())
        ended = asyncio.create_task(process.wait())
        waits = (ended, retiring)
        silences = 0
        try:
            while not (ended.done() or retiring.done()):
                await asyncio.wait(
                    waits,
                    timeout=SILENT_S / 4,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                # Check twice: after a pause of the machine, workers need a moment to report.
                silences = silences + 1 if reports.silent_s > SILENT_S else 0
                if silences == 2:
                    self._kill(slot, process, "it has stopped reporting")
            if not ended.done():
                ended_tasks, _ = await asyncio.wait((ended,), timeout=self._end_limit_s)
                if not ended_tasks:
                    self._kill(slot, process, "it does not end")
                await ended
            await reports.gone.wait()
        finally:
            serves.cancel()
            retiring.cancel()
            del self._processes[slot]

    def _request_stop(self, slot: int, process: asyncio.subprocess.Process) -> None:
        """Signals a worker to end: by SIGTERM while it loads, because it would log a SIGINT."""
        serves = self._started[slot].is_set()
        _send(process, self._signal if serves else signal.SIGTERM)

    def _kill(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        why: str,
    ) -> None:
        log.error(
            "worker_killed",
            worker=slot,
            pid=process.pid,
            why=why,
        )
        _send(process, signal.SIGKILL)

    async def _note_ready(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        reports: "WorkerReports",
    ) -> None:
        await reports.ready.wait()
        log.info("worker_serves", worker=slot, pid=process.pid)
        self._started[slot].set()

    async def _launch(self, slot: int, reports: "WorkerReports") -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._spawn(slot, theirs.fileno())
        except OSError:
            ours.close()
            raise
        self._processes[slot] = process
        await asyncio.get_running_loop().create_unix_connection(lambda: reports, sock=ours)
        return process

    async def _spawn(self, slot: int, channel: int) -> asyncio.subprocess.Process:
        fds = [listener.fileno() for listener in self._listeners]
        with tempfile.TemporaryFile() as stdin_file:
            stdin_file.write(self._spec.given)
            stdin_file.seek(0)
            return await asyncio.create_subprocess_exec(
                *self._spec.command,
                "--slot",
                str(slot),
                "--channel",
                str(channel),
                *(word for fd in fds for word in ("--listen", str(fd))),
                stdin=stdin_file,
                env=dict(self._spec.environment),
                pass_fds=(channel, *fds),
                # Ctrl-C reaches only the parent, which then ends the workers in order.
                start_new_session=True,
            )


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


log = structlog.get_logger("swapproof.router")

# Limits workers: replaced workers may take minutes to end, and reloads may be frequent.
MOST_RETIRING: Final = 2


class WorkerParent:
    """Runs workers until a signal.

    again: reads the configuration file again; raises SwapproofError.
    reload_on: the signal that asks for new workers.

    A reload starts new workers beside the old ones, which hand over once the new ones
    serve. If a new worker fails, the old ones stay.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        aggregator: "WorkerAggregator",
        again: Callable[[], WorkerSpec],
        *,
        reload_on: signal.Signals = signal.SIGHUP,
    ) -> None:
        self._listeners = listeners
        self._aggregator = aggregator
        self._read_spec = again
        self._reload_on = reload_on
        self._stopping = asyncio.Event()
        self._signal = signal.SIGTERM
        self._reload = asyncio.Event()
        self._retiring: dict[asyncio.Task[None], WorkerPool] = {}

    async def run(self, spec: WorkerSpec) -> int:
        """Returns 0 after an ordered end, else the exit code of the start that failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(self._reload_on, self._reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {self._reload_on})
        pool = WorkerPool(spec, self._listeners, self._aggregator)
        code = await self._start_pool(pool)
        while code == 0 and await self._wait_for_reload():
            pool = await self._replace_pool(pool)
        # Close the parent's copies, so that the system refuses connections once the last worker
        # has closed its copy. Otherwise connections would wait in its queue without an answer.
        for listener in self._listeners:
            listener.close()
        pools = [pool, *self._retiring.values()]
        await asyncio.gather(*(pool.retire(self._signal) for pool in pools))
        await asyncio.gather(*self._retiring)
        return code

    def _stop(self, number: signal.Signals) -> None:
        self._signal = number
        self._stopping.set()

    async def _wait_for_reload(self) -> bool:
        """Waits until new workers may start. Signals in the meantime cause only one reload."""
        stop = asyncio.create_task(self._stopping.wait())
        reload = asyncio.create_task(self._reload.wait())
        await asyncio.wait((stop, reload), return_when=asyncio.FIRST_COMPLETED)
        if reload.done() and len(self._retiring) >= MOST_RETIRING:
            log.warning(
                "reload_waits",
                reason=f"{MOST_RETIRING} earlier sets of workers are still ending",
            )
        while len(self._retiring) >= MOST_RETIRING and not stop.done():
            await asyncio.wait((stop, *self._retiring), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        reload.cancel()
        self._reload.clear()
        return not self._stopping.is_set()

    async def _start_pool(self, pool: WorkerPool) -> int:
        start = asyncio.create_task(pool.start())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
            return start.result() if start.done() else 0
        finally:
            start.cancel()
            stop.cancel()

    async def _replace_pool(self, old: WorkerPool) -> WorkerPool:
        """Returns the pool that serves after a reload: a new one, or the old one if the
        reload failed.
        """
        try:
            spec = self._read_spec()
        except SwapproofError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 - the message names the cause
            self._aggregator.counters["reloads_refused"] += 1
            return old
        new = WorkerPool(spec, self._listeners, self._aggregator)
        code = await self._start_pool(new)
        if code or self._stopping.is_set():
            if code:
                reason = f"a new worker ended with {code}; the old ones keep serving"
                log.error("reload_refused", reason=reason)
                self._aggregator.counters["reloads_refused"] += 1
            self._begin_retirement(new, signal.SIGINT)
            return old
        log.info("reloaded", workers=spec.workers)
        self._aggregator.counters["reloads"] += 1
        self._begin_retirement(old, HAND_OVER)
        return new

    def _begin_retirement(self, pool: WorkerPool, number: signal.Signals) -> None:
        """Ends old workers in a task, so that a signal to stop reaches all workers at once."""
        retirement = asyncio.create_task(pool.retire(number))
        self._retiring[retirement] = pool
        retirement.add_done_callback(self._retiring.pop)
