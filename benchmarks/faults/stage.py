"""Runs Swapproof and its two providers as processes, and reads its metrics and records."""

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Final, NamedTuple

from benchmarks.faults.catalogue import Place, routes, rows
from benchmarks.faults.load import Gateway
from benchmarks.faults.upstreams import FALLBACK, Upstreams
from benchmarks.router.processes import (
    Site,
    free_port,
    start,
    tree,
    wait_for,
)
from harness.app import seed
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.frame.people.access import SYSTEM
from harness.operations import keys
from harness.routing.records.observations import Observations

KEY_FILE = "key"


class Limits(NamedTuple):
    """The time limits of one target, in seconds."""

    first_token_s: float = 2.0
    between_chunks_s: float = 1.0
    answer_s: float = 3.0

    @property
    def total_s(self) -> float:
        """The time limit of a request: enough for two targets."""
        return 2 * self.answer_s


LIMITS: Final = Limits()


def _addresses(site: Site) -> Mapping[str, str]:
    """Returns the base URLs by the provider's name in the configuration."""
    primary = site.upstreams[Place.PRIMARY]
    return {
        Place.PRIMARY: f"http://127.0.0.1:{primary}/v1",
        Place.REFUSED: "http://127.0.0.1:1/v1",
        Place.NO_NAME: "http://no-such-host.example/v1",
        Place.NO_TLS: f"https://127.0.0.1:{primary}/v1",
        FALLBACK: f"http://127.0.0.1:{site.upstreams[FALLBACK]}/v1",
    }


def document(site: Site, limits: Limits) -> dict[str, object]:
    """Builds the configuration file, which keeps the defaults of retry and breaker."""
    return {
        "home": str(site.folder / "home"),
        "router": {
            "port": site.port,
            "first_token_timeout_s": limits.first_token_s,
            "between_chunks_timeout_s": limits.between_chunks_s,
            "total_timeout_s": limits.total_s,
            "connect_timeout_s": 1.0,
        },
        "providers": {
            name: {"kind": "custom", "api_base": url} for name, url in _addresses(site).items()
        },
        "routes": {
            route.name: {
                "incumbent": f"{route.variant.place}/{route.primary}",
                "fallbacks": [f"{FALLBACK}/{route.spare}"],
                "total_timeout_s": limits.total_s,
            }
            for route in routes(rows())
        },
    }


def install(site: Site, limits: Limits = LIMITS) -> Path:
    """Writes the configuration file, the seeded database and a client key."""
    config = site.folder / "swapproof.yaml"
    config.write_text(json.dumps(document(site, limits)), encoding="utf-8")  # JSON is YAML
    installation = open_installation(config, create_secret=True)
    try:
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        ctx = installation.context
        secret = installation.secret
        _, key = keys.create_key(
            ctx,
            SYSTEM,
            "bench",
            secret=secret,
        )
    finally:
        installation.close()
    (site.folder / KEY_FILE).write_text(key, encoding="ascii")
    return config


def serve(config: Path, part: str = "router") -> Sequence[str]:
    """Returns the command line of a Swapproof process."""
    main = [sys.executable, "-m", "swapproof"]
    return [*main, "--config", str(config), "serve", part]


def headers(site: Site) -> dict[str, str]:
    key = (site.folder / KEY_FILE).read_text(encoding="ascii")
    return {"Authorization": f"Bearer {key}"}


METRICS_S: Final = 30.0
TASKS: Final = "swapproof_router_tasks"


@dataclass(frozen=True)
class Vitals:
    """Resources of the router's processes. at_s: monotonic. tasks: of the event loops."""

    at_s: float
    rss_mib: float
    files: float
    sockets: float
    threads: float
    tasks: float

    @classmethod
    def measured(cls, pid: int, metrics: Mapping[str, float]) -> "Vitals":
        """Measures a router with its workers. Raises LookupError if /metrics has no tasks."""
        all_ = tree(pid)
        tasks = [count for name, count in metrics.items() if name.startswith(TASKS)]
        if not tasks:
            raise LookupError(f"there is no {TASKS} in /metrics of process {pid}")
        return cls(
            time.monotonic(),
            sum(process.memory_info().rss for process in all_) / 2**20,
            sum(process.num_fds() for process in all_),
            sum(len(process.net_connections("all")) for process in all_),
            sum(process.num_threads() for process in all_),
            sum(tasks),
        )


def metrics(address: str, authorization: str) -> dict[str, float]:
    """Reads the values of /metrics by series. Raises URLError."""
    request = urllib.request.Request(
        f"http://{address}/metrics", headers={"authorization": authorization}
    )
    with urllib.request.urlopen(request, timeout=METRICS_S) as answer:  # noqa: S310 - as above
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
START_S: Final = 120.0


@dataclass
class Swapproof:
    site: Site
    config: Path
    upstreams: Upstreams
    router: Popen[bytes]

    @property
    def gateway(self) -> Gateway:
        known = headers(self.site)
        return Gateway(
            self.site.port,
            lambda _: known,
            lambda: asyncio.to_thread(self.upstreams.left),
        )

    def metrics(self) -> dict[str, float]:
        address = f"127.0.0.1:{self.site.port}"
        return metrics(address, headers(self.site)["Authorization"])

    def vitals(self) -> Vitals:
        return Vitals.measured(self.router.pid, self.metrics())

    def recorded(self) -> int:
        """Counts the requests in the database."""
        installation = open_installation(self.config)
        try:
            with installation.store.read() as tx:
                return sum(row.requests for row in Observations(tx).traffic(since=EVER))
        finally:
            installation.close()


@contextmanager
def running(folder: Path, limits: Limits = LIMITS) -> Iterator[Swapproof]:
    """Runs the router and its providers, with every route's fault set."""
    with ExitStack() as stack:
        upstreams = Upstreams.started(folder, stack)
        upstreams.break_(routes(rows()))
        site = Site(folder / "swapproof", free_port(), upstreams.ports)
        site.folder.mkdir()
        config = install(site, limits)
        process = start(serve(config), stack, log=site.folder / "log")
        wait_for(site.port, process, START_S)
        yield Swapproof(site, config, upstreams, process)
