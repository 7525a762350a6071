"""Whether a key keeps its model: `python -m benchmarks.figures.stickiness [--keys 1000000]`.

A control plane takes one canary from its first weight to its promotion, through the bake, to
the end. At each weight, new worker processes read the routing table from the database, as
routers do after a restart, and choose the arm of every key. A key is reassigned where two
workers disagree, or where it goes back from the candidate to the old model.
"""

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.figures.arm_worker import ROUTE, BoolArray, choose_all
from benchmarks.figures.record import RunResult, record_run
from harness.control.routing import routes
from harness.domain.canary.unit_rule import ExposureUnit
from harness.domain.proposals.policy import CanaryPolicy, CanaryStep
from harness.domain.routing.table import Route
from tests.support.control.control_plane import POLICY, SECRET, SmallInstallation

WORKERS: Final = 4
STEPS: Final = (
    CanaryStep(100, 3),
    CanaryStep(500, 5),
    CanaryStep(2500, 10),
    CanaryStep(5000, 10, certify=True),
)
CANARY: Final = CanaryPolicy(
    steps=STEPS, unit=ExposureUnit.REQUEST, p0=0.2, alpha=0.05, bake_s=20.0, bake_bps=1000
)
TURNS: Final = 400


def weights(route: Route) -> tuple[int, int, str]:
    """What decides where a key goes: both weights in bps, and the incumbent."""
    canary, holdback = route.canary, route.holdback
    return (
        canary.weight_bps if canary else 0,
        holdback.weight_bps if holdback else 0,
        route.incumbent,
    )


class Assignments:
    """Counts keys that workers disagree on, and keys that go back to the old model."""

    def __init__(self, database: Path, keys: int, candidate: str) -> None:
        self._choose = partial(choose_all, database, SECRET, keys, candidate)
        self._before: BoolArray = np.zeros(keys, dtype=np.bool_)
        self.failures = 0
        self.shares: list[float] = []

    def compare(self) -> None:
        # Without fork, each has a hash seed of its own, as after a restart.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(WORKERS, mp_context=spawn) as pool:
            first, *others = pool.map(self._choose, range(WORKERS))
        moved = self._before & ~first
        for other in others:
            moved |= first != other
        self.failures += int(moved.sum())
        self.shares.append(float(first.mean()))
        self._before = first


def run(keys: int, folder: Path) -> RunResult:
    world = SmallInstallation(folder, policy=replace(POLICY, canary=CANARY))
    world.set_up()
    proposal = world.propose("sim/better")
    assignments = Assignments(folder / "world.db", keys, proposal.candidate)
    known = None
    for _ in range(TURNS):
        world.run_once()
        world.feed()
        now = weights(routes.load_table(world.context()).routes[ROUTE])
        if now != known:
            assignments.compare()
            known = now
        if now == (0, 0, proposal.candidate):
            break
    faults = [] if assignments.shares[-1:] == [1.0] else ["the canary was not promoted"]
    shares = ", ".join(f"{share:.2%}".replace("%", " %") for share in assignments.shares)
    return RunResult(
        keys,
        assignments.failures + len(faults),
        f"{WORKERS} new workers at each of {len(assignments.shares)} weights, through a "
        f"promotion and its bake; share of the keys on the candidate: {shares}.",
        faults,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=1_000_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-keys-") as folder:
        return record_run("stickiness", lambda: run(chosen.keys, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
