from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from harness.frame.formatting import DASH
from harness.gate.offline.suite_claims import WEIGHTED_MEAN
from harness.gate.offline.verdicts import replay_verdict, verdict_bytes
from harness.gate.sentences import difference_cells
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Verdict, VerdictBasis
from harness.gate.verdict_sentences import describe_claim, describe_reason
from tests.unit.test_gate_verdicts import (
    ALIKE,
    BETTER,
    GUARD,
    OPEN,
    WORSE,
    Sides,
    any_of,
    ask,
    leaning,
    named,
    one,
    plan,
    sides,
    weighted,
)

pytestmark = pytest.mark.req("F2", "F5")


def decided(plans: Sequence[SuitePlan], answers: Mapping[str, Sides]) -> Verdict:
    verdict = ask(plans, answers)
    assert verdict is not None
    return verdict


def test_one_suite_is_its_own_claim() -> None:
    verdict = decided([plan()], {"math": BETTER})
    basis = VerdictBasis.from_verdict(verdict)

    assert (basis.claims, basis.passed_claims) == (
        verdict.suites,
        verdict.suites,
    )
    assert (basis.mean, basis.members, basis.alternatives) == (None, (), ())
    (report,) = verdict.suites
    assert basis.items_text == f"{report.n_used} of 200 items"


def test_the_weighted_mean_is_one_claim_and_its_suites_are_counted_once() -> None:
    verdict = decided(weighted(1.0, 1.0), named(BETTER, ALIKE))
    basis = VerdictBasis.from_verdict(verdict)

    assert [report.suite for report in basis.claims] == [WEIGHTED_MEAN]
    assert basis.passed_claims == basis.claims
    assert [report.suite for report in basis.members] == ["s0", "s1"]
    assert describe_claim(basis) == (
        "Better on the weighted mean of 2 suites (s0 and s1); 1 of 2 suites point the same way."
    )
    assert not any(basis.decides(report) for report in basis.members)
    used = basis.claims[0].n_used
    assert (basis.items, basis.items_planned) == (
        {"s0": used, "s1": used},
        400,
    )
    assert basis.items_text == (f"{2 * used} of 400 items ({used} of 200 in each of 2 suites)")


def test_a_suite_of_the_mean_that_is_shown_worse_decides_by_itself() -> None:
    verdict = decided(weighted(3.0, 1.0), named(leaning(50, 0), WORSE))
    basis = VerdictBasis.from_verdict(verdict)

    assert [report.suite for report in basis.claims] == [WEIGHTED_MEAN, "s1"]
    assert [basis.decides(report) for report in basis.members] == [False, True]


def test_a_guard_without_enough_evidence_is_named_as_one_that_does_not_block() -> None:
    basis = VerdictBasis.from_verdict(
        decided([plan(), GUARD], {"math": BETTER, "safety": OPEN})
    )

    assert [report.suite for report in basis.passed_claims] == ["math"]
    assert [report.suite for report in basis.silent_guards] == ["safety"]
    assert basis.items_text == f"{basis.items['math'] + 200} of 400 items"


def test_suites_of_which_one_has_to_be_better_are_alternatives() -> None:
    basis = VerdictBasis.from_verdict(decided(any_of(2), named(leaning(60, 0), ALIKE)))

    assert [report.suite for report in basis.alternatives] == ["s0", "s1"]
    assert [report.suite for report in basis.passed_claims] == ["s0"]


@pytest.mark.req("A7")
def test_a_comparison_of_clusters_that_was_given_up_counts_clusters_to_people_alone() -> None:
    clustered = replace(
        plan(n_max=100),
        futility=0.05,
        cluster="document",
        cluster_sizes=(2,) * 100,
    )
    alike = sides([1.0, 1.0, 0.0, 0.0] * 50, [0.0, 0.0, 1.0, 1.0] * 50)
    verdict = ask([clustered], {"math": alike})
    assert verdict is not None

    used = verdict.suites[0].n_used
    assert f"Stopped after {used} of 100 items, because the remaining items" in verdict.reason
    clusters = f"Stopped after {used} of 100 clusters, because the remaining clusters"
    assert clusters in describe_reason(verdict)
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)
    alone = ask([replace(plan(), futility=0.05)], {"math": alike})
    assert alone is not None
    assert "of 200 items, because the remaining items" in describe_reason(alone)


@pytest.mark.req("A7")
def test_a_reason_names_suites_by_their_titles_and_the_guards_that_are_not_shown_worse() -> (
    None
):
    both = decided([plan(), GUARD], {"math": BETTER, "safety": BETTER})
    open_guard = decided([plan(), GUARD], {"math": BETTER, "safety": OPEN})
    titles = {"math": "Sums \\1", "safety": "Safety, first"}

    assert describe_reason(both) == both.reason
    assert describe_reason(both, titles).startswith("All 2 suites passed. Sums \\1: The cand")
    assert describe_reason(open_guard) == open_guard.reason
    assert describe_reason(open_guard, titles).startswith("Sums \\1: The candidate is better")
    assert describe_reason(open_guard, titles).endswith(
        " Not shown to be worse: Safety, first."
    )


@pytest.mark.req("A7")
def test_where_no_answer_was_scored_nobody_reads_of_a_loss() -> None:
    unfit = one(sides([None] * 60, [None] * 60), n_max=60)
    worse = one(WORSE)
    assert unfit is not None
    assert worse is not None

    assert describe_reason(unfit).startswith(
        "missing scores decide. If all of them count against"
    )
    assert "the difference of all 60 items is between −100.0 and +100.0 points." in (
        describe_reason(unfit)
    )
    assert describe_claim(VerdictBasis.from_verdict(unfit)) == "Could not be measured: math."
    assert difference_cells(unfit.suites[0]) == (DASH, DASH)
    assert verdict_bytes(replay_verdict(unfit)) == verdict_bytes(unfit)
    assert describe_reason(worse).startswith("The candidate is worse: ")
    assert difference_cells(worse.suites[0])[0] == "−100.0"
