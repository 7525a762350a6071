"""Runs a worker host (`swapgate worker`): takes eval runs from the queue and gives each to a
process of its own, with the keys that this run needs. It signs with the workers' key.
"""

import asyncio
import signal
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import structlog

from harness.app.eval_workers import build_workers
from harness.app.installation import Installation, job_queue, open_installation
from harness.control.evals import worker_supervision
from harness.domain.errors import ConfigError, InputError
from harness.domain.operations.row_signatures import KeyPurpose
from harness.domain.settings import RunQueueKind
from harness.imports import leave_modules_alone
from harness.ports import EvalWorkers
from harness.runtime import telemetry

log = structlog.get_logger()
LOOK_EVERY_S = 0.2


def run_worker_host(given: Path | None, *, slots: int, providers: Collection[str]) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigError without a queue or its package."""
    telemetry.configure()
    installation = open_installation(given, signs_as=KeyPurpose.WORKER)
    control = installation.settings.control
    if control.queue is not RunQueueKind.PROCRASTINATE:
        raise ConfigError(
            "the control process runs the evals itself (control.queue: embedded): set "
            "control.queue: procrastinate here and there, and run `swapgate db upgrade`"
        )
    known = installation.settings.providers
    unknown = sorted(set(providers) - set(known)) if known else []
    if unknown:
        raise InputError(f"--provider: the configuration has no provider {unknown[0]!r}")
    job_queue(installation.settings)
    workers = build_workers(installation)
    installation = replace(installation, workers=workers)
    leave_modules_alone()
    try:
        asyncio.run(_WorkerHost(installation, workers).serve(slots, providers))
    finally:
        installation.close()


class _WorkerHost:
    def __init__(self, installation: Installation, workers: EvalWorkers) -> None:
        self._installation = installation
        self._workers = workers
        self._ended = asyncio.Event()
        self._turn = asyncio.Lock()  # one at a time collects the processes that ended

    async def serve(self, slots: int, providers: Collection[str]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        settings = self._installation.settings
        log.info("worker_host", slots=slots, providers=sorted(providers) or "all")
        await job_queue(settings).consume(
            settings.database_url,
            providers=providers,
            slots=slots,
            work=self._work,
            ended=self._ended,
        )

    def _end(self) -> None:
        """Each process stores what it has and gives its lease back; its run is queued again."""
        self._ended.set()
        for run in self._workers.alive():
            self._workers.stop(run)

    async def _work(self, run: str) -> None:
        if self._ended.is_set():
            return
        if not await asyncio.to_thread(self._start, run):
            return
        if self._ended.is_set():
            self._workers.stop(run)
        try:
            # A process tells nobody of its end.
            while run in self._workers.alive():  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_EVERY_S)
        except asyncio.CancelledError:
            self._workers.stop(run)
            raise
        async with self._turn:
            collect = worker_supervision.collect_ended
            for line in await asyncio.to_thread(collect, self._installation.context):
                log.warning("eval_worker_ended", what=line)

    def _start(self, run: str) -> bool:
        failed = worker_supervision.start_worker(self._installation.context, run)
        if failed:
            log.warning("no_worker", what=failed)
        else:
            log.info("eval_worker_started", run=run)
        return not failed
