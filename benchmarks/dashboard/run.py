"""How quickly the dashboard answers: `python benchmarks/dashboard/run.py [--items N]`.

Three questions: how long a page takes to its first line in a browser, on a server that has just
started and on one that has shown it before; what a comparison of many items takes; and how a
canary's page keeps up with several viewers who refresh it every 2 s.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from playwright.sync_api import Browser, sync_playwright

from benchmarks.dashboard import large_comparison, viewers
from tests.browser.conftest import ARGUMENTS
from tests.support.browser.chromium import find
from tests.support.browser.dashboard_data import lived
from tests.support.browser.dashboard_server import dashboard

PAGES = {
    "Overview": "/",
    "Compare": "/compare?id={canary}",
    "Canary": "/canary?route=support-chat",
    "Proposals": "/proposals?state=open",
}
WARM_VISITS = 5
EVERY_S = 2.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=100_000, help="of the large comparison")
    options.add_argument("--large", type=Path, help="folder that keeps it for the next run")
    options.add_argument("--viewers", type=int, default=20)
    options.add_argument("--refreshes", type=int, default=15, help="of each viewer")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-dashboard-") as folder:
        house = lived(Path(folder) / "house", datetime.now(UTC))  # noqa: TID251
        chromium = find(lambda: Path("/nowhere"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium.executable,
                args=ARGUMENTS,
                env={**os.environ, **chromium.environment},
            )
            for name, path in PAGES.items():
                print_visits(browser, name, house.config, path.format(**house.proposals))
            big = chosen.large or Path(folder) / "big"
            proposal = large_comparison.find(big) or large_comparison.build(big, chosen.items)
            print_visits(
                browser,
                f"Compare, {chosen.items:,} pairs",
                big / "swapgate.yaml",
                f"/compare?id={proposal}",
            )
            browser.close()
        with dashboard(house.config) as address:
            server = Server.find()
            before, began = server.cpu_s(), time.perf_counter()
            found = asyncio.run(
                viewers.watch_together(
                    chosen.viewers, address, PAGES["Canary"], chosen.refreshes, EVERY_S
                )
            )
            cpu, lasted = server.cpu_s() - before, time.perf_counter() - began
        title = f"Canary, {chosen.viewers} viewers, a refresh every {EVERY_S:g} s"
        print(f"\n{title}: {spread(found)}; the server used {cpu / lasted:.0%} of a core")


def print_visits(browser: Browser, name: str, config: Path, path: str) -> None:
    """Visits a page on a server of its own: first, and then several times."""
    with dashboard(config) as address:
        server = Server.find()
        visits = []
        for _ in range(1 + WARM_VISITS):
            before = server.cpu_s()
            seconds = visit(browser, address + path)
            visits.append((seconds, server.cpu_s() - before))
    (first, first_cpu), *warm = visits
    cpu = statistics.median(used for _, used in warm)
    print(
        f"{name}: first visit {first:.2f} s (server's CPU {first_cpu:.2f} s); then "
        f"{spread([seconds for seconds, _ in warm])} (CPU {cpu:.2f} s)",
        flush=True,
    )


def visit(browser: Browser, url: str) -> float:
    """Returns after how many seconds the page's first line was there, in a fresh context; waits
    for the rest of the page.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    begins = time.perf_counter()
    page.goto(url, wait_until="commit", timeout=300_000)
    page.locator("h1").first.wait_for(timeout=300_000)
    took = time.perf_counter() - begins
    page.get_by_text("Copy as CLI").wait_for(timeout=300_000)
    context.close()
    return took


@dataclass(frozen=True)
class Server:
    """The dashboard's process, a child of this one."""

    pid: int

    @classmethod
    def find(cls) -> Self:
        """Finds the only child that serves a dashboard."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        [pid] = [
            int(child)
            for child in children
            if b"dashboard.serve" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        return cls(pid)

    def cpu_s(self) -> float:
        """Returns how many seconds of CPU it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return (
        f"median {statistics.median(ordered):.2f} s, p95 {p95:.2f} s, "
        f"slowest {ordered[-1]:.2f} s of {len(ordered)}"
    )


if __name__ == "__main__":
    main()
