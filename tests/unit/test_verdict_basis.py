from collections.abc import Mapping, Sequence

import pytest

from harness.gate.offline.primary_suites import WEIGHTED_MEAN
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Verdict, VerdictBasis
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
    plan,
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

    assert (basis.claims, basis.passed_claims) == (verdict.suites, verdict.suites)
    assert (basis.mean, basis.members, basis.alternatives) == (None, (), ())
    (report,) = verdict.suites
    assert basis.items_text == f"{report.n_used} of 200 items"


def test_the_weighted_mean_is_one_claim_and_its_suites_are_counted_once() -> None:
    verdict = decided(weighted(1.0, 1.0), named(BETTER, ALIKE))
    basis = VerdictBasis.from_verdict(verdict)

    assert [report.suite for report in basis.claims] == [WEIGHTED_MEAN]
    assert basis.passed_claims == basis.claims
    assert [report.suite for report in basis.members] == ["s0", "s1"]
    assert not any(basis.decides(report) for report in basis.members)
    used = basis.claims[0].n_used
    assert (basis.items, basis.items_planned) == ({"s0": used, "s1": used}, 400)
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
