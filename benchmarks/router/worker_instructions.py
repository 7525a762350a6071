"""Counts a worker's machine instructions: `python -m benchmarks.router.worker_instructions`.

Valgrind's callgrind runs the worker of a real `serve router`; clients, providers and the
worker's parent run outside of it. Each kind of request has its own route in that worker. Only
the thread of the event loop counts. The count of FEW requests is subtracted from the count of
MANY, so that fixed costs cancel; the loop's work of each second is measured without requests,
and subtracted as well. Its clock runs on, so a quiet machine gives the best figures: on a busy
one they vary by a tenth. `instructions_per_request.toml` holds the budget.

`--shares` prints which parts of the router a request's time goes to instead, without valgrind.
"""

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import yaml

from benchmarks.print_rows import print_rows
from benchmarks.router import swapproof
from benchmarks.router.function_shares import print_shares
from benchmarks.router.processes import DidNotStart, free_port, start
from tests.support.router.costed_requests import (
    FEW_CHUNKS,
    KINDS,
    MANY_CHUNKS,
    PLAIN,
    CostedRequest,
)
from tests.support.router.counted_router import REQUEST, ThreadedProvider, read_message

OVER_BUDGET: Final = "a request costs more instructions than its budget: see the column `over`"
BUDGET: Final = Path(__file__).with_name("instructions_per_request.toml")
TOOLS: Final = ("valgrind", "callgrind_control")
LARGE_BYTES: Final = 1 << 20
LARGE: Final = b"What is the answer? " * (LARGE_BYTES // 19)
COUNTED: Final[Mapping[str, CostedRequest]] = {
    "plain": KINDS["plain"],
    "canary": KINDS["canary"],
    "stream": KINDS["stream"],
    "long_stream": KINDS["long_stream"],
    "large": PLAIN._replace(body=PLAIN.body.replace(b"my router", LARGE)),
}
WARM_UP: Final = 30
FEW: Final = 5
MANY: Final = 45
ROUNDS: Final = 3
IDLE_S: Final = 4.0
START_S: Final = 120.0
# The parent starts this instead of its Python, so that only the worker runs under valgrind.
# Valgrind slows the worker about 40 times, so it looks at its timers and reports that much less
# often: then as many requests as usual share each of these.
WRAPPER: Final = """#!/bin/sh
shift 2
exec valgrind --tool=callgrind --separate-threads=yes --instr-atstart=no \\
  --callgrind-out-file=%s/counted.%%p %s -c '
from router.frame import limits
from router.recording import reporter
limits.TICK_S *= 40
reporter.INTERVAL_S *= 40
reporter.METRICS_EVERY_S *= 40
from swapproof.__main__ import main
main()' "$@"
"""
PARENT: Final = """
import sys
sys.executable, *sys.argv[1:] = sys.argv[1:]
from swapproof.__main__ import main
main()
"""


@dataclass(frozen=True)
class InstructionRow:
    """Instructions of one request of a kind, or of a further chunk of a stream. budget: None
    for a kind without one. over: whether the budget is exceeded.
    """

    kind: str
    instructions: int
    budget: int | None
    over: bool


def load_budget() -> Mapping[str, int]:
    budget: Mapping[str, int] = tomllib.loads(BUDGET.read_text(encoding="utf-8"))[
        "instructions"
    ]
    return budget


def missing_tool() -> str | None:
    return next((tool for tool in TOOLS if shutil.which(tool) is None), None)


class CountedWorker:
    """A worker under callgrind, and one client's connection to it."""

    def __init__(self, pid: int, port: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._dumps = 0
        self._client = socket.create_connection(("127.0.0.1", port))
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._control("--instr=on")

    def close(self) -> None:
        self._client.close()

    def ask(self, kind: CostedRequest, body: bytes, provider: ThreadedProvider) -> None:
        head = REQUEST % (kind.path, swapproof.KEY, len(body))
        self._client.sendall(head.encode() + body)
        answer = read_message(self._client, provider.arrived)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the router answered {answer[:300]!r}; read {self._folder}/log")

    def counted(self, run: Callable[[], None]) -> tuple[int, float]:
        """Runs the callable. Returns the worker's instructions and the seconds meanwhile."""
        self._control("--zero")
        began = time.monotonic()
        run()
        seconds = time.monotonic() - began
        self._control("--dump")
        self._dumps += 1
        dump = self._folder / f"counted.{self._pid}.{self._dumps}-01"
        totals = next(
            line for line in dump.read_text().splitlines() if line.startswith("totals:")
        )
        return int(totals.split()[1]), seconds

    def _control(self, option: str) -> None:
        subprocess.run(  # noqa: S603 - our own command
            ["callgrind_control", option, str(self._pid)],  # noqa: S607
            check=True,
            capture_output=True,
            timeout=START_S,
        )


@contextmanager
def counted_worker(
    folder: Path, ports: dict[str, int], bps: dict[str, int]
) -> Iterator[CountedWorker]:
    """Starts a router whose only worker runs under callgrind.

    Args:
        ports: the provider's port of each route.
        bps: the canary's share of each route.

    Raises DidNotStart.
    """
    swapproof.seeded(folder, ports, bps).close()
    port = free_port()
    config = folder / "swapproof.yaml"
    router = {"port": port, "health_check_interval_s": 3600}
    settings = {"home": str(folder), "router": router}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    wrapper = folder / "counted-python"
    wrapper.write_text(WRAPPER % (folder, sys.executable))
    wrapper.chmod(0o700)
    words = [str(wrapper), "--config", str(config), "serve", "router", "--workers", "1"]
    command = [sys.executable, "-c", PARENT, *words]
    with ExitStack() as stack:
        env = {**swapproof.ENV, "PYTHONHASHSEED": "0"}
        parent = start(command, stack, log=folder / "log", env=env)
        worker = CountedWorker(_serving_pid(parent, folder / "log"), port, folder)
        stack.callback(worker.close)
        yield worker


def _serving_pid(parent: subprocess.Popen[bytes], log: Path) -> int:
    """Returns the worker's process id once it serves. Raises DidNotStart."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and parent.poll() is None:
        if b"worker_serves" in log.read_bytes():
            return int(psutil.Process(parent.pid).children()[0].pid)
        time.sleep(0.2)
    raise DidNotStart(f"no worker serves: {log.read_text()[-2000:]}")


def per_request(
    worker: CountedWorker,
    kind: CostedRequest,
    bodies: Iterator[bytes],
    provider: ThreadedProvider,
    idle_per_s: float,
) -> int:
    """Returns the instructions of one request: the median of the rounds."""

    def ask(requests: int) -> None:
        for _ in range(requests):
            worker.ask(kind, next(bodies), provider)

    many = MANY if len(kind.body) < LARGE_BYTES else 3 * FEW
    ask(WARM_UP if many == MANY else FEW)
    found = []
    for _ in range(ROUNDS):
        counts = []
        for requests in (FEW, many):
            instructions, seconds = worker.counted(partial(ask, requests))
            counts.append(instructions - idle_per_s * seconds)
        few_counted, many_counted = counts
        found.append((many_counted - few_counted) / (many - FEW))
    return round(statistics.median(found))


def measured(folder: Path, names: Iterable[str]) -> Mapping[str, int]:
    """Counts the instructions of each kind of request, and of a further chunk of a stream.
    Raises DidNotStart.
    """
    with ExitStack() as stack:
        kinds = {name: COUNTED[name] for name in names}
        providers = {name: ThreadedProvider(kind.packets) for name, kind in kinds.items()}
        for provider in providers.values():
            stack.callback(provider.close)
        ports = {name: provider.port for name, provider in providers.items()}
        bps = {name: kind.weight_bps for name, kind in kinds.items()}
        worker = stack.enter_context(counted_worker(folder, ports, bps))
        found = {}
        idle_per_s = 0.0
        for name, kind in kinds.items():
            route = f'"model":"{name}"'.encode()
            bodies = (body.replace(b'"model":"support"', route) for body in kind.bodies())
            if not idle_per_s:
                worker.ask(kind, next(bodies), providers[name])
                instructions, seconds = worker.counted(lambda: time.sleep(IDLE_S))
                idle_per_s = instructions / seconds
                found["idle_second"] = round(idle_per_s)
            found[name] = per_request(worker, kind, bodies, providers[name], idle_per_s)
    more = MANY_CHUNKS - FEW_CHUNKS
    if {"stream", "long_stream"} <= found.keys():
        found["chunk"] = round((found.pop("long_stream") - found["stream"]) / more)
    return found


def print_instructions(names: Iterable[str] = COUNTED) -> bool:
    """Measures, and prints a row for each kind. Returns whether all keep the budget; True if a
    tool is missing.
    """
    missing = missing_tool()
    if missing is not None:
        print(f"instructions of a worker: skipped, because {missing} is not on PATH")
        return True
    budget = load_budget()
    with tempfile.TemporaryDirectory(prefix="swapproof-instructions-") as folder:
        found = measured(Path(folder), names)
    rows = [
        InstructionRow(kind, count, budget.get(kind), count > budget.get(kind, count))
        for kind, count in found.items()
    ]
    print_rows("Instructions of a worker, in user mode", rows)
    return not any(row.over for row in rows)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kinds", nargs="+", choices=COUNTED, default=list(COUNTED))
    options.add_argument("--shares", choices=KINDS, help="print a kind's shares instead")
    chosen = options.parse_args()
    if chosen.shares:
        print_shares(KINDS[chosen.shares])
    elif not print_instructions(chosen.kinds):
        sys.exit(OVER_BUDGET)


if __name__ == "__main__":
    main()
