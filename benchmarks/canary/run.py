"""How soon the canary detects harm, and how often it rolls back a healthy candidate:
`python -m benchmarks.canary.run [--rollouts 400] [--table default] [--seed 5]`.

Simulates traffic with a known truth: a canary at 1 % beside an incumbent with 1 % errors, under
the default policy and by errors alone. Ends with 3 when the canary misses a goal of
docs/explanation/benchmarks.md.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from typing import Final

import numpy as np

from benchmarks.print_rows import print_rows
from harness.frame.formatting import format_bps, format_percent
from tests.support.canary import default_canary
from tests.support.canary.cold_starts import ColdStart, rolled_back
from tests.support.canary.guarded_traffic import SimulatedHarm, Truth

MISSED: Final = 3
# By the canary's failure rate: after this many exposures, a rollout counts as never rolled
# back.
CAPS: Final = {
    0.02: 6000,
    0.05: 1500,
    0.20: 1000,
    1.00: 1000,
}
# By table and failure rate, the limits of statistics.md §4 for the median and the 95th
# percentile of the exposures. The default policy shares alpha among all guardrails, both
# streams of errors and several days.
GOALS: Final[Mapping[str, Mapping[float, tuple[int, int]]]] = {
    "healthy": {},
    "default": {
        0.02: (1450, 4400),
        0.05: (130, 400),
        0.20: (15, 42),
        1.00: (3, 4),
    },
    "errors": {
        0.02: (1050, 3200),
        0.05: (95, 310),
        0.20: (10, 34),
        1.00: (2, 3),
    },
    "cold": {},
}
SCENES: Final[Mapping[str, default_canary.SceneMaker]] = {
    "healthy": default_canary.steady,
    "healthy, incident": default_canary.incident,
    "healthy, drift": default_canary.drift,
    "healthy, days and nights": default_canary.days,
    "healthy, uneven callers": default_canary.uneven,
}
HEALTHY_CAP: Final = 1000
MOST_FALSE: Final = 0.05


@dataclass(frozen=True)
class CanaryBenchmarkRow:
    """One row of the printed tables. median, p95: exposures to the rollback; None above `cap`.
    rolled_back: share of the rollouts.
    """

    table: str
    case: str
    cap: int
    rollouts: int
    median: int | None
    p95: int | None
    rolled_back: float
    false: bool  # the candidate is healthy, so a rollback is an error


@dataclass(frozen=True)
class Goal:
    """A measured figure and its limit, from statistics.md §4 or from the policy's guarantee."""

    what: str
    found: float
    limit: float


def measured(
    table: str,
    rollouts: int,
    seed: int,
) -> list[CanaryBenchmarkRow]:
    tables = {
        "cold": cold_starts,
        "default": by_default,
        "errors": by_errors,
        "healthy": by_scene,
    }
    return [*tables[table](rollouts, seed)]


def by_errors(rollouts: int, seed: int) -> Iterator[CanaryBenchmarkRow]:
    """Measures canaries whose only guardrail counts errors."""
    cells: list[tuple[str, int, Truth, Sequence[int]]] = [
        (
            _percent(rate),
            cap,
            Truth(canary=rate),
            (),
        )
        for rate, cap in CAPS.items()
    ]
    cells.append(("healthy", HEALTHY_CAP, Truth(), ()))
    cells.append(("healthy, incident", HEALTHY_CAP, Truth(), range(400, 420)))
    for case, cap, truth, incident in cells:
        found = default_canary.detect_errors(
            truth,
            cap=cap,
            rollouts=rollouts,
            seed=seed,
            incident=incident,
        )
        yield row("errors", case, cap, found, false=truth == Truth())


