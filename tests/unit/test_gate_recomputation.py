"""A stored verdict is decided again from its samples; what differs is a figure or more."""

from dataclasses import fields, replace

import pytest

from harness.domain.evals.verdict import Failed, Verdict
from harness.gate.offline.recomputation import (
    AgreementLevel,
    Recomputation,
    recompute_verdict,
)
from harness.gate.offline.replay import RULES_VERSION, run_ids
from harness.gate.offline.verdicts import judge_suites
from tests.unit.test_gate_combinations import AnsweredSuites, proposed
from tests.unit.test_gate_verdicts import Sides, ask, plan, sides

pytestmark = pytest.mark.req("F1")

PLAN = plan(n_max=100)


def answered() -> Sides:
    ours, theirs = sides([0.0, 1.0] * 50, [1.0] * 100)
    return (
        [replace(sample, run="run_a_math") for sample in ours],
        [replace(sample, run="run_b_math") for sample in theirs],
    )


def decided() -> Verdict:
    verdict = ask([PLAN], {"math": answered()})
    assert verdict is not None
    return verdict


def recompute(verdict: Verdict) -> Recomputation:
    suites = {"math": answered()}
    return recompute_verdict(verdict, proposed(AnsweredSuites((PLAN,), suites)), suites)


def test_a_verdict_of_the_same_samples_agrees_and_names_its_runs() -> None:
    verdict = decided()

    assert recompute(verdict) == Recomputation(AgreementLevel.AGREES)
    assert run_ids(verdict.inputs, "math") == ("run_a_math", "run_b_math")


def test_another_outcome_is_another_verdict() -> None:
    passed = decided()
    content = {field.name: getattr(passed, field.name) for field in fields(Failed)}

    found = recompute(Failed(**content))

    assert found.agreement is AgreementLevel.DIFFERS
    assert found.text == "the stored scores give PASSED, and it says FAILED"


def test_a_verdict_without_its_reports_is_another() -> None:
    found = recompute(replace(decided(), suites=()))

    assert found.agreement is AgreementLevel.DIFFERS
    assert found.text == "the stored scores give reports on other suites"


@pytest.mark.parametrize(
    ("rules", "step"),
    [(RULES_VERSION - 1, "propose the swap again"), (RULES_VERSION + 1, "upgrade")],
)
def test_a_verdict_by_rules_that_this_version_does_not_have_is_not_decided_again(
    rules: int, step: str
) -> None:
    verdict = decided()

    found = recompute(replace(verdict, inputs={**verdict.inputs, "rules": rules}))

    assert found.agreement is AgreementLevel.FIGURES_DIFFER
    assert found.text == f"rules {rules} decided it, this version has {RULES_VERSION}: {step}"


def test_no_suite_is_no_decision() -> None:
    joint = judge_suites([])

    assert (joint.outcome, joint.reason, joint.reports) == ("running", "", ())
