"""Faults 1 to 15 through Swapgate, LiteLLM and Portkey: `python -m benchmarks.faults.run`.

The official `openai` client, its own retries off and on; every gateway has a fallback that is
healthy. `--quick` is Swapgate alone in two minutes.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults import table
from benchmarks.faults.catalogue import Row, rows
from benchmarks.faults.client import RequestResult
from benchmarks.faults.figures import Figures, figures, p99
from benchmarks.faults.gateways import fallback_chain, litellm, portkey, swapgate
from benchmarks.faults.load import Door, played
from benchmarks.faults.routes import RETRIES, SPARE, routes
from benchmarks.faults.upstreams import Upstreams
from benchmarks.router.machine import Busy, cpu_s
from benchmarks.router.peers.peer import NotHere, Peer, Site
from benchmarks.router.processes import DidNotStart, free_port, start, wait_for

GATEWAYS: Final = {
    "swapgate": swapgate.PEER,
    "litellm": litellm.PEER,
    "portkey": portkey.PEER,
}
HUGE: Final = 12


@dataclass(frozen=True)
class Pace:
    """rate: requests a second; slow_rate: of gateways that complete only a dozen."""

    rate: float = 20.0
    slow_rate: float = 5.0
    seconds: float = 8.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gateways", nargs="+", choices=GATEWAYS, default=list(GATEWAYS))
    options.add_argument("--quick", action="store_true", help="Swapgate alone, 2 s a fault")
    options.add_argument("--rate", type=float, default=Pace.rate)
    options.add_argument("--slow-rate", type=float, default=Pace.slow_rate)
    options.add_argument("--seconds", type=float, default=Pace.seconds, help="per fault")
    options.add_argument("--out", type=Path, help="a folder for faults.md and faults.json")
    chosen = options.parse_args()
    pace = Pace(chosen.rate, chosen.slow_rate, 2.0 if chosen.quick else chosen.seconds)
    names = ["swapgate"] if chosen.quick else chosen.gateways
    with tempfile.TemporaryDirectory(prefix="swapgate-faults-") as folder, Busy() as busy:
        found, direct_s, own_s = compared(names, Path(folder), pace)
    others = busy.others(own_s)
    text = [*table.lines(found, direct_s), "", f"others had {others:.0%} of the machine"]
    print("\n".join(text))
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "faults.md").write_text("\n".join(text) + "\n", encoding="utf-8")
        told = table.document(found, direct_p99_s=direct_s, others=others)
        (chosen.out / "faults.json").write_text(told, encoding="utf-8")


def compared(
    names: Sequence[str], folder: Path, pace: Pace
) -> tuple[list[Figures], float, float]:
    """Figures, p99 of the provider alone, and the CPU seconds that all of it took."""
    found: list[Figures] = []
    with ExitStack() as stack:
        upstreams = Upstreams.started(folder, stack)
        upstreams.break_(routes(rows()))
        direct_s = p99(answer.latency_s for answer in asyncio.run(direct(upstreams, pace)))
        used_s = 0.0
        for name in names:
            peer = GATEWAYS[name]
            try:
                peer.install()
                with ExitStack() as own:
                    door, pid = opened(peer, folder, upstreams, own)
                    found += asyncio.run(tried(peer, door, upstreams, pace))
                    used_s += cpu_s(pid)
            except (NotHere, DidNotStart) as missing:
                print(f"{peer.name} is left out: {missing}")
        used_s += sum(cpu_s(pid) for pid in upstreams.pids)
    return found, direct_s, used_s + time.process_time()


async def direct(upstreams: Upstreams, pace: Pace) -> list[RequestResult]:
    """The healthy row without any gateway."""
    port = upstreams.ports[fallback_chain.SPARE]
    door = Door(port, lambda _: {}, nobody, lambda route: f"{SPARE}.{route}")
    return await played(rows()[0], door, retries=0, rate=pace.rate, seconds=pace.seconds)


async def nobody() -> set[str]:
    return set()


def opened(
    peer: Peer, folder: Path, upstreams: Upstreams, stack: ExitStack
) -> tuple[Door, int]:
    """The gateway as a process, and its pid. Raises DidNotStart."""
    site = Site(folder / peer.name, free_port(), upstreams.ports)
    site.folder.mkdir()
    log = site.folder / "log"
    process = start(peer.command(site), stack, log=log, env=peer.env)
    wait_for(site.port, process, peer.start_s)
    door = Door(
        site.port,
        lambda route: peer.ask(site, route).headers,
        lambda: asyncio.to_thread(upstreams.left),
    )
    return door, process.pid


async def tried(peer: Peer, door: Door, upstreams: Upstreams, pace: Pace) -> list[Figures]:
    """Every row with either client, one after the other."""
    found = []
    rate = pace.slow_rate if peer.slow else pace.rate
    # The huge answers last: not every gateway gets over them.
    for row in sorted(rows(), key=lambda row: row.number == HUGE):
        for retries in RETRIES:
            print(f"{peer.name}: {row.number} {row.title}", file=sys.stderr)
            found.append(await one(peer, row, retries, door, upstreams, rate, pace.seconds))
    return found


async def one(
    peer: Peer,
    row: Row,
    retries: int,
    door: Door,
    upstreams: Upstreams,
    rate: float,
    seconds: float,
) -> Figures:
    asked = await played(row, door, retries=retries, rate=rate, seconds=seconds)
    calls = await asyncio.to_thread(upstreams.calls)
    return figures(peer.name, row, retries, asked, calls)


if __name__ == "__main__":
    main()
