"""How soon the canary detects harm, and how often it rolls back a healthy candidate:
`python -m benchmarks.canary.run [--rollouts 400] [--table default] [--seed 5]`.

Simulates traffic with a known truth: a canary at 1 % beside an incumbent with 1 % errors, under
the default policy and by errors alone. `cells` and `value_cells` have the tables that expose
a wrong rule. Ends with 3 when the canary misses a goal of
docs/explanation/benchmarks.md.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, product
from typing import Final

from benchmarks.canary.cells import CELL_TABLES
from benchmarks.canary.rows import BenchmarkCell, Limits, cell, share_cell
from benchmarks.canary.value_cells import VALUE_TABLES
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
# By table and failure rate, the goals for the median and the 95th percentile of the exposures.
# The default policy shares alpha among two streams of errors, the other guardrails and several
# days.
GOALS: Final[Mapping[str, Mapping[float, tuple[int, int]]]] = {
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
}
# The most exposures after an incident of both arms that the median may have, of harm of 5 %.
AFTER_INCIDENT: Final = 150
SCENES: Final[Mapping[str, default_canary.SceneMaker]] = {
    "healthy": default_canary.steady,
    "healthy, incident": default_canary.incident,
    "healthy, drift": default_canary.drift,
    "healthy, days and nights": default_canary.days,
    "healthy, uneven callers": default_canary.uneven,
}
HEALTHY_CAP: Final = 1000
FALSE: Final = Limits(most=0.05)  # of the rollbacks of healthy candidates


def measured(
    table: str,
    rollouts: int,
    seed: int,
) -> list[BenchmarkCell]:
    return [*TABLES[table](rollouts, seed)]


def by_errors(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures canaries whose only guardrail counts errors."""
    cells: list[tuple[str, int, Truth, Sequence[int], Limits]] = [
        (
            _percent(rate),
            cap,
            Truth(canary=rate),
            (),
            _limits("errors", rate),
        )
        for rate, cap in CAPS.items()
    ]
    cells.append(("healthy", HEALTHY_CAP, Truth(), (), FALSE))
    cells.append(("healthy, incident", HEALTHY_CAP, Truth(), range(400, 420), FALSE))
    for case, cap, truth, incident, limits in cells:
        found = default_canary.detect_errors(
            truth,
            cap=cap,
            rollouts=rollouts,
            seed=seed,
            incident=incident,
        )
        yield cell("errors", case, cap, found, limits)


def by_default(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures candidates that fail in first requests only, under the default policy.

    At 2 % errors, a rollout is slow, so a quarter of the rollouts run. At 20 % errors, four
    times as many run, because the median is close to 12.5 and would be 12 or 13 by luck.
    """
    fewer = max(5, rollouts // 4)
    for rate, cap in CAPS.items():
        harm = SimulatedHarm(errors=rate)
        number = {0.02: fewer, 0.2: 4 * rollouts}.get(rate)
        seeds = ([seed, index] for index in range(number or rollouts))
        found = [default_canary.exposures(harm, cap=cap, seed=one) for one in seeds]
        yield cell("default", _percent(rate), cap, found, _limits("default", rate))


def by_scene(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
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
        yield cell("healthy", case, HEALTHY_CAP, found, FALSE)
    ramped = [
        default_canary.is_promoted([seed, index]) for index in range(max(5, rollouts // 20))
    ]
    yield share_cell("healthy", "healthy, passes all steps", 0, ramped, Limits(least=0.95))


def cold_starts(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
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
        limits = FALSE if math.isfinite(cold_s) else Limits()
        yield cell("cold", case, HEALTHY_CAP, found, limits)


def _limits(table: str, rate: float) -> Limits:
    median, p95 = GOALS[table][rate]
    return Limits(median=median, p95=p95)


def _percent(rate: float) -> str:
    return f"{format_percent(rate)} errors"


TABLES: Final[Mapping[str, Callable[[int, int], Iterator[BenchmarkCell]]]] = {
    "healthy": by_scene,
    "default": by_default,
    "errors": by_errors,
    "cold": cold_starts,
    **CELL_TABLES,
    **VALUE_TABLES,
}


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
        choices=TABLES,
        action="append",
        help="default: all",
    )
    options.add_argument("--seed", type=int, default=5)
    chosen = options.parse_args()
    tables = chosen.table or list(TABLES)
    measure = partial(measured, rollouts=chosen.rollouts, seed=chosen.seed)
    with ProcessPoolExecutor(2) as processes:
        cells = list(chain.from_iterable(processes.map(measure, tables)))
    print_rows("exposures to the rollback, and shares", [one.row for one in cells])
    goals = [goal for one in cells for goal in one.goals]
    missed = [goal for goal in goals if goal.is_missed]
    print_rows("goals", goals)
    print_rows("MISSED", missed)
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
