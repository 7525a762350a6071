"""The router beside nginx, on loopback: `python -m benchmarks.router.run`.

One worker each, pinned to one core; load and provider share the other. Contenders take turns
within a round, so that a ratio compares what felt the same neighbours. Only ratios count.
"""

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.print_rows import print_cells
from benchmarks.router import measure, upstream
from benchmarks.router.instructions import interpreter
from benchmarks.router.machine import TOO_BUSY
from benchmarks.router.measure import Figures, Running
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Ask
from benchmarks.router.processes import DidNotStart

DIRECT, LIMIT = "direct", "nginx"
Column = Callable[[Figures, Figures], float]

# Value from (the contender's, the direct) figures of one round.
COLUMNS: Final[Mapping[str, Column]] = {
    "req/s": lambda own, _: own.per_s,
    "CPU us": lambda own, _: own.cpu_us,
    "+p50 ms": lambda own, direct: own.p50_ms - direct.p50_ms,
    "us/chunk": lambda own, _: own.cpu_us_per_chunk,
    "RSS MiB": lambda own, _: own.rss_mib,
}

Rounds = Mapping[str, Mapping[int, Figures]]


def median(values: Sequence[float]) -> float:
    """Of what was measured; NaN when nothing was."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def per_round(rounds: Rounds, name: str, column: Column) -> list[float]:
    direct = rounds[DIRECT]
    return [column(own, direct[number]) for number, own in rounds[name].items()]


def ratio(rounds: Rounds, name: str, column: Column) -> float:
    """The median of the rounds' own ratios to nginx: both felt the same neighbours."""
    limits = rounds.get(LIMIT, {})
    direct = rounds[DIRECT]
    found = []
    for number, own in rounds[name].items():
        if number in limits:
            limit = column(limits[number], direct[number])
            found.append(column(own, direct[number]) / limit if limit else math.nan)
    return median(found)


def table(rounds: Rounds) -> Iterator[list[object]]:
    yield ["", *COLUMNS, *(f"{title} of nginx's" for title in COLUMNS), "errors"]
    for name, own in rounds.items():
        figures = [median(per_round(rounds, name, column)) for column in COLUMNS.values()]
        ratios = [ratio(rounds, name, column) for column in COLUMNS.values()]
        yield [name, *figures, *ratios, sum(one.errors for one in own.values())]


def machine_lines(rounds: Rounds) -> list[str]:
    """How busy others kept the machine."""
    every = [figures for own in rounds.values() for figures in own.values()]
    others = [figures.others for figures in every]
    steal = [figures.steal for figures in every]
    text = (
        f"others had {median(others):.0%} of the machine (at most {max(others):.0%}), "
        f"the hypervisor {median(steal):.1%}"
    )
    if max(others) <= TOO_BUSY and max(steal) <= TOO_BUSY:
        return [text]
    return [text, "TOO BUSY TO TRUST: run it again on a quiet machine"]


PEERS: Final = (nginx.PEER, swapgate.PEER)
TOOLS: Final = ("nginx", "wrk", "taskset")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3, choices=range(1, 21))
    options.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    chosen = options.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("this needs two cores: one for the contender, one for the load")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        print(f"skipped: not on PATH: {', '.join(missing)}")
        return
    seconds = min(60.0, max(2.0, chosen.seconds))
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        plain, streamed, pids = upstream.serve(Path(folder), stack)
        ports = {PLAIN: plain, STREAMED: streamed}
        rounds = compared(Path(folder), ports, pids, chosen.rounds, seconds)
    print_cells(f"Swapgate runs on {interpreter()}", [*table(rounds)])
    print("\n".join(machine_lines(rounds)))


def compared(
    folder: Path, upstreams: dict[str, int], pids: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[int, Figures]]:
    found: dict[str, dict[int, Figures]] = {DIRECT: {}}
    asks = {kind: Ask(model=kind) for kind in upstreams}
    for number in range(1, rounds + 1):
        alone = Running(upstreams, asks, None, folder)
        found[DIRECT][number] = measure.figures(alone, pids, seconds)
        for peer in PEERS:
            print(f"round {number} of {rounds}: {peer.name}", file=sys.stderr)
            place = folder / f"{peer.name}-{number}"
            try:
                own = measure.contender(peer, place, upstreams, pids, seconds)
            except DidNotStart as error:
                print(f"{peer.name} is left out of round {number}: {error}")
                continue
            found.setdefault(peer.name, {})[number] = own
    return found


if __name__ == "__main__":
    main()
