"""Runs `swapproof serve router`: a parent process opens the port, records observations, and
starts the workers that serve. A reload reads the configuration again and starts new workers
with it. Settings that the parent itself uses (`FIXED`) need a restart.

The parent serves no request: `router_process` builds a worker. Only the parent writes
observations to the database.
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
from harness.app.configuration.model import Settings
from harness.app.installation import Installation, open_installation
from harness.app.reload import FixedSettings
from harness.app.router_process import build_recorder, find_missing_table
from harness.frame.errors import ConfigError, SwapproofError
from harness.frame.imports import freeze_modules
from harness.frame.runtime import telemetry
from harness.frame.runtime.supervisor import RELOAD, reload_at_hangup
from harness.frame.runtime.tcp_ports import is_free, require_free
from harness.routing.records.routes import Routing
from harness.routing.table import FIRST_ROUTE_STEP

if TYPE_CHECKING:
    from router.workers.parent import WorkerSpec

log = structlog.get_logger("swapproof.router")

# The workers of a killed parent need a moment to close the port.
ORPHAN_WAIT_S: Final = 3.0
TABLE_POLL_S: Final = 0.2
# glibc's thresholds for a worker, in bytes. By default they grow with the largest freed answer,
# and glibc keeps as much memory. With lower thresholds, a request of 1 MB takes 50 % longer.
MALLOC_VARIABLES: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
}


def serve_router(
    config_path: Path | None,
    workers: int | None = None,
    *,
    beside_control: bool = False,
) -> int:
    """Serves until SIGTERM or SIGINT, and lets requests end. Returns the exit code.

    Args:
        config_path: the configuration file, if the user named it.
        workers: overrides the file's number.
        beside_control: whether a control plane starts at the same time and creates the tables.

    Raises ConfigError, DatabaseUnusable.
    """
    from router.recording.worker_aggregator import WorkerAggregator  # noqa: PLC0415 - only this process needs it
    from router.workers.parent import WorkerParent, open_listeners  # noqa: PLC0415

    installation = open_installation(config_path, signs_as=None)
    installation = replace(
        installation, settings=_override_workers(installation.settings, workers)
    )
    settings = installation.settings
    router_settings = settings.router
    _ = installation.standing_switches  # raises one error here instead of one in each worker
    telemetry.configure()
    _wait_for_table(installation, patient=beside_control)
    _wait_for_orphans(router_settings.host, router_settings.port)
    require_free(
        router_settings.host,
        router_settings.port,
        service="the router",
        setting="router.port",
    )
    if not (beside_control and settings.routes):
        warn_without_routes(installation)
    recorder = build_recorder(installation, name="router-")
    listeners = open_listeners(router_settings.host, router_settings.port)
    parent = WorkerParent(
        listeners,
        WorkerAggregator(recorder),
        lambda: _build_worker_spec(_reload_settings(config_path, installation, workers)),
        reload_on=RELOAD,
    )
    reload_at_hangup()
    freeze_modules()
    recorder.start()
    try:
        return asyncio.run(parent.run(_build_worker_spec(settings)))
    finally:
        for listener in listeners:
            listener.close()
        recorder.stop()
        installation.close()


def _wait_for_table(installation: Installation, *, patient: bool) -> None:
    """Waits until a control plane that starts with the router has created the tables, because
    workers end without tables. Raises DatabaseUnusable.
    """
    reason = find_missing_table(installation)
    if reason is None or not patient:
        return  # the workers may start from the snapshot on this machine's disk
    log.info("waits_for_tables", reason=reason)
    while find_missing_table(installation) is not None:
        time.sleep(TABLE_POLL_S)


def warn_without_routes(installation: Installation) -> None:
    """Logs a warning if there is no route yet. A router cannot create the file's routes itself,
    because it cannot sign.
    """
    try:
        with installation.store.read() as tx:
            routes = Routing(tx).table().routes
    except SwapproofError:
        # If the database is unavailable or its rows do not verify, the router serves the
        # snapshot on its disk, and its workers log the reason.
        return
    if not routes:
        file_routes = sorted(installation.settings.routes)
        log.warning("no_routes", in_the_file=file_routes, next_step=FIRST_ROUTE_STEP)


def _build_worker_spec(settings: Settings) -> "WorkerSpec":
    """Builds the command, environment and settings of this parent's workers."""
    from router.workers.parent import WorkerSpec  # noqa: PLC0415

    return WorkerSpec(
        command=[sys.executable, "-m", "swapproof", "router-worker"],
        environment={**MALLOC_VARIABLES, **os.environ},
        # The parent passes the settings on, so that a restarted worker serves like the others
        # even if the file has changed.
        given=pickle.dumps(settings),
        workers=settings.router.workers,
        drain_s=settings.router.drain_s,
        shutdown_delay_s=settings.router.shutdown_delay_s,
    )


def _override_workers(settings: Settings, workers: int | None) -> Settings:
    if workers is None:
        return settings
    return replace(settings, router=replace(settings.router, workers=workers))


FIXED: Final[FixedSettings] = {
    **reload.FIXED,
    "router.host": lambda settings: settings.router.host,
    "router.port": lambda settings: settings.router.port,
    "capture": lambda settings: settings.capture,
}


def _reload_settings(
    config_path: Path | None,
    old: Installation,
    workers: int | None,
) -> Settings:
    """Loads the changed settings. Raises ConfigError if a setting of `FIXED`, the secret or a
    kill switch prevents it; the workers then keep the old settings.
    """

    def check(new: Settings) -> None:
        _ = replace(old, settings=new).standing_switches
        if secret_files.installation_secret(new) != old.secret:
            raise ConfigError(f"{secret_files.SECRET_VARIABLE} changed, which needs a restart")

    new = reload.reload_settings(
        config_path,
        old.settings,
        fixed=FIXED,
        check=check,
    )
    return _override_workers(new, workers)


def _wait_for_orphans(host: str, port: int) -> None:
    """Waits until the workers of a killed parent have closed the port, at most
    `ORPHAN_WAIT_S`.
    """
    until = time.monotonic() + ORPHAN_WAIT_S
    while not is_free(host, port) and time.monotonic() < until:
        time.sleep(0.1)
