from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from harness.gate.offline.pairs import PairedSuite
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.offline.verdicts import (
    RULES_VERSION,
    decide_verdict,
    run_ids,
)
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.gate.verdict import Failed, Verdict
from harness.proposals.recomputation import (
    AgreementLevel,
    Recomputation,
    _compare_verdicts,
    recompute_verdict,
    remeasure_claim,
)
from harness.routing.proposal import Proposal, SuiteRuns
from tests.unit.test_gate_combinations import AnsweredSuites, proposed
from tests.unit.test_gate_verdicts import NOW, ask, plan, sides

pytestmark = pytest.mark.req("F1", "F5")

PLAN = plan(n_max=100)


def of_runs(
    ours: Sequence[Sample], theirs: Sequence[Sample]
) -> tuple[list[Sample], list[Sample]]:
    return (
        [replace(sample, run="run_a_math") for sample in ours],
        [replace(sample, run="run_b_math") for sample in theirs],
    )


SIDES = of_runs(*sides([0.0, 1.0] * 50, [1.0] * 100))


def decided(asked: SuitePlan = PLAN, found: Any = SIDES) -> Verdict:
    verdict = ask([asked], {"math": found}, {})
    assert verdict is not None
    return verdict


def proposal(asked: SuitePlan = PLAN) -> Proposal:
    return proposed(AnsweredSuites((asked,), {}))


def recompute(
    verdict: Verdict,
    registered: Proposal | None = None,
    found: Any = SIDES,
) -> Recomputation:
    return recompute_verdict(verdict, registered or proposal(), {"math": found}, {})


def test_a_verdict_is_decided_at_its_moment_in_utc_and_expires_after_its_time() -> None:
    verdict = decide_verdict("r", "x", "y", [PLAN], {"math": SIDES}, NOW.astimezone(), 60.0)
    assert verdict is not None
    assert (verdict.decided_at, verdict.expires_at) == (
        NOW,
        NOW + timedelta(seconds=60),
    )
    assert verdict.inputs["decided_at"] == NOW.isoformat()
    assert (verdict.route, verdict.incumbent, verdict.candidate) == (
        "r",
        "x",
        "y",
    )
    # Primary suites come last, whatever the order in which they were registered.
    two = ask(
        [PLAN, plan("law", SuiteRole.GUARD, Claim.NON_INFERIOR, 100)],
        {"math": SIDES, "law": sides([1.0] * 100, [1.0] * 100)},
    )
    assert two is not None
    assert [report.suite for report in two.suites] == ["law", "math"]


RUNS = "math: its runs differ from the runs of p_1"
TERMS = "its suites and terms differ from the registration of p_1"


@pytest.mark.parametrize(
    ("registered", "said"),
    [
        *(
            ({name: "other"}, f"its {name} differs from p_1")
            for name in ("route", "incumbent", "candidate")
        ),
        ({"plans": (replace(PLAN, margin=0.06),)}, TERMS),
        ({"plans": (plan("law"),)}, TERMS),
        ({"runs": {}}, RUNS),
        ({"runs": {"math": SuiteRuns("x", "run_b_math")}}, RUNS),
        ({"runs": {"math": SuiteRuns("run_a_math", "x")}}, RUNS),
    ],
)
def test_a_verdict_about_another_question_terms_or_runs_than_the_registered_ones_is_told(
    registered: dict[str, Any], said: str
) -> None:
    found = recompute(decided(), replace(proposal(), **registered))
    assert (found.agreement, said in found.text) == (
        AgreementLevel.DIFFERS,
        True,
    )


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("decided_at", 1),
        ("expires_at", 1),
        ("expires_at", -1),
    ],
)
def test_other_times_than_those_of_the_policy_are_told(field: str, seconds: int) -> None:
    verdict = decided()
    moved = getattr(verdict, field) + timedelta(seconds=seconds)
    words = "its times differ from its policy's"

    assert recompute(replace(verdict, **{field: moved})).text == words
    inputs = {**verdict.inputs, field: moved.isoformat()}
    longer = replace(verdict, inputs=inputs, **{field: moved})
    assert recompute(longer).text == words


def test_samples_that_make_no_pairs_too_few_or_others_are_told() -> None:
    ours, theirs = SIDES
    verdict = decided()
    used = len(verdict.inputs["pairs"]["math"])  # type: ignore[index]

    stale = recompute(verdict, found=([*ours, ours[0]], theirs))
    assert stale.text.startswith(
        "math: the stored samples cannot be paired: suite math: item q0"
    )
    fewer = recompute(verdict, found=(ours[: used - 1], theirs))
    assert fewer.text == f"math: {used} items were used, but the stored samples have {used - 1}"
    assert recompute(verdict, found=(ours[:used], theirs)).agrees
    nothing = recompute_verdict(verdict, proposal(), {}, {})
    assert nothing.text == f"math: {used} items were used, but the stored samples have 0"


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        (1, ""),
        (5, ""),
        (6, " and 1 more"),
        (8, " and 3 more"),
    ],
)
def test_items_that_are_not_what_the_samples_say_are_named_up_to_five(
    changed: int, more: str
) -> None:
    ours, theirs = SIDES
    others = [
        replace(sample, strict=0.5) if n < changed else sample
        for n, sample in enumerate(theirs)
    ]
    named = ", ".join(f"q{n}" for n in range(min(changed, 5)))

    found = recompute(decided(), found=(ours, others))
    assert found.text == f"math: items {named}{more} differ from the samples"


