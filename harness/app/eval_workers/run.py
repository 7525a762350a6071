"""Runs eval workers: their start by the control process, the worker process, and the host
(`swapproof worker`) that takes runs from the queue. Workers sign with the workers' key.

A worker gets only the keys of its own run's providers, and no private key of the control plane.
"""

import asyncio
import json
import os
import signal
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from harness.app import secret_files
from harness.app.configuration.model import RunQueueKind
from harness.app.installation import (
    CONFIG_VARIABLE,
    Installation,
    job_queue,
    open_installation,
)
from harness.evals.ports import EvalWorkers
from harness.evals.settings import SuiteSettings
from harness.frame.configuration import source_locations
from harness.frame.errors import ConfigError, InputError, NotFound
from harness.frame.imports import (
    freeze_modules,
    pause_garbage_collection,
)
from harness.frame.runtime import telemetry
from harness.frame.signing.keyring import KeyPurpose
from harness.proposals import eval_queue
from harness.providers.records import Providers, Targets
from harness.routing.records.runs import EvalRuns

if TYPE_CHECKING:
    from evals.runner.rate_gate import RateGates


def open_with_workers(
    config_path: Path | None = None, *, create_secret: bool = False
) -> Installation:
    """Opens the installation for the control process. The arguments are those of
    `open_installation`.
    """
    installation = open_installation(config_path, create_secret=create_secret)
    settings = installation.settings
    if settings.control.queue is RunQueueKind.PROCRASTINATE:
        queue = job_queue(settings).JobQueue(settings.database_url)
        return replace(installation, run_queue=queue)
    return replace(installation, workers=build_workers(installation))


def build_workers(installation: Installation) -> EvalWorkers:
    """Builds the starter of eval workers. A worker gets the keys and headers of its run's
    provider and judge, in variables that exist only for it.
    """
    from harness.app.eval_workers.processes import (  # noqa: PLC0415
        SubprocessWorkers,
        worker_command,
    )
    from harness.app.eval_workers.worker import (  # noqa: PLC0415
        INCUMBENT,
        JUDGE,
        TARGET,
        find_named,
    )
    from harness.providers.registry import provider_secrets  # noqa: PLC0415 - only where workers start

    source = installation.settings.source
    command = worker_command("eval-worker")
    template = worker_command("eval-worker-template")
    if source is not None:
        for argv in (command, template):
            argv += ["--config", str(source.resolve())]
    own_variables = [name for name in os.environ if name.startswith(source_locations.PREFIX)]

    def variables_of(run: str) -> dict[str, str]:
        with installation.store.read() as tx:
            eval_run = EvalRuns(tx).get(run)
            targets = Targets(tx).all()
            target = targets[eval_run.target]
            providers = Providers(tx).all()
        provider = providers.get(target.provider)
        if provider is None:
            raise NotFound(f"run {run}: provider {target.provider!r} no longer exists")
        judge_target = installation.context.judges.get(eval_run.suite)
        judge = providers.get(judge_target.provider) if judge_target is not None else None
        answers_of = installation.context.suites.answers_of(eval_run.suite)
        answered = find_named(targets.values(), answers_of)
        incumbent = providers.get(answered.provider) if answered is not None else None
        names = (
            *own_variables,
            secret_files.SECRET_VARIABLE,
            CONFIG_VARIABLE,
            *secret_files.WORKER_VARIABLES,
        )
        variables = {name: os.environ[name] for name in names if name in os.environ}
        for role_variables, role_target in (
            (TARGET, provider),
            (JUDGE, judge),
            (INCUMBENT, incumbent),
        ):
            if role_target is None:
                continue
            keys = provider_secrets.keys_of_provider(installation.context, role_target)
            if keys:
                variables[role_variables.key] = keys[0].secret
            headers = provider_secrets.decrypt_headers(
                role_target, installation.cipher
            ).extra_headers
            if headers:
                variables[role_variables.headers] = json.dumps(dict(headers))
        return variables

    return SubprocessWorkers(
        command,
        template=template,
        variables_of=variables_of,
        cwd=Path.cwd(),
    )


def list_answers_of(suites: Mapping[str, SuiteSettings]) -> Mapping[str, str]:
    """Maps each suite of traffic to the name of the target whose logged answers it has."""
    return {
        name: str(suite.scorer_options["answers_of"])
        for name, suite in suites.items()
        if suite.scorer_options.get("answers_of")
    }


def run_worker_template(config_path: Path | None) -> None:
    """Runs the process that forks eval workers, until the control process closes its stdin."""
    from harness.app.eval_workers.processes import serve_forks  # noqa: PLC0415 - only where workers start

    with pause_garbage_collection():
        # Imported once for all forked workers. These are import statements, because a wheel
        # renames modules in statements, but not in strings (ADR 30).
        from evals.runner import inspect_runner, judge_calibration, rate_gate  # noqa: F401, PLC0415 - only where workers start
        from harness.app.eval_workers import worker  # noqa: F401, PLC0415
        from harness.app.store import store  # noqa: F401, PLC0415
        from router.access import rate_limits  # noqa: F401, PLC0415
        from router.upstream import transports  # noqa: F401, PLC0415
    freeze_modules()
    if (requested := serve_forks()) is not None:
        run_worker(
            config_path,
            requested.run,
            owner=requested.owner,
            parent=os.getppid(),
        )


