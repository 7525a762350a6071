"""Swapgate as users run it, `serve router` with one worker and everything on: keys, a sticky
canary at 1 %, recording, metrics, SQLite.
"""

import sys
from collections.abc import Sequence

import yaml

from benchmarks.router.peers.peer import Ask, Peer, Site
from benchmarks.router.seed import KEY, SECRET, seeded
from tests.support.site.signing_keys import ENVIRONMENT

ENV = {"SWAPGATE_SECRET": SECRET.decode(), **ENVIRONMENT}


def command(site: Site) -> Sequence[str]:
    """Writes a home with its database, and returns the command that serves it."""
    seeded(site.folder, dict(site.upstreams)).close()
    config = site.folder / "swapgate.yaml"
    settings = {"home": str(site.folder), "router": {"port": site.port}}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    main = [sys.executable, "-m", "swapgate", "--config", str(config)]
    return [*main, "serve", "router", "--workers", "1"]


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind, headers={"authorization": f"Bearer {KEY}"})


PEER = Peer("Swapgate", command, ask, env=ENV, start_s=60.0)
