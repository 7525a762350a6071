"""Do people who watch cost users time? The router's first chunks, alone and beside viewers.

`python -m benchmarks.dashboard.router_beside [--rounds 3] [--viewers 20]`: by turns, on the
same two cores, without and with viewers of a canary's page who refresh it every 2 s.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.dashboard import viewers
from benchmarks.router.load import LoadJob, Outcome, body, generated
from benchmarks.router.peers.peer import STREAMED, Site
from benchmarks.router.peers.swapgate import PEER
from benchmarks.router.processes import free_port, start, wait_for
from tests.support.browser.dashboard_data import lived
from tests.support.browser.dashboard_server import dashboard

LASTS_S = 15.0
RATE_PER_S = 100.0
REFRESHES = 12
EVERY_S = 2.0
SETTLES_S = 4.0
STARTS_WITHIN_S = 120.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--viewers", type=int, default=20)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-beside-") as name, ExitStack() as stack:
        folder = Path(name)
        job = serve_router(folder, stack)
        house = lived(folder / "house", datetime.now(UTC))  # noqa: TID251
        with dashboard(house.config) as address:
            asyncio.run(generated(job))
            alone, beside = [], []
            for _ in range(chosen.rounds):
                alone.append(asyncio.run(generated(job)))
                with watched(address, chosen.viewers):
                    beside.append(asyncio.run(generated(job)))
    for title, outcomes in (("alone", alone), (f"beside {chosen.viewers} viewers", beside)):
        failed = sum(outcome.errors for outcome in outcomes)
        p50, p99 = spread(outcomes, 0.5), spread(outcomes, 0.99)
        print(f"{title}: p50 {p50}, p99 {p99}, {failed} failed")


def serve_router(folder: Path, stack: ExitStack) -> LoadJob:
    """Starts a provider of streams and a router before it; returns the load for that router."""
    upstream_port = free_port()
    upstream = start(
        [sys.executable, "-m", "benchmarks.router.stream_latency", str(upstream_port)],
        stack,
        log=folder / "upstream.log",
    )
    wait_for(upstream_port, upstream, STARTS_WITHIN_S)
    home = folder / "router"
    home.mkdir()
    site = Site(home, free_port(), {STREAMED: upstream_port})
    router = start(PEER.command(site), stack, log=folder / "router.log", env=PEER.env)
    wait_for(site.port, router, STARTS_WITHIN_S)
    ask = PEER.ask(site, STREAMED)
    return LoadJob(
        port=site.port,
        path=ask.path,
        headers=dict(ask.headers),
        body=body(ask, stream=True),
        stream=True,
        connections=32,
        seconds=LASTS_S,
        per_s=RATE_PER_S,
    )


@contextmanager
def watched(address: str, count: int) -> Iterator[None]:
    """Lets viewers refresh a canary's page meanwhile."""

    def watch() -> None:
        path = "/canary?route=support-chat"
        asyncio.run(viewers.watch_together(count, address, path, REFRESHES, EVERY_S))

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(SETTLES_S)
    yield
    thread.join()


def spread(outcomes: list[Outcome], share: float) -> str:
    values = [outcome.percentile_ms(share) for outcome in outcomes]
    return f"{statistics.median(values):.1f} ms ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
