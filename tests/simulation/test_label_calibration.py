"""Do people's labels keep their level beside a biased judge, and do wrong rules break it?

Each limit is the promised rate plus three standard errors of the simulation.
"""

import pytest

from benchmarks.gate.label_cells import (
    JUDGES,
    draw_judge_wins,
    measure_false_verdicts,
    measure_wrong_rules,
    planned_draw,
)
from benchmarks.gate.labeller_cells import (
    LABELLERS,
    build_population,
    measure_labeller,
    null_share,
)
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F13")

RUNS = 400
MOST = 0.05 + 3.0 * (0.05 * 0.95 / RUNS) ** 0.5
MOST_OF_FEW = 0.05 + 3.0 * (0.05 * 0.95 / (RUNS // 4)) ** 0.5


def test_a_biased_judge_gives_no_more_wrong_verdicts_even_if_the_draw_follows_it() -> None:
    biased = next(judge for judge in JUDGES if judge.bias == 0.2)

    for draw in (planned_draw, draw_judge_wins):
        found = measure_false_verdicts(biased, RUNS, pairs=300, draw=draw)

        assert found.passed <= MOST
        assert found.failed <= MOST


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
