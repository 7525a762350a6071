"""Planned analyses: what was known of the items before the candidate's first score is no
evidence, and a verdict carries all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.evals.pins import ServedPin
from harness.domain.evals.run import Sample
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, SuitePlan
from harness.domain.evals.verdict import Inconclusive, Verdict
from harness.gate.offline.adjusted import Covariates, judge_adjusted
from harness.gate.offline.design import Design
from harness.gate.offline.futility import FUTILE
from harness.gate.offline.replay import verdict_bytes
from harness.gate.offline.verdicts import replay_verdict
from harness.gate.planning.multiplicity import FUTILITY
from tests.unit.test_gate_verdicts import Sides, broken, plan, sides
from tests.unit.test_gate_verdicts import ask as ask_all

pytestmark = pytest.mark.req("F2", "A7")

SUPERIOR = Design(Claim.SUPERIOR, 0.05, 200)


def adjusted(n_max: int = 200, pool: int = 200) -> SuitePlan:
    return replace(plan(n_max=n_max), population=ClaimPopulation.THESE, pool=pool)


def ask(
    suite_plan: SuitePlan,
    found: Sides,
    stopped: Mapping[str, tuple[str, str]] | None = None,
) -> Verdict | None:
    return ask_all([suite_plan], {"math": found}, stopped)


def drawn(lift: float, seed: int = 1, pool: int = 200) -> Sides:
    rng = np.random.default_rng(seed)
    ability = rng.random(pool)
    ours = (rng.random(pool) < ability).astype(float)
    theirs = (rng.random(pool) < ability + lift).astype(float)
    return sides(list(ours), list(theirs))


def covariates(pool: int = 200, seed: int = 3) -> tuple[Covariates, Sequence[float]]:
    rng = np.random.default_rng(seed)
    hard = rng.random(pool)
    ours = (rng.random(pool) < hard).astype(float)
    theirs = (rng.random(pool) < hard + 0.1).astype(float)
    return Covariates(ours), list(theirs - ours)


def test_nothing_passes_before_the_incumbent_has_answered_its_pool() -> None:
    ours, theirs = drawn(0.4)

    assert ask(adjusted(), (ours[:199], theirs[:120])) is None


def worse_model(sample: Sample) -> Sample:
    return replace(sample, strict=0.0, lenient=0.0, served_model="m-2")


def other_judge(sample: Sample) -> Sample:
    return replace(sample, strict=0.0, lenient=0.0, judge_model="j-2")


@pytest.mark.parametrize("changed", [broken, worse_model, other_judge])
def test_a_pool_that_is_no_one_measurement_adjusts_nothing(
    changed: Callable[[Sample], Sample],
) -> None:
    """Items that the candidate is not asked are in no pair: nothing else looks at them."""
    ours, theirs = drawn(0.0, pool=500)
    ours = [replace(sample, served_model="m-1", judge_model="j-1") for sample in ours]
    pinned = replace(adjusted(pool=500), served_pin=ServedPin.MODEL)
    flawed = [changed(sample) if sample.position >= 200 else sample for sample in ours]
    verdict = ask(pinned, (flawed, theirs[:200]))

    assert isinstance(verdict, Inconclusive)
    assert verdict.suites[0].figures.explained == 0.0
    assert verdict.inputs["pool"] == {"math": []}
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)


@pytest.mark.req("F4")
def test_nobody_is_given_up_while_the_pool_is_awaited_or_before_a_quarter() -> None:
    known, _ = covariates()
    lost = [-1.0, 0.0, 0.0, 0.0, 0.0] * 20

    waiting = judge_adjusted(lost, SUPERIOR, known, may_promote=False, futility=FUTILITY)
    longer = replace(SUPERIOR, n_max=1_000)
    early = judge_adjusted(lost[:80], longer, None, futility=FUTILITY)

    assert waiting.how != FUTILE
    assert early.how != FUTILE
