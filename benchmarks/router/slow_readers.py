"""What slow readers of big answers cost others: `python -m benchmarks.router.slow_readers`.

One router worker on a core of its own. Others ask for small answers, at a set rate, by turns
with and without ten clients beside them that read 1 KB a second of answers of 8 MiB. A ratio of
two p50s of one round compares what felt the same neighbours.
"""

import argparse
import asyncio
import math
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.router import load
from benchmarks.router.load import LoadJob
from benchmarks.router.machine import LOAD_CORE, PEER_CORE
from benchmarks.router.peers.peer import Ask
from benchmarks.router.processes import DidNotStart, free_port, start, wait_for
from benchmarks.router.worker import KEY

READERS: Final = 10
BYTES_PER_S: Final = 1024
SMALL_BYTES, BIG_BYTES = 300, 8 * 1024 * 1024
PER_S: Final = 50.0
HEADERS: Final = {"authorization": f"Bearer {KEY}"}
PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True)
class Round:
    """p50 of the others in ms, without and with slow readers; MiB that these took in memory.

    arriving: with readers that come just then, each with an answer that is still to be fetched.
    """

    alone_ms: float
    beside_ms: float
    arriving_ms: float
    grown_mib: float

    @property
    def ratio(self) -> float:
        return self.beside_ms / self.alone_ms

    @property
    def arriving_ratio(self) -> float:
        return self.arriving_ms / self.alone_ms


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, choices=range(1, 21))
    options.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        port, pid = router(Path(folder), stack)
        for stream in (False, True):
            rounds = [
                one(port, pid, chosen.seconds, stream=stream) for _ in range(chosen.rounds)
            ]
            show("streamed" if stream else "whole", rounds)


def router(folder: Path, stack: ExitStack) -> tuple[int, int]:
    small, big, port = free_port(), free_port(), free_port()
    for at, size in ((small, SMALL_BYTES), (big, BIG_BYTES)):
        command = [sys.executable, "-m", "benchmarks.router.big_answers", str(at), str(size)]
        wait_for(at, start(command, stack, core=LOAD_CORE, log=folder / f"{size}.log"), 30)
    module = [sys.executable, "-m", "benchmarks.router.worker", "pool", str(folder), str(port)]
    ports = [f"small={small}", f"big={big}"]
    process = start([*module, *ports], stack, core=PEER_CORE, log=folder / "router.log")
    wait_for(port, process, 120)
    return port, process.pid


def one(port: int, pid: int, seconds: float, *, stream: bool) -> Round:
    alone = p50_ms(port, seconds)
    before = psutil.Process(pid).memory_info().rss
    with slow_readers(port, stream=stream):
        arriving = p50_ms(port, seconds)
        beside = p50_ms(port, seconds)
        grown = psutil.Process(pid).memory_info().rss - before
    return Round(alone, beside, arriving, grown / 2**20)


def p50_ms(port: int, seconds: float) -> float:
    ask = Ask(model="small", headers=HEADERS)
    body = load.body(ask, stream=False)
    job = LoadJob(port, PATH, HEADERS, body, False, 8, seconds, PER_S)  # noqa: FBT003 - no stream
    outcome = asyncio.run(load.generated(job))
    return outcome.percentile_ms(0.5) if not outcome.errors else math.nan


@contextmanager
def slow_readers(port: int, *, stream: bool) -> Iterator[None]:
    """In a process of its own, which is ready before anything is measured beside it."""
    module = [sys.executable, "-m", "benchmarks.router.slow_readers_process", str(port)]
    command = ["taskset", "-c", str(LOAD_CORE), *module, "stream" if stream else "plain"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    pipes = process.stdin, process.stdout
    try:
        if pipes[0] is None or pipes[1] is None or not pipes[1].readline():
            raise DidNotStart("the slow readers did not connect")
        pipes[0].write(b"ask\n")
        pipes[0].flush()
        yield
    finally:
        process.kill()
        process.communicate()


def connect(port: int) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    return reader


def show(kind: str, rounds: list[Round]) -> None:
    print(f"{READERS} clients read {BYTES_PER_S} B/s of {kind} answers; others, p50:")
    for pair in rounds:
        print(
            f"  alone {pair.alone_ms:.2f} ms, while they come {pair.arriving_ms:.2f} ms "
            f"({pair.arriving_ratio:.2f} x), beside {pair.beside_ms:.2f} ms "
            f"({pair.ratio:.2f} x), {pair.grown_mib:.0f} MiB more"
        )
    ratio = statistics.median(pair.ratio for pair in rounds)
    arriving = statistics.median(pair.arriving_ratio for pair in rounds)
    print(f"  median: {ratio:.2f} x beside, {arriving:.2f} x while they come; goal: 2 x")


if __name__ == "__main__":
    main()
