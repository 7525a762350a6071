"""Simulates a candidate that is slow when its canary begins, by the router's ledger."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from harness.gate.online.evidence_paths import TIMES
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import ANSWERED
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.rollout import build_exposure_rule
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from router.recording.ledger import Ledger

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT: Final = CanaryPolicy()
# Of other measures nothing comes: that leaves them their part of the weight.
RULE: Final = replace(
    build_exposure_rule(DEFAULT, START),
    guardrails={name: DEFAULT.tolerated[name] for name in TIMES},
)
# Simulated beyond the time and the units of the warm-up: then a leak would show.
BEYOND_S = 420.0
BEYOND_UNITS = 120
MOST_CALLERS = 60_000


@dataclass(frozen=True)
class ColdStart:
    """A candidate that takes `times` as long for its first seconds; all requests stream."""

    per_s: float  # callers of the route
    weight_bps: int
    times: float
    cold_s: float  # from its first caller on; inf for one that stays slow

    @property
    def callers(self) -> int:
        canary_per_s = self.per_s * self.weight_bps / 10_000
        cold_s = self.cold_s if math.isfinite(self.cold_s) else 0.0
        lasts_s = max(cold_s, DEFAULT.warm_up_s, DEFAULT.cold_exposures / canary_per_s)
        beyond_s = max(BEYOND_S, BEYOND_UNITS / canary_per_s)
        return min(MOST_CALLERS, math.ceil((lasts_s + beyond_s) * self.per_s))


def rolled_back(start: ColdStart, seed: Sequence[int]) -> tuple[float, float]:
    blocks = [replace(b, number=n) for n, b in enumerate(record(start, seed), 1)]
    found = collect_evidence(blocks, DEFAULT)
    if found.block is None:
        return math.inf, math.inf
    took = blocks[found.block].closed_at - blocks[0].opened_at
    return float(found.exposures), took.total_seconds()


def record(start: ColdStart, seed: Sequence[int]) -> list[ObservationBlock]:
    rng = np.random.default_rng(seed)
    number = start.callers
    at_s = np.cumsum(rng.exponential(1.0 / start.per_s, number))
    canary = rng.random(number) < start.weight_bps / 10_000
    began = at_s[canary.argmax()]
    slow = np.where(canary & (at_s < began + start.cold_s), start.times, 1.0)
    first = rng.lognormal(-1.0, 0.5, number)
    between = rng.lognormal(-4.0, 0.3, number)
    first = first * slow
    between = between * slow
    total = first + between * rng.lognormal(5.0, 0.8, number)
    columns = (
        at_s.tolist(),
        canary.tolist(),
        total.tolist(),
        first.tolist(),
        between.tolist(),
    )
    ledger = Ledger("r", "w", RULE)
    blocks = []
    for key, (now, arm, *values) in enumerate(zip(*columns, strict=True)):
        at = START + timedelta(seconds=now)
        unit = ledger.admit(
            key,
            canary=arm,
            weight_bps=start.weight_bps,
            now=now,
            at=at,
            traits=RequestTraits.STREAMS.value,
        )
        assert unit is not None
        sample = GuardrailSample(SampleValues(*values))
        ledger.finish(unit, outcome=ANSWERED, sample=sample)
        blocks += ledger.tick(now, at)
    return blocks
