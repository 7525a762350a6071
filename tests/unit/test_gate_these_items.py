"""A claim about these items counts what asking anew would change, where that is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.evals.run import Sample
from harness.domain.evals.suite_plan import (
    Claim,
    ClaimPopulation,
    SuitePlan,
    plan_from_json,
)
from harness.domain.evals.verdict import Passed, Verdict
from harness.domain.proposals.proposal import SuiteRuns
from harness.gate.arrays import Floats
from harness.gate.offline.adjusted import AnswerNoise, Covariates, judge_adjusted
from harness.gate.offline.design import Design
from harness.gate.offline.pairs import MOST_NOISE
from harness.gate.offline.recomputation import recompute_verdict
from harness.gate.offline.replay import verdict_bytes
from harness.gate.offline.sequential import ComparisonEvidence
from harness.gate.offline.verdicts import replay_verdict
from tests.unit.test_gate_combinations import AnsweredSuites, proposed
from tests.unit.test_gate_verdicts import Sides, ask, plan

pytestmark = pytest.mark.req("F2", "A7", "F5")

ITEMS = 200
LIKE = replace(plan(n_max=ITEMS), epochs=2)
THESE = replace(LIKE, population=ClaimPopulation.THESE, pool=ITEMS)


def asked_twice(lift: float, seed: int = 1, answers: int = 2, *, copied: bool = False) -> Sides:
    """Both sides' answers to items of their own chances; a copy has the length of the first."""
    rng = np.random.default_rng(seed)
    ability = rng.choice([0.02, 0.1, 0.5, 0.9, 0.98], ITEMS)

    def samples(run: str, chances: Floats) -> list[Sample]:
        return [
            Sample(
                run=run,
                item=f"q{position}",
                epoch=epoch,
                position=position,
                answer="",
                strict=score,
                lenient=score,
                input_tokens=1,
                output_tokens=40 if copied else 40 + epoch,
                cost_usd=None,
                duration_s=0.1,
            )
            for position, chance in enumerate(chances)
            for epoch, score in enumerate((rng.random(answers) < chance).astype(float), start=1)
        ]

    return samples("run_a", ability), samples("run_b", np.minimum(ability + lift, 1.0))


def decide(suite_plan: SuitePlan, found: Sides) -> Verdict:
    verdict = ask([suite_plan], {"math": found})
    assert verdict is not None
    return verdict


def judged(incumbent: float, candidate: float) -> ComparisonEvidence:
    rng = np.random.default_rng(3)
    hard = rng.random(ITEMS)
    ours = (rng.random(ITEMS) < hard).astype(float)
    theirs = (rng.random(ITEMS) < hard + 0.1).astype(float)
    noise = AnswerNoise(np.full(ITEMS, incumbent), np.full(ITEMS, candidate))
    known = Covariates(ours, noise)
    return judge_adjusted(list(theirs - ours), Design(Claim.SUPERIOR, 0.05, ITEMS), known)


def test_calm_answers_narrow_the_interval_and_noisy_ones_leave_it() -> None:
    loud, some, calm, silent = (judged(v, v) for v in (MOST_NOISE, 0.05, 0.03, 0.0))
    lows = [evidence.ci_low for evidence in (loud, some, calm)]

    assert lows == sorted(lows)  # type: ignore[type-var]
    assert len(set(lows)) == 3
    assert {loud.delta} == {some.delta, calm.delta, silent.delta}
    # Half of what the fit leaves counts, however calm both seem.
    assert silent.ci_low is not None
    assert silent.ci_low < silent.delta - 0.01


@pytest.mark.parametrize("noise", [math.nan, math.inf, 1.0])
def test_noise_that_is_not_known_gives_the_bound_of_items_like_these(noise: float) -> None:
    unknown, like = judged(noise, noise), judged(MOST_NOISE, MOST_NOISE)

    assert (unknown.ci_low, unknown.p_final) == (like.ci_low, like.p_final)


def test_the_verdict_says_which_items_it_is_about_and_is_decided_again() -> None:
    found = asked_twice(0.25)
    about_these, about_like = decide(THESE, found), decide(LIKE, found)

    assert isinstance(about_these, Passed)
    assert isinstance(about_like, Passed)
    assert "on these items, asked anew" in about_these.reason
    figures = about_these.suites[0].figures
    assert 0.0 < (figures.noise_incumbent or 0.0) < MOST_NOISE
    assert 0.0 < (figures.noise_candidate or 0.0) < MOST_NOISE
    for verdict in (about_these, about_like):
        assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)


def test_as_many_candidates_pass_these_items_as_pass_items_like_them() -> None:
    close = [asked_twice(0.06, seed) for seed in range(12)]
    passed = {
        name: sum(isinstance(decide(name, answers), Passed) for answers in close)
        for name in (LIKE, THESE)
    }

    assert passed[THESE] >= passed[LIKE] > 0


def test_answers_of_one_length_may_be_copies_and_prove_no_calm() -> None:
    figures = decide(THESE, asked_twice(0.09, 2, copied=True)).suites[0].figures

    assert figures.noise_incumbent == MOST_NOISE


def test_one_answer_says_nothing_of_noise() -> None:
    found = asked_twice(0.25, answers=1)
    once = decide(replace(THESE, epochs=1), found)

    assert "on items like these" in once.reason
    assert once.suites[0].figures.noise_incumbent is None
    assert verdict_bytes(replay_verdict(once)) == verdict_bytes(once)


@pytest.mark.parametrize("side", [0, 1])
def test_noise_that_was_written_smaller_is_found_out(side: int) -> None:
    found = {"math": asked_twice(0.25)}
    runs = {"math": SuiteRuns("run_a", "run_b")}
    registered = replace(proposed(AnsweredSuites((THESE,), found)), runs=runs)
    verdict = decide(THESE, found["math"])
    written = json.loads(json.dumps(verdict.inputs))
    written["variances"]["math"][side][0] += 0.01
    forged = replace(verdict, inputs=written)

    assert recompute_verdict(verdict, registered, found).agrees
    assert not recompute_verdict(forged, registered, found).agrees


def test_other_claims_store_no_noise() -> None:
    assert "population" not in LIKE.as_json()
    assert "variances" not in decide(LIKE, asked_twice(0.0)).inputs
    assert plan_from_json(THESE.as_json()) == THESE
