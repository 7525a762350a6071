from dataclasses import replace

import pytest

from harness.frame.formatting import DASH
from harness.gate.offline.replay import verdict_bytes
from harness.gate.offline.verdicts import replay_verdict
from harness.gate.text.sentences import difference_cells, reason_text
from harness.gate.text.verdict_sentences import describe_claim
from harness.gate.verdict import VerdictBasis
from tests.unit.test_gate_verdicts import WORSE, ask, one, plan, sides

pytestmark = pytest.mark.req("A7")


def test_a_comparison_of_clusters_that_was_given_up_counts_clusters_to_people_alone() -> None:
    clustered = replace(
        plan(n_max=100), futility=0.05, cluster="document", cluster_sizes=(2,) * 100
    )
    alike = sides([1.0, 1.0, 0.0, 0.0] * 50, [0.0, 0.0, 1.0, 1.0] * 50)
    verdict = ask([clustered], {"math": alike})
    assert verdict is not None

    used = verdict.suites[0].n_used
    assert f"Given up after {used} of 100 items: the others" in verdict.reason
    assert f"Given up after {used} of 100 clusters: the others" in reason_text(verdict)
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)
    titled = replace(verdict, reason=f"All 2 suites passed. math: {verdict.reason}")
    assert "passed. Sums \\1: Given up after" in reason_text(titled, {"math": "Sums \\1"})
    listed = replace(verdict, reason="math: so. Not shown to be worse: math, maths.")
    assert reason_text(listed, {"math": "Sums"}) == (
        "Sums: so. Not shown to be worse: Sums, maths."
    )
    alone = ask([replace(plan(), futility=0.05)], {"math": alike})
    assert alone is not None
    assert "of 200 items: the others" in reason_text(alone)


def test_where_no_answer_was_scored_nobody_reads_of_a_loss() -> None:
    unfit = one(sides([None] * 60, [None] * 60), n_max=60)
    worse = one(WORSE)
    assert unfit is not None
    assert worse is not None

    assert reason_text(unfit).startswith("missing scores decide. All of them against the")
    assert "the difference of all 60 items is between −100.0 and +100.0 points." in (
        reason_text(unfit)
    )
    assert describe_claim(VerdictBasis.from_verdict(unfit)) == "Could not be measured: math."
    assert difference_cells(unfit.suites[0]) == (DASH, DASH)
    assert verdict_bytes(replay_verdict(unfit)) == verdict_bytes(unfit)
    assert reason_text(worse).startswith("The candidate is worse: ")
    assert difference_cells(worse.suites[0])[0] == "−100.0"