def run_worker(
    config_path: Path | None,
    run: str,
    *,
    owner: str,
    parent: int,
) -> None:
    """Runs one eval run in this process.

    Args:
        owner: the worker's name on the lease.
        parent: the pid of the process with which the worker ends.
    """
    with pause_garbage_collection():
        from evals.runner.inspect_runner import InspectRunner  # noqa: PLC0415 - Inspect takes seconds to import
    freeze_modules()
    from evals.runner.judge_calibration import CalibrationCache  # noqa: PLC0415
    from harness.app.eval_workers.worker import (  # noqa: PLC0415
        INCUMBENT,
        JUDGE,
        TARGET,
        EvalWorker,
    )
    from router.upstream.transports import ProviderClient  # noqa: PLC0415

    installation = open_installation(config_path, signs_as=KeyPurpose.WORKER)
    settings = installation.settings
    home = secret_files.writable_home(settings)
    secrets = dict(os.environ)
    # A run's child processes, such as a model's code, must not inherit these variables.
    for role in (TARGET, JUDGE, INCUMBENT):
        os.environ.pop(role.key, None)
        os.environ.pop(role.headers, None)
    try:
        EvalWorker(
            store=installation.store,
            clock=installation.clock,
            runner=InspectRunner(
                settings.suites,
                checks=CalibrationCache(home / "judges", installation.clock),
                paces=build_paces(installation, owner),
                allowed=settings.router.allow_addresses,
                calls=ProviderClient,
            ),
            owner=owner,
            parent=parent,
            secrets=secrets,
            connections=settings.control.eval_connections,
            judges={
                name: suite.judge.target.provider
                for name, suite in settings.suites.items()
                if suite.judge is not None
            },
            answers_of=list_answers_of(settings.suites),
        ).work(run)
    finally:
        installation.close()


def build_paces(installation: Installation, owner: str) -> "RateGates":
    """Builds the rate gates that all processes of this machine share, which call models for
    evals.

    Args:
        owner: the process's name.
    """
    from evals.runner.rate_gate import RateGates  # noqa: PLC0415 - only processes that call models
    from harness.evals.account_meter import AccountMeter, StoredLoads  # noqa: PLC0415
    from router.access.rate_limits import SharedRates  # noqa: PLC0415

    shared_folder = secret_files.writable_home(installation.settings) / "evals"
    return RateGates(
        installation.settings.eval_limits,
        SharedRates(shared_folder / "rates"),
        shared_folder,
        AccountMeter(installation.clock, owner),
        StoredLoads(installation.store),
    )


log = structlog.get_logger()
CHECK_EVERY_S = 0.2


def run_worker_host(
    config_path: Path | None,
    *,
    slots: int,
    providers: Collection[str],
) -> None:
    """Runs until SIGTERM or SIGINT. Raises ConfigError without a queue or its package."""
    telemetry.configure()
    installation = open_installation(config_path, signs_as=KeyPurpose.WORKER)
    control = installation.settings.control
    if control.queue is not RunQueueKind.PROCRASTINATE:
        raise ConfigError(
            "the control process runs the evals itself (control.queue: embedded): set "
            "control.queue: procrastinate here and there, and run `swapproof db upgrade`"
        )
    providers_in_file = installation.settings.providers
    unknown = sorted(set(providers) - set(providers_in_file)) if providers_in_file else []
    if unknown:
        raise InputError(f"--provider: the configuration has no provider {unknown[0]!r}")
    job_queue(installation.settings)
    workers = build_workers(installation)
    installation = replace(installation, workers=workers)
    freeze_modules()
    try:
        asyncio.run(_WorkerHost(installation, workers).serve(slots, providers))
    finally:
        installation.close()


class _WorkerHost:
    """Runs the queue's runs as processes until a signal comes."""

    def __init__(self, installation: Installation, workers: EvalWorkers) -> None:
        self._installation = installation
        self._workers = workers
        self._ended = asyncio.Event()
        self._lock = asyncio.Lock()  # one task at a time collects ended processes

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
        """Ends the processes. Each process stores its samples and releases its lease, and the
        control process queues its run again.
        """
        self._ended.set()
        for run in self._workers.alive():
            self._workers.stop(run)

    async def _work(self, run: str) -> None:
        """Starts the run's process and waits for its end. After that, the queue counts the job
        as done. If samples are missing, the control process queues the run again.
        """
        if self._ended.is_set():
            return
        if not await asyncio.to_thread(self._start, run):
            return
        if self._ended.is_set():
            self._workers.stop(run)
        try:
            # Polls, because the system sends no event when the process ends.
            while run in self._workers.alive():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(CHECK_EVERY_S)
        except asyncio.CancelledError:
            self._workers.stop(run)
            raise
        async with self._lock:
            collect = eval_queue.collect_ended
            for line in await asyncio.to_thread(collect, self._installation.context):
                log.warning("eval_worker_ended", what=line)

    def _start(self, run: str) -> bool:
        fault = eval_queue.start_worker(self._installation.context, run)
        if fault:
            log.warning("no_worker", what=fault)
        else:
            log.info("eval_worker_started", run=run)
        return not fault
