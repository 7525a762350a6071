"""How soon a candidate is rolled back whose dearest or slowest requests raise the sum, and how
seldom one whose mean is just tolerated (statistics.md §2.20). Seeded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pytest

from harness.gate.arrays import Floats
from harness.gate.online.capped_sums import (
    CAP_TIMES,
    CappedTotals,
    CappedUnit,
    bet_on_sums,
)
from harness.gate.online.guardrails import Guardrail, MeasuredUnit, rank_block
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from tests.simulation.test_canary_calibration import upto
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")
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
    failing: float = 0.0  # of both arms


def exposures(
    case: Sum,
    most: int,
    seed: list[int],
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
    values[rng.random(SIZE) < case.failing] = math.inf
    name = ("r", "w", number)
    tolerated = POLICY.tolerated[case.guardrail]
    ranked = rank_block(
        [MeasuredUnit(place < canaries, _finite(x)) for place, x in enumerate(values)],
        guardrail=case.guardrail,
        tolerated=tolerated,
        block=name,
    )
    units = [CappedUnit(place < canaries, float(x)) for place, x in enumerate(values)]
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
        capped={case.guardrail: CappedTotals.from_units(units, case.cap)},
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# With the most exposures that the median may have.
HARM: Final = {
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


@pytest.mark.parametrize(
    ("case", "rollouts"),
    [*((case, 9) for case in HARM), *(later(case, 100) for case in HARM)],
)
def test_a_sum_that_few_requests_raise_is_found(case: str, rollouts: int) -> None:
    harm, most = HARM[case]
    found = [exposures(harm, round(1.5 * most), [131, n]) for n in range(rollouts)]

    assert np.quantile(found, 0.5, method="higher") <= most


# In each of these, the candidate's capped mean is as high as tolerated, or lower.
TOLERATED: Final = {
    "each value at the limit": Sum(often=1.5),
    "a tenth raises the mean to the limit": Sum(rare=0.1, rarely=6.0, often=1.0),
    "values of a heavy tail at the limit": Sum(often=1.5, sigma=1.6),
    "times at the limit": Sum(TIME, rare=0.05, rarely=6.0),
    "a cap below the mean": Sum(often=1.5, cap=0.5),
    "a tenth of both arms fails": Sum(often=1.0, failing=0.1),
    "most callers have the candidate": Sum(often=1.5, share=0.75),
}


@pytest.mark.parametrize(
    ("case", "rollouts"),
    [
        ("each value at the limit", 12),
        ("a tenth raises the mean to the limit", 12),
        *(later(case, 200) for case in TOLERATED),
    ],
)
def test_a_sum_at_the_limit_is_not_rolled_back(case: str, rollouts: int) -> None:
    found = [exposures(TOLERATED[case], 2500, [137, n]) for n in range(rollouts)]

    assert sum(map(math.isfinite, found)) <= upto(0.05, rollouts)


def test_a_bet_is_fair_where_the_mean_is_just_tolerated() -> None:
    """The mean of the bets is at most 0, so each stake's factor has at most the mean 1."""
    rng = np.random.default_rng(139)

    def mean_bet(draw: Callable[[int], Floats]) -> float:
        bets: list[float] = []
        for number in range(400):
            units = [CappedUnit(True, 1.5 * float(x)) for x in draw(25)]  # noqa: FBT003 - an arm
            units += [CappedUnit(False, float(x)) for x in draw(75)]  # noqa: FBT003 - an arm
            name = ("r", "w", number)
            bets += bet_on_sums(units, guardrail=COST, tolerated=1.5, cap=20.0, block=name)
        return float(np.mean(bets))

    assert mean_bet(lambda n: rng.lognormal(-0.32, 0.8, n)) == pytest.approx(0.0, abs=0.001)