def test_another_outcome_or_no_report_is_another_verdict() -> None:
    passed = decided()
    content = {field.name: getattr(passed, field.name) for field in fields(Failed)}

    for other, words in (
        (
            Failed(**content),
            "the stored scores give PASSED, but the verdict is FAILED",
        ),
        (
            replace(passed, suites=()),
            "the stored scores belong to other suites",
        ),
    ):
        found = recompute(other)
        assert (found.agreement, found.text) == (
            AgreementLevel.DIFFERS,
            words,
        )
    assert recompute(passed) == Recomputation(AgreementLevel.AGREES)
    assert run_ids(passed.inputs, "math") == ("run_a_math", "run_b_math")


@pytest.mark.parametrize(
    ("rules", "step"),
    [
        (RULES_VERSION - 1, "propose the swap again"),
        (RULES_VERSION + 1, "upgrade"),
    ],
)
def test_a_verdict_by_rules_that_this_version_does_not_have_is_not_decided_again(
    rules: int, step: str
) -> None:
    verdict = decided()

    found = recompute(replace(verdict, inputs={**verdict.inputs, "rules": rules}))

    assert found.agreement is AgreementLevel.FIGURES_DIFFER
    assert (
        found.text
        == f"rules {rules} decided it, but this version has rules {RULES_VERSION}: {step}"
    )


def test_another_model_than_the_verdict_says_is_told() -> None:
    ours, theirs = SIDES
    named = [replace(sample, served_model="m-1") for sample in theirs]
    verdict = decided(found=(ours, named))
    other = [replace(sample, served_model="m-2") for sample in theirs]

    assert recompute(verdict, found=(ours, named)).agrees
    text = recompute(verdict, found=(ours, other)).text
    assert text == "math: the stored samples name other served models than the verdict"
    # A verdict that does not say it is older than that is noted.
    assert recompute(decided(), found=(ours, named)).agrees


def test_what_is_no_verdict_of_ours_is_told_with_its_error() -> None:
    broken = replace(decided(), inputs={"rules": RULES_VERSION})
    assert recompute(broken).text == "it cannot be decided again: KeyError: 'plans'"


def test_a_verdict_whose_scores_decide_nothing_is_told() -> None:
    verdict = decided()
    pairs = verdict.inputs["pairs"]["math"]  # type: ignore[index]
    inputs = {**verdict.inputs, "pairs": {"math": pairs[:5]}}
    assert recompute(replace(verdict, inputs=inputs)).text == "the stored scores do not decide"


def test_a_blocked_suite_keeps_its_reason_whatever_came_since() -> None:
    case = SuiteClaim(PLAN, PairedSuite((), "run_a_math", "run_b_math", "away"))
    again, unlike = remeasure_claim(case, SIDES)

    assert (again.paired.blocked, again.paired.items, unlike) == (
        "away",
        (),
        [],
    )


def compared(**changes: Any) -> Recomputation:
    verdict = decided()
    (report,) = verdict.suites
    return _compare_verdicts(replace(verdict, suites=(replace(report, **changes),)), verdict)


def test_sentences_and_last_digits_may_differ_and_each_other_figure_is_named() -> None:
    report = decided().suites[0]
    close = {
        "delta": report.delta * (1 + 5e-10),
        "log_e_bad": report.log_e_bad * (1 - 5e-10),
    }
    assert compared(reason="other words", **close).agrees
    assert compared(log_e_bad=0.0, delta=0.0).text == (
        f"math: delta is {report.delta}, but the verdict has 0.0; "
        f"math: log_e_bad is {report.log_e_bad}, but the verdict has 0.0"
    )
    assert compared(n_used=0, wins=0).agreement is AgreementLevel.DIFFERS
    many = dict.fromkeys(("wins", "ties", "losses", "n_used", "n_max", "margin"), 10**6)
    found = compared(**many)
    assert len(found.differences) == 5
    assert found.agreement is AgreementLevel.DIFFERS
    figures = dict.fromkeys(
        ("delta", "ci_low", "ci_high", "margin", "log_e_bad", "p_final"), 9.5
    )
    named = compared(**figures)
    assert (named.agreement, len(named.differences)) == (
        AgreementLevel.FIGURES_DIFFER,
        5,
    )
