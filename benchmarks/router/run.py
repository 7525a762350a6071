"""Compares the router with nginx and others, on loopback: `python -m benchmarks.router.run`.

First prints what a request costs in Python calls and in machine instructions, beside the
baseline (`instructions`) and the budget (`worker_instructions`).

Each contender has one worker on one core; load and provider share the other core. Contenders
take turns within a round, so that both meet the same load of other processes. Only ratios
count.
"""

import argparse
import asyncio
import math
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.print_rows import print_cells
from benchmarks.router import floor, peers, swapproof, upstream
from benchmarks.router.instructions import interpreter, print_costs
from benchmarks.router.load import (
    LARGE,
    LoadJob,
    Outcome,
    body,
    full_throttle,
    generated,
)
from benchmarks.router.processes import (
    PEER_CORE,
    PLAIN,
    STREAMED,
    TOO_BUSY,
    Ask,
    Busy,
    DidNotStart,
    Peer,
    Site,
    cpu_s,
    free_port,
    rss_mib,
    start,
    wait_for,
)
from benchmarks.router.worker_instructions import OVER_BUDGET, print_instructions

RATE_PER_S = 200
CONNECTIONS = 32
STREAMS = 64
WARM_S = 1.0


@dataclass(frozen=True)
class Figures:
    """A contender's figures of one round. cpu_us, cpu_us_large: per request; NaN without a
    contender. first_chunk_ms: median of STREAMS streams that start at once on open connections.
    others: share of the machine that other processes used.
    """

    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    first_chunk_ms: float
    cpu_us_per_chunk: float
    cpu_us_large: float
    rss_mib: float
    errors: int
    others: float
    steal: float


@dataclass(frozen=True)
class Running:
    """A running contender. ports, asks: by kind. pid: None for direct calls of the provider."""

    ports: Mapping[str, int]
    asks: Mapping[str, Ask]
    pid: int | None
    folder: Path

    def cpu_s(self) -> float:
        return cpu_s(self.pid) if self.pid is not None else math.nan


def contender(
    peer: Peer,
    folder: Path,
    upstreams: dict[str, int],
    pids: Sequence[int],
    seconds: float,
) -> Figures:
    """Raises DidNotStart."""
    with ExitStack() as stack:
        site = Site(folder, free_port(), upstreams)
        folder.mkdir(parents=True)
        command = peer.command(site)
        process = start(
            command,
            stack,
            core=PEER_CORE,
            log=folder / "log",
            env=peer.env,
        )
        wait_for(site.port, process, peer.start_s)
        asks = {kind: peer.ask(site, kind) for kind in (PLAIN, STREAMED)}
        wait_for_answer(site.port, asks[PLAIN], peer.start_s)
        running = Running(dict.fromkeys(asks, site.port), asks, process.pid, folder)
        return figures(running, pids, seconds)


def wait_for_answer(
    port: int,
    ask: Ask,
    timeout_s: float,
) -> None:
    """Waits for an answer: a process may listen long before it answers. Raises DidNotStart."""
    data = body(ask, stream=False).encode()
    kind = {"content-type": "application/json"}
    address = f"http://127.0.0.1:{port}{ask.path}"
    request = urllib.request.Request(address, data, {**ask.headers, **kind})
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(request, timeout=timeout_s).close()  # noqa: S310 - our own address
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise DidNotStart(f"no answer with status 200 after {timeout_s:.0f} s")


def figures(
    running: Running,
    pids: Sequence[int],
    seconds: float,
) -> Figures:
    """Measures a round.

    Args:
        pids: the provider's processes, whose CPU time is the benchmark's.
    """
    throttle = (running.ports[PLAIN], running.asks[PLAIN], running.folder)
    full_throttle(*throttle, connections=CONNECTIONS, seconds=WARM_S)
    _generate(running, PLAIN, WARM_S, per_s=RATE_PER_S)
    with Busy() as busy:
        ours = _ours_s(running, pids)
        before = running.cpu_s()
        full = full_throttle(*throttle, connections=CONNECTIONS, seconds=seconds)
        cpu_us = (running.cpu_s() - before) / max(1, full.requests) * 1e6
        calm = _generate(running, PLAIN, seconds, per_s=RATE_PER_S)
        begun = _generate(running, STREAMED, seconds, at_once=True)
        before = running.cpu_s()
        streams = _generate(running, STREAMED, seconds)
        # Without a chunk, the answers were no streams.
        stream_cpu_s = running.cpu_s() - before if streams.chunks else math.nan
        resident_mib = rss_mib(running.pid) if running.pid else math.nan
        # This provider reads the whole body before it answers.
        throttle = (
            running.ports[STREAMED],
            running.asks[STREAMED],
            running.folder,
        )
        before = running.cpu_s()
        large = full_throttle(
            *throttle,
            connections=4,
            seconds=seconds,
            repeats=LARGE,
        )
        large_cpu_s = math.nan if large.errors else running.cpu_s() - before
        ours = _ours_s(running, pids) - ours
    return Figures(
        per_s=full.per_s,
        cpu_us=cpu_us,
        p50_ms=calm.percentile_ms(0.5),
        p99_ms=calm.percentile_ms(0.99),
        first_chunk_ms=begun.percentile_ms(0.5),
        cpu_us_per_chunk=stream_cpu_s / max(1, streams.chunks) * 1e6,
        cpu_us_large=large_cpu_s / max(1, large.requests) * 1e6,
        rss_mib=resident_mib,
        errors=full.errors + large.errors + calm.errors + begun.errors + streams.errors,
        others=busy.others(ours),
        steal=busy.steal,
    )


