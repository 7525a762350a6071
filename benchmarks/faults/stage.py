"""Swapgate with its two providers, as processes; what it recorded, from its database."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Final

from benchmarks.faults import installed
from benchmarks.faults.catalogue import routes, rows
from benchmarks.faults.installed import LIMITS, Limits
from benchmarks.faults.load import Door
from benchmarks.faults.upstreams import Upstreams
from benchmarks.faults.vitals import Vitals, metrics
from benchmarks.router.peers.peer import Site
from benchmarks.router.processes import free_port, start, wait_for
from harness.app.installation import open_installation

EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
START_S: Final = 120.0


@dataclass
class Swapgate:
    """site: its folder and port. config: its file. router: its process."""

    site: Site
    config: Path
    upstreams: Upstreams
    router: Popen[bytes]

    @property
    def door(self) -> Door:
        headers = installed.headers(self.site)
        return Door(
            self.site.port,
            lambda _: headers,
            lambda: asyncio.to_thread(self.upstreams.left),
        )

    def metrics(self) -> dict[str, float]:
        address = f"127.0.0.1:{self.site.port}"
        return metrics(address, installed.headers(self.site)["Authorization"])

    def vitals(self) -> Vitals:
        return Vitals.measured(self.router.pid, self.metrics())

    def recorded(self) -> int:
        """Requests in the database."""
        installation = open_installation(self.config)
        try:
            with installation.store.read() as tx:
                return sum(row.requests for row in tx.observations.traffic(since=EVER))
        finally:
            installation.close()


@contextmanager
def running(folder: Path, limits: Limits = LIMITS) -> Iterator[Swapgate]:
    """The router before its providers, every route with its fault."""
    with ExitStack() as stack:
        upstreams = Upstreams.started(folder, stack)
        upstreams.break_(routes(rows()))
        site = Site(folder / "swapgate", free_port(), upstreams.ports)
        site.folder.mkdir()
        config = installed.install(site, limits)
        process = start(installed.serve(config), stack, log=site.folder / "log")
        wait_for(site.port, process, START_S)
        yield Swapgate(site, config, upstreams, process)
