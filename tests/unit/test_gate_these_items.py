import json
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.evals.run import Sample
from harness.domain.evals.suite_plan import ClaimPopulation, SuitePlan
from harness.domain.evals.verdict import Verdict
from harness.domain.proposals.proposal import SuiteRuns
from harness.gate.arrays import Floats
from harness.gate.offline.noise import MOST_NOISE
from harness.gate.offline.recomputation import recompute_verdict
from tests.support.store.records import PLAIN_SAMPLE
from tests.unit.test_gate_combinations import AnsweredSuites, proposed
from tests.unit.test_gate_verdicts import Sides, ask, plan

pytestmark = pytest.mark.req("F2", "A7", "F5")

ITEMS = 200
LIKE = replace(plan(n_max=ITEMS), epochs=2)
THESE = replace(LIKE, population=ClaimPopulation.THESE, suite_items=ITEMS)


def asked_twice(lift: float, seed: int = 1, answers: int = 2, *, copied: bool = False) -> Sides:
    """Both sides' answers to items of their own chances; a copy has the length of the first."""
    rng = np.random.default_rng(seed)
    ability = rng.choice([0.02, 0.1, 0.5, 0.9, 0.98], ITEMS)

    def samples(run: str, chances: Floats) -> list[Sample]:
        return [
            replace(
                PLAIN_SAMPLE,
                run=run,
                item=f"q{position}",
                epoch=epoch,
                position=position,
                strict=score,
                lenient=score,
                output_tokens=40 if copied else 40 + epoch,
            )
            for position, chance in enumerate(chances)
            for epoch, score in enumerate((rng.random(answers) < chance).astype(float), start=1)
        ]

    return samples("run_a", ability), samples("run_b", np.minimum(ability + lift, 1.0))


def decide(suite_plan: SuitePlan, found: Sides) -> Verdict:
    verdict = ask([suite_plan], {"math": found})
    assert verdict is not None
    return verdict


def test_answers_of_one_length_may_be_copies_and_prove_no_calm() -> None:
    figures = decide(THESE, asked_twice(0.09, 2, copied=True)).suites[0].figures

    assert figures.noise_incumbent == MOST_NOISE


@pytest.mark.parametrize("side", [0, 1])
def test_noise_that_was_written_smaller_is_found_out(side: int) -> None:
    found = {"math": asked_twice(0.25)}
    runs = {"math": SuiteRuns("run_a", "run_b")}
    registered = replace(proposed(AnsweredSuites((THESE,), found)), runs=runs)
    verdict = decide(THESE, found["math"])
    written = json.loads(json.dumps(verdict.inputs))
    written["variances"]["math"][0][side] += 0.01
    forged = replace(verdict, inputs=written)

    assert recompute_verdict(verdict, registered, found).agrees
    assert not recompute_verdict(forged, registered, found).agrees
