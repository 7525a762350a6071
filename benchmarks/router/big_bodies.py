"""What a prompt and an answer of a megabyte cost beside nginx: `python -m
benchmarks.router.big_bodies [--rounds 5]`; a minute. CPU time per request of the whole process
tree, in turns; goal: at most 3 times nginx's.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.router.machine import LOAD_CORE
from benchmarks.router.measure import Running, started
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Peer, Site
from benchmarks.router.processes import free_port, start, wait_for

BIG, SMALL = 1_000_000, 1_000
# Bytes of the prompt and of the answer.
KINDS: Final = {"prompt": (BIG, SMALL), "answer": (SMALL, BIG), "both small": (SMALL, SMALL)}
PEERS: Final = (swapgate.PEER, nginx.PEER)
WARM_UP: Final = 20


def prompt(size: int) -> bytes:
    words = "Why is the light on my router blue? " * (size // 36)
    return json.dumps(
        {"model": PLAIN, "messages": [{"role": "user", "content": words}]}
    ).encode()


def cpu_us(running: Running, body: bytes, requests: int) -> float:
    """CPU time of a contender per request, asked one after the other."""
    ask = running.asks[PLAIN]
    headers = {"content-type": "application/json", **ask.headers}
    client = http.client.HTTPConnection("127.0.0.1", running.ports[PLAIN], timeout=30)
    before = 0.0
    for number in range(-WARM_UP, requests):
        if number == 0:
            before = running.cpu_s()
        client.request("POST", ask.path, body, headers)
        answer = client.getresponse()
        if answer.status != 200:
            sys.exit(f"answered {answer.status}: {answer.read()[:200]!r}")
        answer.read()
    client.close()
    return (running.cpu_s() - before) / requests * 1e6


def measured(
    answer_bytes: int, body: bytes, rounds: int, requests: int
) -> dict[str, list[float]]:
    """CPU time per request in each round, by contender."""
    found: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        port = free_port()
        module = [sys.executable, "-m", "benchmarks.router.big_answers"]
        command = [*module, str(port), str(answer_bytes)]
        provider = start(command, stack, core=LOAD_CORE, log=Path(folder) / "provider.log")
        wait_for(port, provider, 30)
        contenders = {peer.name: _started(peer, Path(folder), port, stack) for peer in PEERS}
        for _ in range(rounds):
            for name, running in contenders.items():
                found[name].append(cpu_us(running, body, requests))
    return found


def _started(peer: Peer, folder: Path, port: int, stack: ExitStack) -> Running:
    site = Site(folder / peer.name, free_port(), {PLAIN: port, STREAMED: port})
    return started(peer, site, stack)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5, choices=range(1, 21))
    options.add_argument("--requests", type=int, default=400)
    chosen = options.parse_args()
    print(
        f"{'a megabyte':12}"
        + "".join(f"{peer.name + ' us':>14}" for peer in PEERS)
        + "   of nginx's"
    )
    for kind, (prompt_bytes, answer_bytes) in KINDS.items():
        found = measured(answer_bytes, prompt(prompt_bytes), chosen.rounds, chosen.requests)
        ours, theirs = (statistics.median(found[peer.name]) for peer in PEERS)
        if not theirs:  # The kernel counts a process's CPU time in steps of 10 ms.
            sys.exit("nginx took no CPU time that can be measured: ask for more --requests")
        print(f"{kind:12}{ours:14.0f}{theirs:14.0f}{ours / theirs:13.2f}")


if __name__ == "__main__":
    main()
