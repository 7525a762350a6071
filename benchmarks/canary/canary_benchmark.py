"""CanaryBench measures on simulated canaries how many exposures harm takes to be rolled back,
and how often a healthy canary is rolled back: under the default policy, and by errors alone. It
checks the results against the goals of statistics.md §4.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.domain.formatting import format_percent
from tests.support.canary import default_canary
from tests.support.canary.detection import INCIDENT, detect_errors
from tests.support.canary.guarded_traffic import SimulatedHarm, Truth

# Canary failure rate; exposures after which a run counts as "never"; statistics.md §4: the most
# at the median, and at 95 %.
SICK: Final = (
    (0.02, 6000, 1050, 3200),
    (0.05, 1500, 95, 310),
    (0.20, 1000, 10, 34),
    (1.00, 1000, 2, 3),
)
# The same, of the default policy, which has eleven guardrails and several days to share alpha.
SICK_BY_DEFAULT: Final = (
    (0.02, 6000, 1050, 3200),
    (0.05, 1500, 110, 310),
    (0.20, 1000, 12, 34),
    (1.00, 1000, 2, 3),
)
SCENES: Final[Mapping[str, default_canary.SceneMaker]] = {
    "healthy": default_canary.steady,
    "healthy, incident": default_canary.incident,
    "healthy, drift": default_canary.drift,
    "healthy, days and nights": default_canary.days,
    "healthy, uneven callers": default_canary.uneven,
}
HEALTHY_CAP: Final = 1000
DEFAULT: Final = "default policy"
ERRORS: Final = "errors alone"
MOST_FALSE: Final = 0.05
TABLES: Final = ("default", "errors")


@dataclass(frozen=True)
class CanaryBenchmarkPlan:
    """How often and on what the canary's rules are measured."""

    # Simulated per cell. Of the default policy at 2 % errors, and healthy, a quarter; of it at
    # 20 % errors four times as many, whose median lies so near to 12.5 that fewer draws name 12
    # or 13 by luck.
    rollouts: int = 400
    seed: int = 5
    tables: Sequence[str] = TABLES


@dataclass(frozen=True)
class CanaryBenchmarkRow:
    """Holds one cell of the benchmark. median, p95: canary units to the rollback, None for more
    than the cap.

    rolled_back, never: shares of the rollouts.
    """

    table: str
    rule: str
    case: str
    cap: int
    rollouts: int
    median: int | None
    p95: int | None
    rolled_back: float
    false: bool  # a rollback would be one


@dataclass(frozen=True)
class Goal:
    """Compares a figure of our rule with the limit of statistics.md §4 or of the guarantee."""

    what: str
    found: float
    limit: float

    @property
    def reached(self) -> bool:
        return self.found <= self.limit


@dataclass(frozen=True)
class CanaryBenchmark:
    plan: CanaryBenchmarkPlan
    lines: tuple[CanaryBenchmarkRow, ...]
    goals: tuple[Goal, ...]


def run_canary_benchmark(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None] = lambda _: None
) -> CanaryBenchmark:
    measured = {
        "default": _defaults,
        "errors": _errors,
    }
    lines = [line for table in plan.tables for line in measured[table](plan, progress)]
    return CanaryBenchmark(plan, tuple(lines), tuple(_goals(lines)))


def _defaults(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    fewer = max(5, plan.rollouts // 4)
    for rate, cap, _, _ in SICK_BY_DEFAULT:
        progress(f"default policy, {_percent(rate)}")
        number = {0.02: fewer, 0.2: 4 * plan.rollouts}.get(rate, plan.rollouts)
        found = [
            default_canary.exposures(
                SimulatedHarm(errors=rate), cap=cap, seed=[plan.seed, index]
            )
            for index in range(number)
        ]
        yield _line("default", DEFAULT, _percent(rate), cap, found, false=False)
    for case, make_scene in SCENES.items():
        progress(f"default policy, {case}")
        found = [
            1.0
            if default_canary.is_rolled_back(
                SimulatedHarm(), make_scene, exposures=HEALTHY_CAP, seed=[plan.seed, index]
            )
            else math.inf
            for index in range(fewer)
        ]
        yield _line("default", DEFAULT, case, HEALTHY_CAP, found, false=True)


def _errors(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    cases: list[tuple[str, Truth, int, Sequence[int]]] = [
        (_percent(rate), Truth(canary=rate), cap, ()) for rate, cap, _, _ in SICK
    ]
    cases += [("healthy", Truth(), HEALTHY_CAP, ())]
    cases += [("healthy, incident", Truth(), HEALTHY_CAP, tuple(INCIDENT))]
    for case, truth, cap, incident in cases:
        progress(f"{ERRORS}, {case}")
        found = detect_errors(
            truth, cap=cap, rollouts=plan.rollouts, seed=plan.seed, incident=incident
        )
        yield _line("errors", ERRORS, case, cap, found, false=truth == Truth())


def _line(
    table: str, rule: str, case: str, cap: int, found: Sequence[float], *, false: bool
) -> CanaryBenchmarkRow:
    exposures = np.array(found)
    return CanaryBenchmarkRow(
        table=table,
        rule=rule,
        case=case,
        cap=cap,
        rollouts=len(found),
        median=_at(exposures, 0.5),
        p95=_at(exposures, 0.95),
        rolled_back=float(np.isfinite(exposures).mean()),
        false=false,
    )


def _at(exposures: np.ndarray, share: float) -> int | None:
    value = float(np.quantile(exposures, share, method="higher"))
    return int(value) if math.isfinite(value) else None


def _goals(lines: Sequence[CanaryBenchmarkRow]) -> Iterator[Goal]:
    for rule, sick in ((DEFAULT, SICK_BY_DEFAULT), (ERRORS, SICK)):
        of_rule = {line.case: line for line in lines if line.rule == rule}
        for rate, _, median, p95 in sick if of_rule else ():
            line = of_rule[_percent(rate)]
            what = f"{rule}, {line.case}: exposures"
            yield Goal(f"{what}, median", _exposures(line.median), median)
            yield Goal(f"{what}, 95 %", _exposures(line.p95), p95)
    for line in lines:
        if line.false:
            what = f"{line.rule}, {line.case}: false rollbacks"
            yield Goal(what, line.rolled_back, MOST_FALSE)


def _exposures(found: int | None) -> float:
    return math.inf if found is None else float(found)


def _percent(rate: float) -> str:
    return f"{format_percent(rate)} errors"
