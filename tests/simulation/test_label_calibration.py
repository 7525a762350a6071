"""Do people's labels keep their level beside a biased judge, and do wrong rules break it?

Each limit is the promised rate plus three standard errors of the simulation.
"""

import pytest

from benchmarks.gate.drawn_cells import MARGIN, measure_candidate
from benchmarks.gate.label_cells import (
    JUDGES,
    measure_false_verdicts,
    measure_wrong_rules,
)
from benchmarks.gate.labeller_cells import (
    LABELLERS,
    build_dispute,
    build_population,
    label_truly,
    measure_labeller,
    null_share,
)
from harness.gate.offline.label_plan import TIE
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F13")

RUNS = 400
MOST = 0.05 + 3.0 * (0.05 * 0.95 / RUNS) ** 0.5
MOST_OF_FEW = 0.05 + 3.0 * (0.05 * 0.95 / (RUNS // 4)) ** 0.5


def test_a_biased_judge_gives_no_more_wrong_verdicts() -> None:
    biased = next(judge for judge in JUDGES if judge.bias == 0.2)

    found = measure_false_verdicts(biased, RUNS, pairs=300)

    assert found.passed <= MOST
    assert found.failed <= MOST


@pytest.mark.parametrize("callers", [60, 200, 500])
def test_few_drawn_callers_pass_no_candidate_that_is_worse_for_the_traffic(
    callers: int,
) -> None:
    null = measure_candidate(callers, TIE - MARGIN, RUNS)
    equal = measure_candidate(callers, TIE, RUNS)

    assert null.passed <= MOST
    assert equal.passed >= {60: 0.35, 200: 0.75, 500: 0.9}[callers]


def test_two_people_who_disagree_decide_about_the_mean_of_both() -> None:
    claim = Claim.SUPERIOR
    few = build_dispute(null_share(claim), pairs=60)

    found = measure_labeller("opposite", label_truly, few, claim, RUNS)

    assert max(found.passed, found.failed) <= MOST


def test_each_wrong_rule_breaks_the_level() -> None:
    rows = [*measure_wrong_rules(200)]

    assert len({row.rule for row in rows}) == 4
    assert min(row.worst for row in rows) > 0.055


def test_skipped_pairs_give_no_more_wrong_verdicts() -> None:
    claim = Claim.NON_INFERIOR
    population = build_population(null_share(claim), pairs=40)
    for name, labeller in LABELLERS[1:]:
        found = measure_labeller(name, labeller, population, claim, RUNS // 4)

        assert max(found.passed, found.failed, found.harm) <= MOST_OF_FEW
