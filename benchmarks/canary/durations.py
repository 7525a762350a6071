"""How often the estimate of a canary's time is right within a factor of 1.5:
`python -m benchmarks.canary.durations [--canaries 16] [--scene NAME] [--seed 7]`.

Each scene has healthy canaries on a route with a known truth. "plan" is the time until the
promotion, estimated before the canary; "explain" is the time until the next step, at a random
moment of each step. Ends with 3 if less than 90 % of either are right over all scenes.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from benchmarks.print_rows import print_rows
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.canary.timed_canaries import (
    DAY_S,
    EstimateErrors,
    RouteScene,
    judge_estimates,
)

MISSED: Final = 3
LEAST_RIGHT: Final = 0.9
# The policy of `make demo`.
DEMO: Final = CanaryPolicy(
    p0=0.05,
    window_s=10.0,
    bake_s=0.0,
    steps=(CanaryStep(100, 30), CanaryStep(500, 60), CanaryStep(2500, 150, certify=True)),
)
SMALL: Final = CanaryPolicy(
    p0=0.05, steps=(CanaryStep(1000, 40), CanaryStep(2500, 100, certify=True))
)
PEAK: Final = replace(
    SMALL, steps=tuple(replace(step, min_peak_s=3_600.0) for step in SMALL.steps)
)
FEW: Final = CanaryPolicy(steps=(CanaryStep(2500, 30), CanaryStep(5000, 60)))
HALF: Final = CanaryPolicy(steps=(CanaryStep(5000, 100, certify=True),))
SHORT: Final = replace(
    SMALL, steps=(CanaryStep(2500, 100, certify=True, deadline_s=3 * DAY_S),)
)
SLOW: Final = CanaryPolicy(steps=(CanaryStep(100, 100, deadline_s=2 * DAY_S),))
DAY: Final = RouteScene(SMALL, 20_000, 3_000, night=0.1)
RETURNING: Final = RouteScene(SMALL, 1_500, 5_000, turns=1.5, start_h=12.0)
SCENES: Final = {
    "demo: 50 requests a second for 3 minutes": RouteScene(
        DEMO,
        400_000,
        50 * DAY_S,
        turns=1.0,
        history_s=180.0,
        day_sd=0.0,
        tick_s=1.0,
        total_timeout_s=10.0,
    ),
    "shorter than two warm-ups": RouteScene(
        SMALL, 200_000, 1.5 * DAY_S, turns=2.0, history_s=3_600.0, tick_s=10.0
    ),
    "by day": DAY,
    "by night": replace(DAY, start_h=1.0),
    "evening, through the night": replace(DAY, visits_per_day=1_500, start_h=19.0),
    "peak hours, begun at night": replace(
        DAY, policy=PEAK, visits_per_day=6_000, night=0.2, start_h=3.0
    ),
    "60 callers": RouteScene(FEW, 60, 100, night=0.5, tick_s=60.0),
    "callers return all day": RETURNING,
    "callers return, through the night": replace(RETURNING, night=0.1, start_h=20.0),
    "3 routers": replace(RETURNING, routers=3),
    "first two hours of a route": RouteScene(
        SMALL, 3_000, 4_000, history_s=7_200.0, start_h=10.0
    ),
    "2 % of requests fail": RouteScene(
        HALF, 60_000, 20_000, failure_rate=0.02, history_s=DAY_S, total_timeout_s=20.0
    ),
    "never certified": replace(
        RETURNING, policy=SHORT, callers=300, visits_per_day=2_000, tick_s=120.0
    ),
    "too slow": RouteScene(SLOW, 2_500, 2_500, turns=4.0, tick_s=300.0, history_s=DAY_S),
}


@dataclass(frozen=True)
class EstimateRow:
    """One row of the printed table. plan, explain: shares of right estimates."""

    scene: str
    canaries: int
    plan: float
    looks: int
    explain: float


def build_row(scene: str, found: EstimateErrors) -> EstimateRow:
    return EstimateRow(
        scene,
        len(found.plans),
        float(np.mean(found.plans)),
        len(found.looks),
        float(np.mean(found.looks)),
    )


def measure(scene: str, canaries: int, seed: int) -> EstimateErrors:
    found = judge_estimates(SCENES[scene], canaries, seed)
    print(build_row(scene, found), file=sys.stderr, flush=True)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--canaries", type=int, default=16, help="per scene")
    options.add_argument("--scene", choices=SCENES, action="append", help="default: all")
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    scenes = chosen.scene or list(SCENES)
    judge = partial(measure, canaries=chosen.canaries, seed=chosen.seed)
    with ProcessPoolExecutor(2) as processes:
        found = list(processes.map(judge, scenes))
    whole = EstimateErrors(
        [right for errors in found for right in errors.plans],
        [right for errors in found for right in errors.looks],
    )
    rows = [build_row(scene, errors) for scene, errors in zip(scenes, found, strict=True)]
    total = build_row("all", whole)
    print_rows("shares of estimates within a factor of 1.5", [*rows, total])
    return 0 if min(total.plan, total.explain) >= LEAST_RIGHT else MISSED


if __name__ == "__main__":
    sys.exit(main())
