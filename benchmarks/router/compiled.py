"""The router compiled by mypyc, beside the interpreted: `python benchmarks/router/compiled.py`.

Builds the compiled wheel, in some three minutes, and has it serve both, SWAPGATE_INTERPRETED=1
the second. Compares CPU time per request by turns, beside nginx, as `cpu.py` does.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx

from benchmarks.router import cpu, measure, upstream
from benchmarks.router.machine import tree
from benchmarks.router.measure import WARM_S, Running
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Peer, Site
from benchmarks.router.processes import free_port
from benchmarks.router.table import LIMIT

ROOT: Final = Path(__file__).resolve().parents[2]
LIBRARY: Final = "compiled__mypyc"
COMPILED: Final = "compiled"
INTERPRETED: Final = "interpreted"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=12, choices=range(1, 101), metavar="N")
    options.add_argument("--seconds", type=float, default=2.0, help="per turn")
    options.add_argument(
        "--wheel", type=Path, help="a compiled wheel; by default, one is built for this run"
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        unpacked = folder / "unpacked"
        shutil.unpack_archive(chosen.wheel or _built(folder / "wheel"), unpacked, "zip")
        peers = {
            LIMIT: nginx.PEER,
            INTERPRETED: peer_of(unpacked, interpreted="1"),
            COMPILED: peer_of(unpacked, interpreted="0"),
        }
        running = _started(peers, folder / "sites", stack)
        found = _compared(running, chosen.rounds, chosen.seconds)
    print("\n".join(cpu.lines(found)))
    print(f"compiled takes {_saved(found):.1%} less than interpreted")


def _built(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    env = {**os.environ, "SWAPGATE_COMPILE": "1"}
    subprocess.run(command, cwd=ROOT, env=env, check=True)  # noqa: S603 - our own wheel
    (wheel,) = folder.glob("*.whl")
    return wheel


def peer_of(folder: Path, *, interpreted: str) -> Peer:
    """Swapgate, with that folder's modules. interpreted: as of SWAPGATE_INTERPRETED."""
    path = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    env = {**swapgate.ENV, **path, "SWAPGATE_INTERPRETED": interpreted}
    return replace(swapgate.PEER, env=env)


def _started(peers: dict[str, Peer], folder: Path, stack: ExitStack) -> dict[str, Running]:
    folder.mkdir()
    plain, streamed, _ = upstream.serve(folder, stack)
    ports = {PLAIN: plain, STREAMED: streamed}
    running = {
        name: measure.started(peer, Site(folder / name, free_port(), ports), stack)
        for name, peer in peers.items()
    }
    for name in (INTERPRETED, COMPILED):
        _check(name, running[name])
    return running


def _check(name: str, running: Running) -> None:
    """Exits where a chat is not answered, or where it is not the modules that were meant."""
    ask = running.asks[PLAIN]
    answer = httpx.post(
        f"http://127.0.0.1:{running.ports[PLAIN]}{ask.path}",
        json={"model": ask.model, "messages": [{"role": "user", "content": "hi"}]},
        headers=dict(ask.headers),
        timeout=20,
    )
    if answer.status_code != httpx.codes.OK:
        sys.exit(f"{name}: a chat was answered with {answer.status_code}: {answer.text}")
    pids = [process.pid for process in tree(running.pid)] if running.pid else []
    maps = [Path(f"/proc/{pid}/maps").read_text(encoding="utf-8") for pid in pids]
    if any(LIBRARY in mapped for mapped in maps) != (name == COMPILED):
        sys.exit(f"{name}: the compiled library is loaded where it should not be, or is not")


def _compared(
    running: dict[str, Running], rounds: int, seconds: float
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in running}
    for process in running.values():
        cpu.cpu_us(process, WARM_S)
    for number in range(rounds):
        turns: Sequence[str] = list(running) if number % 2 else list(reversed(running))
        for name in turns:
            found[name].append(cpu.cpu_us(running[name], seconds))
    return found


def _saved(found: dict[str, list[float]]) -> float:
    """The share of CPU time: of the median of the rounds' ratios."""
    turns = zip(found[COMPILED], found[INTERPRETED], strict=True)
    return 1 - statistics.median(one / other for one, other in turns)


if __name__ == "__main__":
    main()
