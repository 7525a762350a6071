"""Swapgate as users run it, `serve router` with one worker and everything on: keys, a sticky
canary at 1 %, recording, metrics, SQLite.
"""

import sys
from collections.abc import Callable, Sequence

import yaml

from benchmarks.router.peers.peer import Ask, Peer, Site
from benchmarks.router.worker import KEY, SECRET, seeded
from tests.support.site.signing_keys import ENVIRONMENT

ENV = {"SWAPGATE_SECRET": SECRET.decode(), **ENVIRONMENT}


def served_by(workers: int) -> Callable[[Site], Sequence[str]]:
    """Writes a home with its database, and gives the command that serves it."""

    def command(site: Site) -> Sequence[str]:
        seeded(site.folder, dict(site.upstreams)).close()
        config = site.folder / "swapgate.yaml"
        settings = {"home": str(site.folder), "router": {"port": site.port}}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        main = [sys.executable, "-m", "swapgate", "--config", str(config)]
        return [*main, "serve", "router", "--workers", str(workers)]

    return command


def command_with(client: str) -> Callable[[Site], Sequence[str]]:
    """The router in one process, without a parent, on one of the upstream clients."""

    def command(site: Site) -> Sequence[str]:
        ports = [str(site.port), *(f"{k}={port}" for k, port in site.upstreams.items())]
        module = [sys.executable, "-m", "benchmarks.router.worker"]
        return [*module, client, str(site.folder), *ports]

    return command


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind, headers={"authorization": f"Bearer {KEY}"})


PEER = Peer("Swapgate", served_by(1), ask, env=ENV, start_s=60.0)
