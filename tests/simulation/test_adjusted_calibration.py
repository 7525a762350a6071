"""Does the adjusted rule err as often as it says, and does it need fewer items? Seeded, with a
known truth; the limits are those of statistics.md §4.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from harness.bench.gate_adjusted import POOL, RuleRow, measure_rules
from harness.bench.gate_benchmark import FIVE, GateBenchmarkPlan, theta0_of, tilt_weights
from harness.bench.score_matrix import ScoreKind, close_pairs, generate_scores, load_matrix
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim, GateRule
from harness.gate.offline.adjusted import Covariates, judge_adjusted_batch
from harness.gate.offline.design import Design
from harness.gate.planning.multiplicity import FUTILITY

pytestmark = pytest.mark.req("F2")

BINARY = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_binary.csv"


def _by_rule(rows: list[RuleRow]) -> dict[GateRule, RuleRow]:
    return {row.rule: row for row in rows}


def test_the_adjusted_rule_needs_fewer_items_and_sees_more() -> None:
    plan = GateBenchmarkPlan(replications=250, power=100, pairs=2)
    rows = _by_rule(list(measure_rules(load_matrix(BINARY), Claim.SUPERIOR, 200, plan)))
    paired, adjusted = rows[GateRule.PAIRED], rows[GateRule.ADJUSTED]

    assert adjusted.false_mean <= 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / 500)
    assert adjusted.five >= paired.five
    assert adjusted.items_ten < 0.8 * paired.items_ten


@pytest.mark.verify
@pytest.mark.parametrize("n", [80, 200, 500])
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
@pytest.mark.parametrize("kind", list(ScoreKind))
def test_the_level_holds_on_every_kind_of_scores(kind: ScoreKind, claim: Claim, n: int) -> None:
    plan = GateBenchmarkPlan(replications=2000, power=200)
    rows = _by_rule(list(measure_rules(generate_scores(kind, 303), claim, n, plan)))
    adjusted = rows[GateRule.ADJUSTED]

    assert adjusted.false_mean <= 0.055
    assert adjusted.worst <= 0.065 + 3.0 * math.sqrt(0.065 * 0.935 / 2000)


@pytest.mark.req("F4")
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
def test_of_several_the_hopeless_are_given_up_and_the_good_are_not(claim: Claim) -> None:
    (pair,) = close_pairs(load_matrix(BINARY), 1)
    design = Design(claim, 0.05, 200, 0.05 / 3)
    shares, items = {}, {}
    for lift in (0.0, FIVE):
        rng = np.random.default_rng([11, round(lift * 1000)])
        weights = tilt_weights(pair.d, theta0_of(claim) + lift)
        drawn = rng.choice(len(pair.d), size=(250, POOL), p=weights)
        known = Covariates(pair.a[drawn], np.zeros(drawn.shape))
        for futility in (0.0, FUTILITY):
            found = judge_adjusted_batch(
                pair.d[drawn[:, :200]], design, known, futility=futility
            )
            shares[lift, futility] = float(found.promoted.mean())
            items[lift, futility] = float(found.n_used.mean())

    assert shares[0.0, FUTILITY] <= 0.05 / 3 + 3.0 * math.sqrt(0.05 / 3 / 250)
    assert shares[FIVE, FUTILITY] >= shares[FIVE, 0.0] - 0.02
    assert items[0.0, FUTILITY] < 0.7 * items[0.0, 0.0]
