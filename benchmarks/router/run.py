"""The router beside its peers, on loopback: `python benchmarks/router/run.py`.

One worker each, pinned to one core; load and provider share the other. Contenders take turns
within a round, so that a ratio compares what felt the same neighbours. Only ratios count.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.router import compiled, measure, table, upstream
from benchmarks.router.instructions import interpreter
from benchmarks.router.measure import Figures, Running
from benchmarks.router.peers import bare, envoy, litellm, nginx, portkey, swapgate, tensorzero
from benchmarks.router.peers.peer import PLAIN, STREAMED, Ask, NotHere, Peer, needs
from benchmarks.router.processes import DidNotStart

PEERS: Final[dict[str, Peer]] = {
    "nginx": nginx.PEER,
    "envoy": envoy.PEER,
    "swapgate": swapgate.PEER,
    "tensorzero": tensorzero.PEER,
    "portkey": portkey.PEER,
    "litellm": litellm.PEER,
    "litellm-rust": litellm.RUST,
}
# Not other gateways, but the same router, or none, on another upstream client.
CLIENTS: Final[dict[str, Peer]] = {
    "bare-pool": bare.POOL,
    "bare-pyreqwest": bare.PYREQWEST,
    "bare-protocol": bare.PROTOCOL,
}
COMPILED: Final = "Swapgate compiled"
TOOLS: Final = ("nginx", "wrk", "taskset")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3, choices=range(1, 21))
    options.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    options.add_argument("--peers", nargs="+", choices=PEERS | CLIENTS, default=list(PEERS))
    options.add_argument(
        "--wheel", type=Path, help="a compiled wheel (`make compiled-wheel`), measured as well"
    )
    chosen = options.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("this needs two cores: one for the contender, one for the load")
    try:
        for tool in TOOLS:
            needs(tool)()
    except NotHere as missing:
        print(f"skipped: {missing}")
        return
    peers = [each for name in chosen.peers if is_installed(each := (PEERS | CLIENTS)[name])]
    seconds = min(60.0, max(2.0, chosen.seconds))
    with tempfile.TemporaryDirectory(prefix="swapgate-bench-") as folder, ExitStack() as stack:
        if chosen.wheel is not None:
            unpacked = Path(folder, "wheel")
            shutil.unpack_archive(chosen.wheel, unpacked, "zip")
            own = compiled.peer_of(unpacked, interpreted="0")
            peers.append(replace(own, name=COMPILED))
        plain, streamed, pids = upstream.serve(Path(folder), stack)
        rounds = compared(
            peers,
            Path(folder),
            {PLAIN: plain, STREAMED: streamed},
            pids,
            chosen.rounds,
            seconds,
        )
    print(f"Swapgate and bare run on {interpreter()}")
    print("\n".join(table.lines(rounds)))


def is_installed(peer: Peer) -> bool:
    """Installed, or installed now."""
    try:
        peer.install()
    except NotHere as missing:
        print(f"{peer.name} is left out: {missing}")
        return False
    return True


def compared(
    peers: Sequence[Peer],
    folder: Path,
    upstreams: dict[str, int],
    pids: Sequence[int],
    rounds: int,
    seconds: float,
) -> dict[str, dict[int, Figures]]:
    found: dict[str, dict[int, Figures]] = {table.DIRECT: {}}
    for number in range(1, rounds + 1):
        found[table.DIRECT][number] = direct(folder, upstreams, pids, seconds)
        for peer in peers:
            if peer.slow and number > 1:
                continue
            print(f"round {number} of {rounds}: {peer.name}", file=sys.stderr)
            place = folder / f"{peer.name}-{number}"
            try:
                own = measure.contender(peer, place, upstreams, pids, seconds)
            except DidNotStart as error:
                print(f"{peer.name} is left out of round {number}: {error}")
                continue
            found.setdefault(peer.name, {})[number] = own
    return found


def direct(
    folder: Path, upstreams: dict[str, int], pids: Sequence[int], seconds: float
) -> Figures:
    """The provider without anything before it."""
    asks = {kind: Ask(model=kind) for kind in upstreams}
    return measure.figures(Running(upstreams, asks, None, folder), pids, seconds)


if __name__ == "__main__":
    main()
