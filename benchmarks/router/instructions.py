"""What one request costs the router: `python -m benchmarks.router.instructions`; ten seconds.

Python calls and coroutines, which are the same on every machine, and instructions in user mode
where the processor's counters can be read; elsewhere CPU time, which varies with the
neighbours. The router runs in a thread of its own, as a worker of `serve router` does.
"""

import argparse
import ctypes
import os
import platform
import statistics
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.router.costed_requests import KINDS, CostedRequest, meter_of
from tests.support.router.counted_router import RequestCost, RouterMeter

# perf_event_open(2), on 64-bit Linux.
_CALL_NUMBERS: Final = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _SOFTWARE = 0, 1
_INSTRUCTIONS, _TASK_CLOCK = 1, 1
_ATTRIBUTES_BYTES: Final = 128
_USER_MODE_ALONE: Final = 1 << 5 | 1 << 6  # exclude_kernel, exclude_hv
WARM_UP, ROUND, ROUNDS = 300, 100, 7


class NoCounter(Exception):
    """This machine has no such counter, or does not let us read it."""


class ThreadCounter(NamedTuple):
    """Counts what the thread that opened it does. unit: what it counts."""

    file: int
    unit: str
    scale: float  # what one count is of the unit

    def read(self) -> float:
        return float(struct.unpack("q", os.read(self.file, 8))[0]) * self.scale


def open_counter() -> ThreadCounter:
    """Opens the calling thread's counter of instructions, or else of CPU time."""
    try:
        return ThreadCounter(_opened(_HARDWARE, _INSTRUCTIONS), "instructions", 1.0)
    except NoCounter:
        return ThreadCounter(_opened(_SOFTWARE, _TASK_CLOCK), "us of CPU", 1e-3)


def _opened(kind: int, event: int) -> int:
    number = _CALL_NUMBERS.get(platform.machine())
    if number is None or sys.platform != "linux":
        raise NoCounter("only Linux on x86_64 and aarch64")
    # type, size, config, sample period, sample type, read format, flags
    flags = _USER_MODE_ALONE if kind == _HARDWARE else 0
    fields = struct.pack("IIQQQQQ", kind, _ATTRIBUTES_BYTES, event, 0, 0, 0, flags)
    attributes = ctypes.create_string_buffer(fields, _ATTRIBUTES_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    this_thread, any_core, no_group = 0, -1, -1
    file = libc.syscall(number, attributes, this_thread, any_core, no_group, 0)
    if file < 0:
        raise NoCounter(os.strerror(ctypes.get_errno()))
    return int(file)


@contextmanager
def _counter_of(meter: RouterMeter) -> Iterator[ThreadCounter]:
    found: list[ThreadCounter | NoCounter] = []

    def note() -> None:
        try:
            found.append(open_counter())
        except NoCounter as error:
            found.append(error)

    meter.in_loop(note)
    counter = found[0]
    if isinstance(counter, NoCounter):
        raise counter
    try:
        yield counter
    finally:
        os.close(counter.file)


class Row(NamedTuple):
    name: str
    cost: RequestCost
    amount: float  # of the counter's unit
    unit: str


def measured(name: str, kind: CostedRequest, folder: Path) -> Row:
    """The median over several rounds, counted before the calls are: counting them costs."""
    with meter_of(kind, folder) as meter:
        bodies = kind.bodies()
        for _ in range(WARM_UP):
            meter.ask(kind.path, next(bodies))
        amounts = []
        with _counter_of(meter) as counter:
            for _ in range(ROUNDS):
                before = counter.read()
                for _ in range(ROUND):
                    meter.ask(kind.path, next(bodies))
                amounts.append((counter.read() - before) / ROUND)
        return Row(
            name, meter.cost(kind.path, bodies), statistics.median(amounts), counter.unit
        )


def interpreter() -> str:
    """Which Python, and whether it was built with optimizations that cost a training run."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    optimized = "--enable-optimizations" in options
    # Debian's is, and says nothing of it.
    made = "optimized" if optimized else "built without --enable-optimizations, as it says"
    return f"{platform.python_implementation()} {platform.python_version()}, {made}"


def lines(rows: list[Row]) -> list[str]:
    unit = rows[0].unit
    table = [f"{'':14}{'calls':>8}{'coroutines':>12}{unit:>16}"]
    table += [
        f"{row.name:14}{row.cost.calls:8}{row.cost.coroutines:12}{row.amount:16,.0f}"
        for row in rows
    ]
    return table


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = options.parse_args()
    print(f"{interpreter()}, {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder:
        rows = [measured(name, KINDS[name], Path(folder) / name) for name in chosen.kinds]
    if rows[0].unit != "instructions":
        print("This machine's processor counters cannot be read: CPU time stands in for them.")
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()
