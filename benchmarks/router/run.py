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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.print_rows import print_cells
from benchmarks.router import measure, swapgate, upstream
from benchmarks.router.instructions import interpreter
from benchmarks.router.measure import Figures, Running
from benchmarks.router.processes import PLAIN, STREAMED, TOO_BUSY, Ask

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

Rounds = Mapping[str, Sequence[Figures]]


def median(values: Iterable[float]) -> float:
    """Of what was measured; NaN when nothing was."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def per_round(rounds: Rounds, name: str, column: Column) -> list[float]:
    return [column(*both) for both in zip(rounds[name], rounds[DIRECT], strict=True)]


def table(rounds: Rounds) -> Iterator[list[object]]:
    """Ratios are medians of the rounds' own to nginx: both felt the same neighbours."""
    yield ["", *COLUMNS, *(f"{title} of nginx's" for title in COLUMNS), "errors"]
    for name, figures in rounds.items():
        values = [per_round(rounds, name, column) for column in COLUMNS.values()]
        limits = [per_round(rounds, LIMIT, column) for column in COLUMNS.values()]
        ratios = [
            median(own / limit if limit else math.nan for own, limit in zip(*both, strict=True))
            for both in zip(values, limits, strict=True)
        ]
        yield [name, *map(median, values), *ratios, sum(one.errors for one in figures)]


def machine_lines(rounds: Rounds) -> list[str]:
    """How busy others kept the machine."""
    every = [figures for own in rounds.values() for figures in own]
    others = [figures.others for figures in every]
    steal = [figures.steal for figures in every]
    text = (
        f"others had {median(others):.0%} of the machine (at most {max(others):.0%}), "
        f"the hypervisor {median(steal):.1%}"
    )
    if max(others) <= TOO_BUSY and max(steal) <= TOO_BUSY:
        return [text]
    return [text, "TOO BUSY TO TRUST: run it again on a quiet machine"]


PEERS: Final = {peer.name: peer for peer in (upstream.PEER, swapgate.PEER)}
TOOLS: Final = ("nginx", "wrk", "taskset")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3, choices=range(1, 21))
    options.add_argument("--seconds", type=float, default=3.0, help="per measurement")
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
) -> Rounds:
    """Raises DidNotStart."""
    found: dict[str, list[Figures]] = {name: [] for name in (DIRECT, *PEERS)}
    alone = Running(upstreams, {kind: Ask(model=kind) for kind in upstreams}, None, folder)
    for number in range(1, rounds + 1):
        found[DIRECT].append(measure.figures(alone, pids, seconds))
        for name, peer in PEERS.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr)
            place = folder / f"{name}-{number}"
            found[name].append(measure.contender(peer, place, upstreams, pids, seconds))
    return found


if __name__ == "__main__":
    main()
