"""Faults 1 to 15 through Swapproof: `python -m benchmarks.faults.run [--seconds 8]`.

The official `openai` client sends the requests, with its retries off and on.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.faults.catalogue import RETRIES, SPARE, rows
from benchmarks.faults.client import Figures, cells, figures, p99
from benchmarks.faults.load import Gateway, played
from benchmarks.faults.stage import Swapproof, running
from benchmarks.faults.upstreams import FALLBACK
from benchmarks.print_rows import print_cells
from benchmarks.router.processes import Busy, cpu_s

HUGE: Final = 12


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rate",
        type=float,
        default=20.0,
        help="requests per second",
    )
    options.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="per fault and client",
    )
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="swapproof-faults-") as folder,
        Busy() as busy,
        running(Path(folder)) as site,
    ):
        found, direct_s = asyncio.run(measured(site, chosen.rate, chosen.seconds))
        pids = (*site.upstreams.pids, site.router.pid)
        own_s = sum(cpu_s(pid) for pid in pids) + time.process_time()
    found.sort(key=lambda row: (row.number, row.title, row.retries))
    print_cells("faults 1 to 15", cells(found, direct_s))
    for row in found:
        if row.said and row.right < row.requests:
            print(f"{row.number} {row.title}, {row.retries} retries: {row.said}")
    print(f"other processes used {busy.others(own_s):.0%} of the machine")


async def measured(
    site: Swapproof,
    rate: float,
    seconds: float,
) -> tuple[list[Figures], float]:
    """Returns each row's figures, without and with the client's retries, and the p99 of calls
    straight to the provider.
    """

    async def left() -> set[str]:
        return set()

    port = site.upstreams.ports[FALLBACK]
    alone = Gateway(port, lambda _: {}, left, lambda route: f"{SPARE}.{route}")
    direct = await played(
        rows()[0],
        alone,
        retries=0,
        rate=rate,
        seconds=seconds,
    )
    found = []
    # The huge answers come last, because they keep the machine busy for a while.
    for row in sorted(rows(), key=lambda row: row.number == HUGE):
        for retries in RETRIES:
            print(f"{row.number} {row.title}", file=sys.stderr)
            asked = await played(
                row,
                site.gateway,
                retries=retries,
                rate=rate,
                seconds=seconds,
            )
            calls = await asyncio.to_thread(site.upstreams.calls)
            found.append(figures(row, retries, asked, calls))
    return found, p99(answer.latency_s for answer in direct)


if __name__ == "__main__":
    main()
