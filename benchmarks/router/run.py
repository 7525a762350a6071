"""The router beside nginx, on loopback: `python -m benchmarks.router.run`.

One worker each, pinned to one core; load and provider share the other. Contenders take turns
within a round, so that a ratio compares what felt the same neighbours. Only ratios count.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.router import measure, table, upstream
from benchmarks.router.instructions import interpreter
from benchmarks.router.measure import Figures, Running
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Ask
from benchmarks.router.processes import DidNotStart

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
    print("\n".join(table.lines(rounds)))


def compared(
    folder: Path, upstreams: dict[str, int], pids: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[int, Figures]]:
    found: dict[str, dict[int, Figures]] = {table.DIRECT: {}}
    asks = {kind: Ask(model=kind) for kind in upstreams}
    for number in range(1, rounds + 1):
        alone = Running(upstreams, asks, None, folder)
        found[table.DIRECT][number] = measure.figures(alone, pids, seconds)
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
