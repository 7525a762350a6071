"""One worker, two, and none apart: `python benchmarks/router/workers.py`; about a minute.

CPU time per request of the whole router, parent included, and how evenly the workers share it.
Two workers serve twice as much if a request costs no more and each takes half. Requests per
second are shown as well: load and provider have no cores of their own here, and take their part
of those that the workers are given.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.router import upstream
from benchmarks.router.load import full_throttle
from benchmarks.router.machine import cpu_s
from benchmarks.router.measure import WARM_S
from benchmarks.router.peers.peer import PLAIN, STREAMED
from benchmarks.router.peers.peer import Site as Place
from benchmarks.router.peers.swapgate import ENV, ask, command_with, served_by
from benchmarks.router.processes import free_port, start, wait_for

# No parent: the router as it runs within another process.
ALONE: Final = 0
START_S: Final = 60.0
# Enough that each of two workers always has some to answer.
CONNECTIONS: Final = 64


@dataclass(frozen=True)
class Turn:
    """shares: of the workers' CPU time, the largest first."""

    per_s: float
    cpu_us: float
    parent_us: float
    shares: Sequence[float]
    errors: int


@dataclass(frozen=True)
class Router:
    place: Place
    pid: int

    def measure(self, seconds: float) -> Turn:
        workers = psutil.Process(self.pid).children()
        before, own = [cpu_s(worker.pid) for worker in workers], cpu_s(self.pid)
        full = full_throttle(
            self.place.port,
            ask(self.place, PLAIN),
            self.place.folder,
            connections=CONNECTIONS,
            seconds=seconds,
        )
        each_s = [cpu_s(w.pid) - b for w, b in zip(workers, before, strict=True)]
        all_s, count = cpu_s(self.pid) - own, max(1, full.requests)
        return Turn(
            per_s=full.per_s,
            cpu_us=all_s / count * 1e6,
            parent_us=(all_s - sum(each_s)) / count * 1e6,
            shares=sorted((s / max(1e-9, sum(each_s)) for s in each_s), reverse=True),
            errors=full.errors,
        )


def started(workers: int, folder: Path, ports: dict[str, int], stack: ExitStack) -> Router:
    folder.mkdir()
    place = Place(folder, free_port(), ports)
    make = command_with("pool") if workers == ALONE else served_by(workers)
    process = start(make(place), stack, core=None, log=folder / "log", env=ENV)
    wait_for(place.port, process, START_S)
    router = Router(place, process.pid)
    # The parent listens before its workers do.
    router.measure(WARM_S + workers)
    return router


def lines(found: Mapping[int, Sequence[Turn]]) -> list[str]:
    """Medians over the turns."""
    heads = ("req/s", "CPU us", "parent us", "largest share", "errors")
    out = [f"{'workers':10}" + "".join(f"{head:>14}" for head in heads)]
    for workers, turns in found.items():
        name = "in-process" if workers == ALONE else str(workers)
        share = statistics.median(t.shares[0] if t.shares else 1.0 for t in turns)
        middle = statistics.median
        out.append(
            f"{name:10}{middle(t.per_s for t in turns):14.0f}"
            f"{middle(t.cpu_us for t in turns):14.1f}"
            f"{middle(t.parent_us for t in turns) if workers else 0.0:14.1f}"
            f"{share:14.2f}{sum(t.errors for t in turns):14}"
        )
    if {1, 2} <= found.keys():
        one, two = (statistics.median(t.cpu_us for t in found[n]) for n in (1, 2))
        largest = statistics.median(t.shares[0] for t in found[2])
        out.append(f"two of one, by CPU per request: {2 * one / two:.2f}")
        out.append(f"two of one, when the busier one is full: {one / two / largest:.2f}")
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, choices=range(1, 101))
    options.add_argument("--seconds", type=float, default=2.0, help="per turn")
    options.add_argument("--workers", type=int, nargs="+", default=[ALONE, 1, 2])
    chosen = options.parse_args()
    found: dict[int, list[Turn]] = {}
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        plain, streamed, _ = upstream.serve(Path(folder), stack)
        ports = {PLAIN: plain, STREAMED: streamed}
        running = {
            workers: started(workers, Path(folder) / str(workers), ports, stack)
            for workers in chosen.workers
        }
        for _ in range(chosen.rounds):
            for workers, router in running.items():
                found.setdefault(workers, []).append(router.measure(chosen.seconds))
    print("\n".join(lines(found)))
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
