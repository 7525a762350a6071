"""Does the adjusted rule err as often as it says, and does it need fewer items? Seeded, with a
known truth; the limits are those of statistics.md §4.
"""

import math
from pathlib import Path

import pytest

from harness.bench.gate_adjusted import RuleRow, measure_rules
from harness.bench.gate_benchmark import GateBenchmarkPlan
from harness.bench.score_matrix import ScoreKind, generate_scores, load_matrix
from harness.domain.evals.run import QUALITY_CLAIMS, Claim, GateRule

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
