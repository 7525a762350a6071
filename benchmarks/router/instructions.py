"""Measures a request's Python calls, coroutines and CPU time in the router, in ten seconds:
`python -m benchmarks.router.instructions`.

Calls and coroutines are equal on every machine; CPU time depends on the machine's load. The
router runs in its own thread.
"""

import argparse
import platform
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.print_rows import print_cells
from tests.support.router.costed_requests import (
    KINDS,
    CostedRequest,
    meter_of,
)
from tests.support.router.counted_router import RouterMeter

WARM_UP = 300
ROUND = 100
ROUNDS = 7


HEADS = ("name", "calls", "coroutines", "cpu_us")


def measured(
    name: str,
    kind: CostedRequest,
    folder: Path,
) -> tuple[str, int, int, float]:
    """Measures CPU time (median of rounds), then calls, because counting takes time."""
    with meter_of(kind, folder) as meter:
        bodies = kind.bodies()
        for _ in range(WARM_UP):
            meter.ask(kind.path, next(bodies))
        amounts = []
        for _ in range(ROUNDS):
            before = _cpu_s(meter)
            for _ in range(ROUND):
                meter.ask(kind.path, next(bodies))
            amounts.append((_cpu_s(meter) - before) / ROUND * 1e6)
        cost = meter.cost(kind.path, bodies)
        return name, cost.calls, cost.coroutines, statistics.median(amounts)


def _cpu_s(meter: RouterMeter) -> float:
    """Returns the CPU time of the router's thread so far, in seconds."""
    found: list[float] = []
    meter.in_loop(lambda: found.append(time.thread_time()))
    return found[0]


def interpreter() -> str:
    """Describes the Python interpreter and whether its build was profile-guided."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    optimized = "--enable-optimizations" in options
    # Debian's Python is optimized, although its CONFIG_ARGS may not contain the option.
    made = "optimized" if optimized else "built without --enable-optimizations, as it says"
    return f"{platform.python_implementation()} {platform.python_version()}, {made}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder:
        rows = [measured(name, KINDS[name], Path(folder) / name) for name in chosen.kinds]
    print_cells(f"{interpreter()}, {platform.machine()}", [HEADS, *rows])


if __name__ == "__main__":
    main()
