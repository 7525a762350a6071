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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.router import measure, upstream
from benchmarks.router.instructions import interpreter
from benchmarks.router.machine import TOO_BUSY
from benchmarks.router.measure import Figures, Running
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Ask
from benchmarks.router.processes import DidNotStart

DIRECT, LIMIT = "direct", "nginx"
Column = tuple[str, Callable[[Figures, Figures], float], str]

# Title, value from (the contender's, the direct) figures of one round, format.
COLUMNS: Final[Sequence[Column]] = (
    ("req/s", lambda own, _: own.per_s, "8.0f"),
    ("CPU us", lambda own, _: own.cpu_us, "8.0f"),
    ("+p50 ms", lambda own, direct: own.p50_ms - direct.p50_ms, "8.2f"),
    ("us/chunk", lambda own, _: own.cpu_us_per_chunk, "9.1f"),
    ("RSS MiB", lambda own, _: own.rss_mib, "8.0f"),
)
RATIOS: Final = ("req/s", "CPU us", "+p50 ms", "us/chunk")

Rounds = Mapping[str, Mapping[int, Figures]]


def median(values: Sequence[float]) -> float:
    """Of what was measured; NaN when nothing was."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def per_round(rounds: Rounds, name: str, column: Column) -> list[float]:
    direct = rounds[DIRECT]
    return [column[1](own, direct[number]) for number, own in rounds[name].items()]


def ratio(rounds: Rounds, name: str, column: Column) -> float:
    """The median of the rounds' own ratios to nginx: both felt the same neighbours."""
    limits = rounds.get(LIMIT, {})
    direct = rounds[DIRECT]
    found = []
    for number, own in rounds[name].items():
        if number in limits:
            limit = column[1](limits[number], direct[number])
            found.append(column[1](own, direct[number]) / limit if limit else math.nan)
    return median(found)


def lines(rounds: Rounds) -> list[str]:
    """The table, then what must be known of the machine."""
    head = f"{'':18}" + "".join(
        f"{title:>{int(float(form[:-1]))}}" for title, _, form in COLUMNS
    )
    out = [head + "   of nginx's: " + "  ".join(RATIOS) + "   errors"]
    for name, own in rounds.items():
        row = f"{name:18}"
        for column in COLUMNS:
            row += f"{median(per_round(rounds, name, column)):{column[2]}}"
        ratios = [
            f"{ratio(rounds, name, column):{len(column[0])}.2f}"
            for column in COLUMNS
            if column[0] in RATIOS
        ]
        row += " " * 15 + "  ".join(ratios)
        out.append(
            row.replace("nan", "  -") + f"{sum(figures.errors for figures in own.values()):9}"
        )
    return [*out, *machine_lines(rounds)]


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
    print(f"Swapgate runs on {interpreter()}")
    print("\n".join(lines(rounds)))


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
