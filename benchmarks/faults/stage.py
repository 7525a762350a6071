"""Swapgate with its two providers, as processes; what it recorded, from its database."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Final

from benchmarks.faults.catalogue import rows
from benchmarks.faults.gateways import fallback_chain, swapgate
from benchmarks.faults.gateways.fallback_chain import Limits
from benchmarks.faults.load import Door
from benchmarks.faults.routes import routes
from benchmarks.faults.upstreams import Upstreams
from benchmarks.faults.vitals import Vitals, metrics
from benchmarks.router.peers.peer import Site
from benchmarks.router.processes import free_port, start, wait_for
from harness.app.installation import open_installation
from tests.support.router.router_fleet import HELD_BY_ROUTERS, balancer

EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
START_S: Final = 120.0


@dataclass
class Swapgate:
    """site: its folder and port. config: its file. routers: the processes that serve, by their
    ports. front: where clients ask, which is the router's port or the balancer's.
    """

    site: Site
    config: Path
    stack: ExitStack
    upstreams: Upstreams
    routers: dict[int, Popen[bytes]]
    front: int

    @property
    def door(self) -> Door:
        headers = swapgate.ask(self.site, "").headers
        return Door(
            self.front,
            lambda _: headers,
            lambda: asyncio.to_thread(self.upstreams.left),
        )

    def part(self, name: str, port: int) -> Popen[bytes]:
        """Another of its processes, once it listens on its port."""
        log = self.site.folder / f"{name}.log"
        process = start(swapgate.serve(self.config, name), self.stack, log=log)
        wait_for(port, process, START_S)
        return process

    @property
    def router(self) -> Popen[bytes]:
        """The first of them."""
        return self.routers[self.site.port]

    def metrics(self, port: int | None = None) -> dict[str, float]:
        """Of the router at this port; without one, of the first."""
        authorization = swapgate.ask(self.site, "").headers["Authorization"]
        return metrics(port or self.site.port, authorization)

    def vitals(self) -> Vitals:
        return Vitals.measured(
            (process.pid, self.metrics(port)) for port, process in self.routers.items()
        )

    def recorded(self) -> int:
        """Requests in the database."""
        installation = open_installation(self.config)
        try:
            with installation.store.read() as tx:
                return sum(row.requests for row in tx.observations.traffic(since=EVER))
        finally:
            installation.close()


@contextmanager
def running(
    folder: Path,
    limits: Limits = fallback_chain.LIMITS,
    *,
    routers: int = 1,
    **more: object,
) -> Iterator[Swapgate]:
    """The router before its providers, every route with its fault. more: of its file.

    routers: more than one have a home each, as on several machines, and nginx before them.
    """
    with ExitStack() as stack:
        upstreams = Upstreams.started(folder, stack)
        upstreams.break_(routes(rows()))
        site = Site(folder / "swapgate", free_port(), upstreams.ports)
        site.folder.mkdir()
        config = swapgate.install(site, limits, **more)
        process = start(swapgate.serve(config), stack, log=site.folder / "log")
        wait_for(site.port, process, START_S)
        serving = {site.port: process}
        for number in range(2, routers + 1):
            serving |= _one_more(site, config, number, stack)
        front = site.port
        if routers > 1:
            url = stack.enter_context(balancer("nginx", site.folder, list(serving)))
            front = int(url.rpartition(":")[2])
        yield Swapgate(site, config, stack, upstreams, serving, front)


def _one_more(
    site: Site, config: Path, number: int, stack: ExitStack
) -> dict[int, Popen[bytes]]:
    """A router with a port and a home of its own, which has only what SECURITY.md names."""
    home, port = site.folder / f"home-{number}", free_port()
    home.mkdir()
    for file in filter(Path.exists, (site.folder / "home" / held for held in HELD_BY_ROUTERS)):
        shutil.copy(file, home)
    env = {"SWAPGATE__HOME": str(home), "SWAPGATE__ROUTER__PORT": str(port)}
    log = site.folder / f"log-{number}"
    process = start(swapgate.serve(config), stack, log=log, env=env)
    wait_for(port, process, START_S)
    return {port: process}
