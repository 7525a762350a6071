"""How often the gate errs about an equal model when people labelled a suite's records by
looking at the incumbent's answers, and when a suite contains its items several times.

A record's difficulty is drawn from a Beta distribution with mean .75. Two equal models answer
it right with this probability. At a low temperature, the incumbent gives its production answer
again with probability AGAIN; the candidate answers afresh.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.run import NO_LABEL
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.gate.verdict import ScorePair
from tests.support.gate.gate_clusters import measure_clusters

pytestmark = pytest.mark.req("F2", "F4")

BINARY = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_binary.csv"
ITEMS = 200
RUNS = 30
AGAIN = 0.8
OPEN = PairedItem(
    ScorePair("", 1.0, 0.0, 1.0, 0.0),
    1,
    1,
    missing=(1.0, 1.0),
    reasons=((NO_LABEL,), (NO_LABEL,)),
)


@dataclass(frozen=True)
class ErrorShares:
    """Shares of comparisons of two equal models that passed, and that failed."""

    passed: float
    failed: float


def measure_selection(
    approved: float,
    claim: Claim,
    *,
    keep: bool,
    badly_rated: bool = False,
) -> ErrorShares:
    """Judges suites in which people labelled the share `approved` of the records whose
    production answer was right (`badly_rated`: wrong).

    keep: whether the other records stay, with missing scores; otherwise the suite omits them.
    """
    rng = np.random.default_rng([73, round(100 * approved), keep, badly_rated])
    outcomes = []
    for _ in range(RUNS):
        skill = rng.beta(1.5, 0.5, ITEMS)
        production = rng.random(ITEMS) < skill
        again = rng.random(ITEMS) < AGAIN
        incumbent = np.where(again, production, rng.random(ITEMS) < skill)
        candidate = rng.random(ITEMS) < skill
        chosen = production ^ badly_rated
        labelled = chosen & (rng.random(ITEMS) < approved)
        pairs = [
            PairedItem(ScorePair(f"q{n}", float(a), float(b), float(a), float(b)))
            if known
            else OPEN
            for n, (a, b, known) in enumerate(zip(incumbent, candidate, labelled, strict=True))
            if known or keep
        ]
        plan = SuitePlan(
            "drawn", "0", SuiteRole.PRIMARY, claim, 0.05, 0.05, len(pairs), 1, order_seed=1
        )
        report = judge_pairs(plan, PairedSuite(tuple(pairs), "a", "b")).report
        outcomes.append(report.outcome)
    return ErrorShares(
        outcomes.count("passed") / RUNS,
        outcomes.count("failed") / RUNS,
    )


@pytest.mark.parametrize("approved", [0.3, 0.7, 1.0])
def test_records_without_a_label_keep_an_equal_model_from_failing_and_from_passing(
    approved: float,
) -> None:
    approval = measure_selection(approved, Claim.SUPERIOR, keep=True)
    complaint = measure_selection(approved, Claim.SUPERIOR, keep=True, badly_rated=True)

    assert max(approval.failed, approval.passed) <= 0.05
    assert max(complaint.failed, complaint.passed) <= 0.05


def test_a_suite_of_approved_or_badly_rated_records_alone_would_err() -> None:
    approval = measure_selection(1.0, Claim.SUPERIOR, keep=False)
    complaint = measure_selection(1.0, Claim.SUPERIOR, keep=False, badly_rated=True)

    assert approval.failed >= 0.5
    assert complaint.passed >= 0.5


def test_found_clusters_keep_the_level_for_items_that_a_suite_contains_several_times() -> None:
    rows = list(
        measure_clusters(
            close_pairs(load_matrix(BINARY), 2),
            Claim.SUPERIOR,
            ITEMS,
            replications=150,
            groups=(2, 5, 10),
            correlations=(0.4, 1.0),
        )
    )

    assert np.mean([row.by_clusters for row in rows]) <= 0.055
    assert np.mean([row.by_items for row in rows]) >= 0.15
