"""The router compiled by mypyc, beside the interpreted: `python benchmarks/router/compiled.py`.

Compiles the modules of `compiled_modules.txt` in a copy of this checkout, in some two minutes,
and compares CPU time per request by turns, beside nginx, as `cpu.py` does. Needs gcc and git.
Why no compiled router ships: docs/adr/0043-the-direct-path-is-not-compiled-either.md.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx

from benchmarks.router import compiled_build, cpu, measure, upstream
from benchmarks.router.machine import tree
from benchmarks.router.measure import WARM_S, Running
from benchmarks.router.peers import nginx, swapgate
from benchmarks.router.peers.peer import PLAIN, STREAMED, Peer, Site
from benchmarks.router.processes import free_port
from benchmarks.router.table import LIMIT

COMPILED: Final = "compiled"
INTERPRETED: Final = "interpreted"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=12, choices=range(1, 101), metavar="N")
    options.add_argument("--seconds", type=float, default=2.0, help="per turn")
    options.add_argument(
        "--folder",
        type=Path,
        help="where to build, and leave it; by default for this run alone",
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        copy = (chosen.folder or folder / COMPILED).resolve()
        print(f"{compiled_build.built(copy)} modules are compiled", flush=True)
        peers = {
            LIMIT: nginx.PEER,
            INTERPRETED: _from(compiled_build.ROOT),
            COMPILED: _from(copy),
        }
        running = _started(peers, folder / "sites", stack)
        found = _compared(running, chosen.rounds, chosen.seconds)
    print("\n".join(cpu.lines(found)))
    print(f"compiled takes {_saved(found):.1%} less than interpreted")


def _from(folder: Path) -> Peer:
    """Swapgate, with that folder's modules."""
    env = {**swapgate.ENV, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
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
    if any(compiled_build.LIBRARY in mapped for mapped in maps) != (name == COMPILED):
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
