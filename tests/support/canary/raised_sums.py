"""Simulates candidates whose dearest or slowest requests raise the sum, through the product's
own ranks, bets and evidence. One guardrail has data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from harness.gate.online.capped_sums import (
    CAP_TIMES,
    CappedExposure,
    CappedTotals,
    bet_on_sums,
)
from harness.gate.online.guardrails import Guardrail, MeasuredExposure, rank_block
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy

# All guardrails share alpha; one alone has data, from the first unit on.
POLICY: Final = replace(CanaryPolicy(), warm_up_s=0.0, warm_up_units=0)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SIZE: Final = 100
COST: Final = Guardrail.COST_PER_SUCCESS
TIME: Final = Guardrail.LATENCY


@dataclass(frozen=True)
class Sum:
    """A candidate whose values are `often` times the incumbent's, and `rarely` times for the
    share `rare`. sigma: of the incumbent's log-normal values, whose mean is 1. cap: in means.
    """

    guardrail: Guardrail = COST
    rare: float = 0.0
    rarely: float = 1.0
    often: float = 1.0
    sigma: float = 0.8
    share: float = 0.25
    cap: float = CAP_TIMES
    failing: float = 0.0  # of the candidate
    control_failing: float = 0.0


def exposures(
    case: Sum,
    most: int,
    seed: Sequence[int],
) -> float:
    """Counts exposures until the rollback; inf for never within `most`."""
    rng = np.random.default_rng(seed)
    canaries = round(SIZE * case.share)
    blocks = [_block(case, number, rng) for number in range(math.ceil(most / canaries))]
    found = collect_evidence(blocks, POLICY)
    return math.inf if found.block is None else float(found.exposures)


def _block(
    case: Sum,
    number: int,
    rng: np.random.Generator,
) -> ObservationBlock:
    canaries = round(SIZE * case.share)
    values = rng.lognormal(-(case.sigma**2) / 2.0, case.sigma, SIZE)
    rare = rng.random(SIZE) < case.rare
    values[:canaries] *= np.where(rare, case.rarely, case.often)[:canaries]
    arms = np.arange(SIZE) < canaries
    failed = rng.random(SIZE) < np.where(arms, case.failing, case.control_failing)
    values[failed] = math.inf
    name = ("r", "w", number)
    tolerated = POLICY.tolerated[case.guardrail]
    ranked = rank_block(
        [MeasuredExposure(place < canaries, _finite(x)) for place, x in enumerate(values)],
        guardrail=case.guardrail,
        tolerated=tolerated,
        block=name,
    )
    sums = np.where(failed, case.cap / CAP_TIMES, values)
    units = [CappedExposure(place < canaries, float(x)) for place, x in enumerate(sums)]
    bets = bet_on_sums(
        units,
        guardrail=case.guardrail,
        tolerated=tolerated,
        cap=case.cap,
        block=name,
    )
    return ObservationBlock(
        rollout="r",
        worker="w",
        sequence=number,
        weight_bps=round(case.share * 10_000),
        units=SIZE,
        canary_units=canaries,
        failures=0,
        canary_failures=0,
        missing=0,
        opened_at=START + timedelta(minutes=number),
        closed_at=START + timedelta(minutes=number + 1),
        number=number + 1,
        ranks={case.guardrail: ranked.u},
        bets={case.guardrail: bets},
        capped={case.guardrail: CappedTotals.from_exposures(units, case.cap)},
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# With the most exposures that the median may have.
HARM: Final[Mapping[str, tuple[Sum, int]]] = {
    "eight times the cost for a fifth, else less": (
        Sum(rare=0.2, rarely=8.0, often=0.7),
        1000,
    ),
    "twelve times the cost for a tenth, else less": (
        Sum(rare=0.1, rarely=12.0, often=0.9),
        1800,
    ),
    "twice the cost for all": (Sum(often=2.0), 900),
    "ten times the time for a tenth": (Sum(TIME, rare=0.1, rarely=10.0), 900),
    "twenty times the time for a twentieth": (
        Sum(TIME, rare=0.05, rarely=20.0),
        1300,
    ),
}

# In each of these, the candidate's capped mean is as high as tolerated, or lower.
TOLERATED: Final[Mapping[str, Sum]] = {
    "each value at the limit": Sum(often=1.5),
    "a tenth raises the mean to the limit": Sum(rare=0.1, rarely=6.0, often=1.0),
    "values of a heavy tail at the limit": Sum(often=1.5, sigma=1.6),
    "times at the limit": Sum(TIME, rare=0.05, rarely=6.0),
    "a cap below the mean": Sum(often=1.5, cap=0.5),
    "a tenth of both arms fails": Sum(failing=0.1, control_failing=0.1),
    "the candidate fails where the incumbent does not": Sum(TIME, failing=0.05),
    "most callers have the candidate": Sum(often=1.5, share=0.75),
}
