"""Runs `swapgate serve router`: a parent process that opens the port, records what requests
did, and starts the workers that serve. A reload reads the configuration again and starts new
workers with it; settings that the parent itself holds open (`FIXED`) take a restart.
"""

import asyncio
import os
import pickle
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from harness.app import reload, secret_files
from harness.app.installation import Installation, open_installation
from harness.app.reload import Fixed
from harness.app.router_process import build_recorder, missing_table
from harness.config.model import Settings
from harness.frame.errors import ConfigError, SwapgateError
from harness.frame.imports import leave_modules_alone
from harness.frame.runtime import telemetry
from harness.frame.runtime.supervisor import RELOAD, reload_at_hangup
from harness.frame.runtime.tcp_ports import is_free, require_free
from harness.routing.records.routes import Routing
from harness.routing.table import FIRST_ROUTE_STEP

if TYPE_CHECKING:
    from router.workers.parent import WorkerSpec

log = structlog.get_logger("swapgate.router")

# Workers of a parent that was killed give the port up at once, but not in no time.
ORPHANS_LEAVE_S: Final = 3.0
LOOK_FOR_TABLE_S: Final = 0.2
# Of a worker: glibc's own thresholds grow with the largest answer that was freed, and then it
# keeps as much for good. With lower ones, a request of 1 MB takes half as long again. Bytes.
MALLOC: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
}


def serve_router(
    given: Path | None, workers: int | None = None, *, beside_control: bool = False
) -> int:
    """Blocks until SIGTERM or SIGINT, and lets requests end. The exit code.

    given: the configuration file, if one was named. workers: instead of the file's.
    beside_control: a control plane starts with it, which makes the tables. Raises ConfigError,
    DatabaseUnusable.
    """
    from router.recording.worker_aggregator import WorkerAggregator  # noqa: PLC0415 - only this process needs it
    from router.workers.parent import WorkerParent, open_listeners  # noqa: PLC0415

    installation = open_installation(given, signs_as=None)
    installation = replace(installation, settings=_with_workers(installation.settings, workers))
    settings = installation.settings
    where = settings.router
    _ = installation.standing_switches  # one clear error, not one of each worker
    telemetry.configure()
    _wait_for_table(installation, patient=beside_control)
    _wait_for_orphans(where.host, where.port)
    require_free(where.host, where.port, what="the router", setting="router.port")
    if not (beside_control and settings.routes):
        warn_without_routes(installation)
    recorder = build_recorder(installation, name="router-")
    listeners = open_listeners(where.host, where.port)
    parent = WorkerParent(
        listeners,
        WorkerAggregator(recorder),
        lambda: _worker_spec(_reload_settings(given, installation, workers)),
        reload_on=RELOAD,
    )
    reload_at_hangup()
    leave_modules_alone()
    recorder.start()
    try:
        return asyncio.run(parent.run(_worker_spec(settings)))
    finally:
        for listener in listeners:
            listener.close()
        recorder.stop()
        installation.close()


def _wait_for_table(installation: Installation, *, patient: bool) -> None:
    """Waits, where a control plane starts with the router, until it has made the tables: the
    workers would end without them. Raises DatabaseUnusable.
    """
    reason = missing_table(installation)
    if reason is None or not patient:
        return  # by the time the workers ask, there may be one
    log.info("waits_for_tables", reason=reason)
    while missing_table(installation) is not None:
        time.sleep(LOOK_FOR_TABLE_S)


def warn_without_routes(installation: Installation) -> None:
    """Says in the log that nothing can be asked yet: a router signs nothing, so that it can
    bring in none of the file's routes itself.
    """
    try:
        with installation.store.read() as tx:
            routes = Routing(tx).table().routes
    except SwapgateError:
        # Away, or with rows that are not to be believed: it serves what it has on its disk, and
        # its workers say why.
        return
    if not routes:
        in_the_file = sorted(installation.settings.routes)
        log.warning("no_routes", in_the_file=in_the_file, next_step=FIRST_ROUTE_STEP)


def _worker_spec(settings: Settings) -> "WorkerSpec":
    from router.workers.parent import WorkerSpec  # noqa: PLC0415

    return WorkerSpec(
        command=[sys.executable, "-m", "swapgate", "router-worker"],
        environment={**MALLOC, **os.environ},
        # Not read from the file by each worker: one that is started again after the file was
        # broken must serve like the others.
        given=pickle.dumps(settings),
        workers=settings.router.workers,
        drain_s=settings.router.drain_s,
        shutdown_delay_s=settings.router.shutdown_delay_s,
    )


def _with_workers(settings: Settings, workers: int | None) -> Settings:
    if workers is None:
        return settings
    return replace(settings, router=replace(settings.router, workers=workers))


FIXED: Final[Fixed] = {
    **reload.FIXED,
    "router.host": lambda settings: settings.router.host,
    "router.port": lambda settings: settings.router.port,
    "capture": lambda settings: settings.capture,
}


def _reload_settings(given: Path | None, old: Installation, workers: int | None) -> Settings:
    def check(new: Settings) -> None:
        _ = replace(old, settings=new).standing_switches
        if secret_files.installation_secret(new) != old.secret:
            raise ConfigError(f"{secret_files.SECRET_VARIABLE} changed, which takes a restart")

    new = reload.reload_settings(given, old.settings, fixed=FIXED, check=check)
    return _with_workers(new, workers)


def _wait_for_orphans(host: str, port: int) -> None:
    until = time.monotonic() + ORPHANS_LEAVE_S
    while not is_free(host, port) and time.monotonic() < until:
        time.sleep(0.1)
