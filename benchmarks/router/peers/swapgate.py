"""Swapgate with everything on: keys, a sticky canary at 1 %, recording, metrics, SQLite."""

import sys
from collections.abc import Callable, Sequence

from benchmarks.router.peers.peer import Ask, Peer, Site
from benchmarks.router.worker import KEY


def command_with(client: str) -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        ports = [str(site.port), *(f"{k}={port}" for k, port in site.upstreams.items())]
        module = [sys.executable, "-m", "benchmarks.router.worker"]
        return [*module, client, str(site.folder), *ports]

    return command


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind, headers={"authorization": f"Bearer {KEY}"})


PEER = Peer("Swapgate", command_with("pool"), ask)
