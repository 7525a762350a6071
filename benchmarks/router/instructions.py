"""Measures what a request costs the router: `python -m benchmarks.router.instructions`.

Prints Python calls, coroutines, the product's files that the request passes, and CPU time,
in about ten seconds. CPU time depends on the machine's load. The others are equal on every
machine, so one run shows whether a change costs more: `calls_per_request.toml` holds the
baseline of calls and coroutines. The router runs in its own thread.
"""

import argparse
import platform
import statistics
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.print_rows import print_rows
from tests.support.router.costed_requests import (
    FEW_CHUNKS,
    KINDS,
    MANY_CHUNKS,
    CostedRequest,
    meter_of,
)
from tests.support.router.counted_router import RequestCost, RouterMeter

BASELINE: Final = Path(__file__).with_name("calls_per_request.toml")
WARM_UP = 300
ROUND = 100
ROUNDS = 7
# On a busy machine, most requests may meet the worker's work of each second: ask more often.
TIMES_IF_BUSY = 200


@dataclass(frozen=True)
class CostRow:
    """What a request of one kind costs. baseline_…: None for a kind without a baseline.

    files: of the product, None for a chunk. cpu_us: the median of the rounds, None for a chunk.
    """

    kind: str
    calls: int
    baseline_calls: int | None
    coroutines: int
    baseline_coroutines: int | None
    files: int | None = None
    cpu_us: float | None = None


def load_baseline(version: tuple[int, int]) -> Mapping[str, RequestCost]:
    """Loads the baseline of this Python, or of the newest older one in the file.

    Later Pythons make fewer calls, so an older baseline is an upper bound.
    """
    tables = tomllib.loads(BASELINE.read_text(encoding="utf-8"))
    minors = [int(name.partition(".")[2]) for name in tables]
    newest = max(minor for minor in minors if minor <= version[1])
    return {kind: RequestCost(**cost) for kind, cost in tables[f"3.{newest}"].items()}


def measured(
    name: str,
    kind: CostedRequest,
    known: RequestCost | None,
    folder: Path,
) -> CostRow:
    """Measures CPU time, then calls and files, because counting takes time."""
    with meter_of(kind, folder) as meter:
        bodies = kind.bodies()
        cpu_us = _median_cpu_us(meter, kind, bodies)
        cost = meter.cost(kind.path, bodies)
        if known is not None and cost.calls > known.calls:
            cost = min(cost, meter.cost(kind.path, bodies, times=TIMES_IF_BUSY))
        passed = meter.files(kind.path, bodies)
    return CostRow(
        name,
        cost.calls,
        known.calls if known else None,
        cost.coroutines,
        known.coroutines if known else None,
        files=len(passed),
        cpu_us=cpu_us,
    )


def _median_cpu_us(meter: RouterMeter, kind: CostedRequest, bodies: Iterator[bytes]) -> float:
    for _ in range(WARM_UP):
        meter.ask(kind.path, next(bodies))
    amounts = []
    for _ in range(ROUNDS):
        before = _cpu_s(meter)
        for _ in range(ROUND):
            meter.ask(kind.path, next(bodies))
        amounts.append((_cpu_s(meter) - before) / ROUND * 1e6)
    return statistics.median(amounts)


def _cpu_s(meter: RouterMeter) -> float:
    """Returns the CPU time of the router's thread so far, in seconds."""
    found: list[float] = []
    meter.in_loop(lambda: found.append(time.thread_time()))
    return found[0]


def chunk_row(rows: Mapping[str, CostRow], known: RequestCost | None) -> CostRow | None:
    """Computes the cost of a further chunk from both streams; None if one was not measured."""
    if not {"stream", "long_stream"} <= rows.keys():
        return None
    few = rows["stream"]
    many = rows["long_stream"]
    more = MANY_CHUNKS - FEW_CHUNKS
    return CostRow(
        "chunk",
        round((many.calls - few.calls) / more),
        known.calls if known else None,
        round((many.coroutines - few.coroutines) / more),
        known.coroutines if known else None,
    )


def interpreter() -> str:
    """Describes the Python interpreter and whether its build was profile-guided."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    optimized = "--enable-optimizations" in options
    # Debian's Python is optimized, although its CONFIG_ARGS may not contain the option.
    made = "optimized" if optimized else "built without --enable-optimizations, as it says"
    return f"{platform.python_implementation()} {platform.python_version()}, {made}"


def print_costs(kinds: Iterable[str] = KINDS) -> None:
    """Measures these kinds of request, and prints a row for each beside its baseline."""
    baseline = load_baseline(sys.version_info[:2])
    with tempfile.TemporaryDirectory(prefix="swapproof-bench-") as folder:
        rows = {
            name: measured(name, KINDS[name], baseline.get(name), Path(folder) / name)
            for name in kinds
        }
    chunk = chunk_row(rows, baseline.get("chunk"))
    title = f"Cost of a request: {interpreter()}, {platform.machine()}"
    print_rows(title, [*rows.values(), *([chunk] if chunk else [])])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
    )
    print_costs(options.parse_args().kinds)


if __name__ == "__main__":
    main()
