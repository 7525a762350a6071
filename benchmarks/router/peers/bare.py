"""An empty proxy on each upstream client: the candidates' own comparison."""

import sys
from collections.abc import Callable, Sequence

from benchmarks.router.peers.nginx import ask
from benchmarks.router.peers.peer import CACHE, Peer, Site, run


def command_with(client: str, server: str = "bare") -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        ports = [str(site.port), *(f"{k}={port}" for k, port in site.upstreams.items())]
        return [sys.executable, "-m", f"benchmarks.router.{server}", client, *ports]

    return command


def install_pyreqwest() -> None:
    if not (CACHE / "pyreqwest").exists():
        folder = ["--target", str(CACHE / "pyreqwest")]
        run(["uv", "pip", "install", "-q", *folder, "pyreqwest"])


POOL = Peer("bare pool", command_with("pool"), ask)
PYREQWEST = Peer("bare pyreqwest", command_with("pyreqwest"), ask, install_pyreqwest)
PROTOCOL = Peer("bare no ASGI", command_with("pool", "bare_protocol"), ask)
