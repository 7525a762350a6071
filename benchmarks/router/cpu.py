"""CPU time per request alone: `python benchmarks/router/cpu.py`; some twenty seconds.

Contenders stay up and take turns every second or so. CPU time hardly feels busy neighbours, so
that this shows a regression where requests per second would show the weather.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.router import measure, upstream
from benchmarks.router.load import full_throttle
from benchmarks.router.measure import CONNECTIONS, WARM_S, Running
from benchmarks.router.peers.peer import PLAIN, STREAMED, Site
from benchmarks.router.processes import free_port
from benchmarks.router.run import CLIENTS, PEERS
from benchmarks.router.table import LIMIT

QUICK: Final = ("nginx", "swapgate")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, choices=range(1, 101))
    options.add_argument("--seconds", type=float, default=1.5, help="per turn")
    options.add_argument("--peers", nargs="+", choices=PEERS | CLIENTS, default=list(QUICK))
    chosen = options.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        running = _started(chosen.peers, Path(folder), stack)
        for process in running.values():
            cpu_us(process, WARM_S)
        for _ in range(chosen.rounds):
            for name, process in running.items():
                found.setdefault(name, []).append(cpu_us(process, chosen.seconds))
    print("\n".join(lines(found)))


def _started(names: Sequence[str], folder: Path, stack: ExitStack) -> dict[str, Running]:
    plain, streamed, _ = upstream.serve(folder, stack)
    ports = {PLAIN: plain, STREAMED: streamed}
    return {
        name: measure.started(
            (PEERS | CLIENTS)[name], Site(folder / name, free_port(), ports), stack
        )
        for name in names
    }


def cpu_us(running: Running, seconds: float) -> float:
    """us of CPU time per request."""
    before = running.cpu_s()
    full = full_throttle(
        running.ports[PLAIN],
        running.asks[PLAIN],
        running.folder,
        connections=CONNECTIONS,
        seconds=seconds,
    )
    return (running.cpu_s() - before) / max(1, full.requests) * 1e6


def lines(found: Mapping[str, Sequence[float]]) -> list[str]:
    """Medians over the turns, and each as a ratio to nginx's."""
    limit = statistics.median(found.get(LIMIT, [float("nan")]))
    out = [f"{'':18}{'CPU us':>8}{'least':>8}{'of nginx':>10}"]
    for name, shares in found.items():
        middle = statistics.median(shares)
        out.append(f"{name:18}{middle:8.1f}{min(shares):8.1f}{middle / limit:10.2f}")
    return out


if __name__ == "__main__":
    main()
