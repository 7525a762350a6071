"""CanaryBench measures rollback rules on simulated canaries: how many exposures harm takes to
be rolled back, and how often a healthy canary is rolled back. It measures the default policy,
compares the rule of errors alone with others, measures latency and all guardrails together, and
checks the results against the goals of statistics.md §4.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from benchmarks.canary.canary_rules import ALPHA, OURS, RULES, Rule
from harness.domain.canary.guardrails import Guardrails
from harness.domain.formatting import format_percent
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.canary import canary_days, default_canary, guarded_traffic
from tests.support.canary.guarded_traffic import (
    SimulatedHarm,
    Slowdown,
    Truth,
    simulate_traffic,
)

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
CARRIED: Final = "carried over days"
# Of small routes' harm, in which no rollback comes.
MOST_MISSED: Final = 0.1
MOST_FALSE: Final = 0.05
INCIDENT: Final = range(400, 420)
LATENCIES: Final = tuple(Slowdown(f, s) for s in (0.6, 0.5, 0.7) for f in (1.0, 1.2, 2.0))
LATENCY_CAP: Final = 600
# One exposure in each block of 100: 100,000 requests.
GUARDED_CAP: Final = 1000
TABLES: Final = ("default", "days", "errors", "latency", "guarded")
SEED: Final = 5
EVERYTHING: Final = CanaryPolicy(guardrails=replace(Guardrails(), judge=1.25))
HARMED_CAP: Final = 500
GUARDED: Final[Mapping[str, tuple[SimulatedHarm, range]]] = {
    "healthy": (SimulatedHarm(), range(0)),
    "healthy, incident": (SimulatedHarm(), INCIDENT),
    "1.25 × slower, as tolerated": (SimulatedHarm(slower=1.25), range(0)),
    "5 % errors": (SimulatedHarm(errors=0.05), range(0)),
    "20 % errors": (SimulatedHarm(errors=0.20), range(0)),
    "2 × slower": (SimulatedHarm(slower=2.0), range(0)),
    "2 × longer": (SimulatedHarm(longer=2.0), range(0)),
    "20 % bad JSON": (SimulatedHarm(bad_json=0.20), range(0)),
}
HEALTHY: Final = tuple(GUARDED)[:3]


@dataclass(frozen=True)
class CanaryBenchmarkPlan:
    """How often and on what the canary's rules are measured."""

    # Simulated per cell. With all guardrails a quarter, or a tenth when the canary is harmful;
    # of healthy latencies three times as many; of the default policy at 2 % errors, and
    # healthy, a quarter; of it at 20 % errors four times as many, whose median lies so near to
    # 12.5 that fewer draws name 12 or 13 by luck.
    rollouts: int = 400
    seed: int = SEED
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

    @property
    def never(self) -> float:
        return 1.0 - self.rolled_back


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
        "days": _lasting,
        "errors": _errors,
        "latency": _latencies,
        "guarded": _guarded,
    }
    lines = [line for table in plan.tables for line in measured[table](plan, progress)]
    return CanaryBenchmark(plan, tuple(lines), tuple(_goals(lines)))


def detect(
    rule: Rule,
    truth: Truth,
    *,
    cap: int,
    rollouts: int,
    seed: int = SEED,
    incident: Sequence[int] = (),
) -> list[float]:
    """Exposures to the rollback, inf for never, of each. A seed gives all rules one traffic."""
    found = []
    for index in range(rollouts):
        rng = np.random.default_rng([seed, index, round(truth.canary * 1000)])
        exposures = rule(simulate_traffic(truth, cap // truth.canaries, rng, incident))
        found.append(math.inf if exposures is None else float(exposures))
    return found


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


def _lasting(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    number = max(5, plan.rollouts // 2)
    for case, traffic in canary_days.CASES.items():
        progress(case)
        for rule, policy in ((CARRIED, canary_days.CARRIED),):
            found = [
                canary_days.exposures_to_rollback(traffic, policy, [plan.seed, index])
                for index in range(number)
            ]
            healthy = traffic.candidate == traffic.rate
            yield _line("days", rule, case, traffic.exposures, found, false=healthy)


def _errors(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    cases: list[tuple[str, Truth, int, Sequence[int]]] = [
        (_percent(rate), Truth(canary=rate), cap, ()) for rate, cap, _, _ in SICK
    ]
    cases += [("healthy", Truth(), HEALTHY_CAP, ())]
    cases += [("healthy, incident", Truth(), HEALTHY_CAP, tuple(INCIDENT))]
    for name, rule in RULES.items():
        progress(name)
        for case, truth, cap, incident in cases:
            found = detect(
                rule, truth, cap=cap, rollouts=plan.rollouts, seed=plan.seed, incident=incident
            )
            yield _line("errors", name, case, cap, found, false=truth == Truth())


def _latencies(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    progress("latency")
    for slow in LATENCIES:
        found = [
            guarded_traffic.exposures(
                slow,
                cap=LATENCY_CAP,
                alpha=ALPHA,
                seed=[plan.seed, index, int(slow.sigma * 10)],
            )
            for index in range(plan.rollouts * (3 if slow.factor == 1.0 else 1))
        ]
        case = f"× {slow.factor:g}, sd of logs {slow.sigma:g}"
        yield _line("latency", "ranks", case, LATENCY_CAP, found, false=slow.factor == 1.0)


def _guarded(
    plan: CanaryBenchmarkPlan, progress: Callable[[str], None]
) -> Iterator[CanaryBenchmarkRow]:
    for case, (harm, incident) in GUARDED.items():
        progress(f"all guardrails, {case}")
        healthy = case in HEALTHY
        cap = GUARDED_CAP if healthy else HARMED_CAP
        number = max(5, plan.rollouts // (4 if healthy else 10))
        found = [
            guarded(harm, cap=cap, seed=[plan.seed, index], incident=incident)
            for index in range(number)
        ]
        yield _line("guarded", "all guardrails", case, cap, found, false=healthy)


def guarded(
    harm: SimulatedHarm, *, cap: int, seed: Sequence[int], incident: range = range(0)
) -> float:
    """Exposures until the product's `collect_evidence` trips; inf for never within the cap."""
    rng = np.random.default_rng(seed)
    blocks = guarded_traffic.simulate_rollout(
        harm, EVERYTHING, blocks=cap, rng=rng, incident=incident
    )
    tripped = collect_evidence(blocks, EVERYTHING).block
    return math.inf if tripped is None else tripped + 1.0


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
    for rule, sick in ((DEFAULT, SICK_BY_DEFAULT), (OURS, SICK)):
        of_rule = {line.case: line for line in lines if line.rule == rule}
        for rate, _, median, p95 in sick if of_rule else ():
            line = of_rule[_percent(rate)]
            what = f"{rule}, {line.case}: exposures"
            yield Goal(f"{what}, median", _exposures(line.median), median)
            yield Goal(f"{what}, 95 %", _exposures(line.p95), p95)
    for line in lines:
        if line.rule == CARRIED and not line.false:
            yield Goal(f"{line.rule}, {line.case}: missed", line.never, MOST_MISSED)
        others = line.table == "errors" and line.rule != OURS
        if line.false and not others:
            yield Goal(
                f"{line.rule}, {line.case}: false rollbacks", line.rolled_back, MOST_FALSE
            )


def _exposures(found: int | None) -> float:
    return math.inf if found is None else float(found)


def _percent(rate: float) -> str:
    return f"{format_percent(rate)} errors"