def _generate(
    running: Running,
    kind: str,
    seconds: float,
    *,
    per_s: float = 0.0,
    at_once: bool = False,
) -> Outcome:
    ask = running.asks[kind]
    job = LoadJob(
        port=running.ports[kind],
        path=ask.path,
        headers=dict(ask.headers),
        body=body(ask, stream=kind == STREAMED),
        connections=8 if per_s else STREAMS,
        seconds=seconds,
        per_s=per_s,
        at_once=at_once,
    )
    return asyncio.run(generated(job))


def _ours_s(running: Running, pids: Sequence[int]) -> float:
    """Returns the CPU seconds of all the benchmark's processes so far."""
    load = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = [cpu_s(pid) for pid in pids]
    if running.pid is not None:
        own.append(running.cpu_s())
    return sum(own) + load.ru_utime + load.ru_stime + time.process_time()


DIRECT = "direct"
LIMIT = "nginx"
Column = Callable[[Figures, Figures], float]

# Each function gets the contender's and the direct figures of one round.
COLUMNS: Final[Mapping[str, Column]] = {
    "req/s": lambda own, _: own.per_s,
    "CPU us": lambda own, _: own.cpu_us,
    "+p50 ms": lambda own, direct: own.p50_ms - direct.p50_ms,
    "+p99 ms": lambda own, direct: own.p99_ms - direct.p99_ms,
    "+first chunk ms": lambda own, direct: own.first_chunk_ms - direct.first_chunk_ms,
    "us/chunk": lambda own, _: own.cpu_us_per_chunk,
    "CPU us of 1 MiB": lambda own, _: own.cpu_us_large,
    "RSS MiB": lambda own, _: own.rss_mib,
}

Rounds = Mapping[str, Sequence[Figures]]


def median(values: Iterable[float]) -> float:
    """Returns the median without NaN; NaN if all values are NaN."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def per_round(
    rounds: Rounds,
    name: str,
    column: Column,
) -> list[float]:
    return [column(*both) for both in zip(rounds[name], rounds[DIRECT], strict=True)]


def table(rounds: Rounds) -> Iterator[list[object]]:
    """Builds the table. A ratio to nginx is the median of the rounds' ratios."""
    yield [
        "",
        *COLUMNS,
        *(f"{title} of nginx's" for title in COLUMNS),
        "errors",
    ]
    for name, figures in rounds.items():
        values = [per_round(rounds, name, column) for column in COLUMNS.values()]
        limits = [per_round(rounds, LIMIT, column) for column in COLUMNS.values()]
        ratios = [
            median(own / limit if limit else math.nan for own, limit in zip(*both, strict=True))
            for both in zip(values, limits, strict=True)
        ]
        yield [
            name,
            *map(median, values),
            *ratios,
            sum(one.errors for one in figures),
        ]


def machine_lines(rounds: Rounds) -> list[str]:
    """Describes the load by other processes."""
    every = [figures for own in rounds.values() for figures in own]
    others = [figures.others for figures in every]
    steal = [figures.steal for figures in every]
    text = (
        f"others used {median(others):.0%} of the machine (at most {max(others):.0%}), "
        f"the hypervisor {median(steal):.1%}"
    )
    if max(others) <= TOO_BUSY and max(steal) <= TOO_BUSY:
        return [text]
    return [text, "TOO BUSY TO TRUST: run it again on a quiet machine"]


PEERS: Final = {
    peer.name: peer for peer in (upstream.PEER, floor.PEER, swapproof.PEER, *peers.found())
}
TOOLS: Final = ("nginx", "wrk", "taskset")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rounds",
        type=int,
        default=3,
        choices=range(1, 21),
    )
    options.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="per measurement",
    )
    chosen = options.parse_args()
    print_costs()
    keeps_budget = print_instructions()
    if (os.cpu_count() or 1) < 2:
        sys.exit("this needs two cores: one for the contender, one for the load")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        print(f"skipped: not on PATH: {', '.join(missing)}")
        return
    seconds = min(60.0, max(2.0, chosen.seconds))
    with (
        tempfile.TemporaryDirectory(prefix="swapproof-bench-") as folder,
        ExitStack() as stack,
    ):
        plain, streamed, pids = upstream.serve(Path(folder), stack)
        ports = {PLAIN: plain, STREAMED: streamed}
        rounds = compared(Path(folder), ports, pids, chosen.rounds, seconds)
    print_cells(f"Swapproof runs on {interpreter()}", [*table(rounds)])
    print("\n".join(machine_lines(rounds)))
    if not keeps_budget:
        sys.exit(OVER_BUDGET)


def compared(
    folder: Path,
    upstreams: dict[str, int],
    pids: Sequence[int],
    rounds: int,
    seconds: float,
) -> Rounds:
    """Raises DidNotStart."""
    found: dict[str, list[Figures]] = {name: [] for name in (DIRECT, *PEERS)}
    alone = Running(
        upstreams,
        {kind: Ask(model=kind) for kind in upstreams},
        None,
        folder,
    )
    for number in range(1, rounds + 1):
        found[DIRECT].append(figures(alone, pids, seconds))
        for name, peer in PEERS.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr)
            place = folder / f"{name}-{number}"
            found[name].append(contender(peer, place, upstreams, pids, seconds))
    return found


if __name__ == "__main__":
    main()