def by_default(rollouts: int, seed: int) -> Iterator[CanaryBenchmarkRow]:
    """Measures harmful candidates under the default policy.

    At 2 % errors, a rollout is slow, so a quarter of the rollouts run. At 20 % errors, four
    times as many run, because the median is close to 12.5 and would be 12 or 13 by luck.
    """
    fewer = max(5, rollouts // 4)
    for rate, cap in CAPS.items():
        harm = SimulatedHarm(errors=rate)
        number = {0.02: fewer, 0.2: 4 * rollouts}.get(rate)
        seeds = ([seed, index] for index in range(number or rollouts))
        found = [default_canary.exposures(harm, cap=cap, seed=one) for one in seeds]
        yield row("default", _percent(rate), cap, found, false=False)


def by_scene(rollouts: int, seed: int) -> Iterator[CanaryBenchmarkRow]:
    """Measures healthy candidates under the default policy, in a quarter of the rollouts."""
    for case, scene in SCENES.items():
        seeds = ([seed, index] for index in range(max(5, rollouts // 4)))
        harmed = [
            default_canary.is_rolled_back(
                SimulatedHarm(),
                scene,
                exposures=HEALTHY_CAP,
                seed=one,
            )
            for one in seeds
        ]
        found = [1.0 if one else math.inf for one in harmed]
        yield row("healthy", case, HEALTHY_CAP, found, false=True)


def cold_starts(rollouts: int, seed: int) -> Iterator[CanaryBenchmarkRow]:
    """Measures candidates that are slow at first, and candidates that stay slow (`inf s`)."""
    rollouts = max(1, rollouts // 40)
    cells = product(
        (100, 500, 2500),
        (0.1, 2.0, 20.0),
        (2.0, 3.0),
        (30.0, 600.0, math.inf),
    )
    for bps, per_s, times, cold_s in cells:
        start = ColdStart(per_s, bps, times, cold_s)
        case = f"{times:g} × slower for {cold_s:g} s, {per_s:g} callers/s at {format_bps(bps)}"
        # A candidate that stays slow needs the most exposures, but few rollouts for a median.
        number = rollouts if math.isfinite(cold_s) else max(1, rollouts // 2)
        found = [rolled_back(start, [seed, index])[0] for index in range(number)]
        yield row("cold", case, HEALTHY_CAP, found, false=math.isfinite(cold_s))


def row(
    table: str,
    case: str,
    cap: int,
    found: Sequence[float],
    *,
    false: bool,
) -> CanaryBenchmarkRow:
    """found: exposures to the rollback, inf for never."""
    print(f"{table}, {case}", file=sys.stderr)
    median = float(np.quantile(found, 0.5, method="higher"))
    p95 = float(np.quantile(found, 0.95, method="higher"))
    return CanaryBenchmarkRow(
        table=table,
        case=case,
        cap=cap,
        rollouts=len(found),
        median=int(median) if math.isfinite(median) else None,
        p95=int(p95) if math.isfinite(p95) else None,
        rolled_back=float(np.isfinite(found).mean()),
        false=false,
    )


def goals(rows: Sequence[CanaryBenchmarkRow]) -> Iterator[Goal]:
    cases = {_percent(rate): rate for rate in CAPS}
    for one in rows:
        what = f"{one.table}, {one.case}"
        if one.false:
            yield Goal(f"{what}: false rollbacks", one.rolled_back, MOST_FALSE)
        elif one.case in cases:
            median, p95 = GOALS[one.table][cases[one.case]]
            yield Goal(f"{what}: exposures, median", one.median or math.inf, median)
            yield Goal(f"{what}: exposures, 95 %", one.p95 or math.inf, p95)


def _percent(rate: float) -> str:
    return f"{format_percent(rate)} errors"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--rollouts",
        type=int,
        default=400,
        help="per row",
    )
    options.add_argument(
        "--table",
        choices=GOALS,
        action="append",
        help="default: all",
    )
    options.add_argument("--seed", type=int, default=5)
    chosen = options.parse_args()
    tables = chosen.table or list(GOALS)
    measure = partial(measured, rollouts=chosen.rollouts, seed=chosen.seed)
    with ProcessPoolExecutor(2) as processes:
        rows = list(chain.from_iterable(processes.map(measure, tables)))
    print_rows("exposures to the rollback", rows)
    found = [*goals(rows)]
    missed = [goal for goal in found if not goal.found <= goal.limit]
    print_rows("goals", found)
    print_rows("MISSED", missed)
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
