from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.gate.offline.decision_intervals import DecisionInterval, decision_intervals
from harness.gate.suite_plan import Claim, Looks
from harness.gate.verdict import Verdict, VerdictBasis
from tests.unit.test_gate_verdicts import (
    Sides,
    any_of,
    ask,
    leaning,
    named,
    plan,
    samples,
    sides,
    weighted,
)

pytestmark = pytest.mark.req("A7", "F2")

STOPPED = {"math": ("inconclusive", "over budget")}
shares = st.integers(0, 100)


def decide(
    found: Sides,
    claim: Claim = Claim.SUPERIOR,
    looks: Looks = Looks.PLANNED,
) -> Verdict:
    verdict = ask([replace(plan(claim=claim), looks=looks)], {"math": found}, STOPPED)
    assert verdict is not None
    return verdict


def assert_the_ends_say_the_outcome(verdict: Verdict) -> Mapping[str, DecisionInterval]:
    intervals = decision_intervals(verdict)
    claims = VerdictBasis.from_verdict(verdict).claims
    assert set(intervals) == {report.suite for report in claims}
    for report in claims:
        interval = intervals[report.suite]
        assert -1.0 <= interval.low <= interval.high <= 1.0
        assert (report.outcome == "passed") is (interval.low >= report.limit)
        assert (report.outcome == "failed") is (interval.high <= report.limit)
    return intervals


@given(
    won=shares,
    lost=shares,
    graded=st.booleans(),
    claim=st.sampled_from([Claim.SUPERIOR, Claim.NON_INFERIOR]),
    looks=st.sampled_from(list(Looks)),
)
@example(won=40, lost=4, graded=False, claim=Claim.SUPERIOR, looks=Looks.WHOLE)
@example(won=40, lost=4, graded=True, claim=Claim.SUPERIOR, looks=Looks.PLANNED)
@example(won=0, lost=0, graded=False, claim=Claim.NON_INFERIOR, looks=Looks.WHOLE)
@example(won=2, lost=90, graded=False, claim=Claim.NON_INFERIOR, looks=Looks.PLANNED)
@settings(max_examples=20)
def test_a_claim_passes_if_its_interval_starts_at_the_limit_and_fails_if_it_ends_there(
    won: int,
    lost: int,
    graded: bool,  # noqa: FBT001 - drawn by hypothesis
    claim: Claim,
    looks: Looks,
) -> None:
    ours, theirs = leaning(won, lost)
    if graded:
        scores = [(one.strict or 0.0) * 0.9 for one in theirs]
        theirs = samples("run_b", scores)
    assert_the_ends_say_the_outcome(decide((ours, theirs), claim, looks))


def test_the_mean_of_suites_has_the_interval_of_its_composite_items() -> None:
    verdict = ask(weighted(2.0, 1.0), named(leaning(40, 4), leaning(14, 5)))

    assert verdict is not None
    assert set(assert_the_ends_say_the_outcome(verdict)) == {"weighted mean"}


@pytest.mark.parametrize("others", [1, 3])
def test_among_alternatives_the_interval_follows_holms_limit(others: int) -> None:
    open_suite = leaning(10, 10)
    found = named(leaning(14, 5), *[open_suite] * others)
    verdict = ask(any_of(1 + others), found)

    assert verdict is not None
    assert_the_ends_say_the_outcome(verdict)
    alone = ask(any_of(1), named(leaning(14, 5)))
    assert alone is not None
    assert decision_intervals(verdict)["s0"].low < decision_intervals(alone)["s0"].low


def test_missing_scores_widen_the_interval_on_both_sides() -> None:
    ours = [1.0, 0.0] * 100
    theirs: list[float | None] = [1.0, 0.0] * 100
    whole = decide(sides(ours, theirs), Claim.NON_INFERIOR, Looks.WHOLE)
    theirs[:3] = [None] * 3
    missing = decide(sides(ours, theirs), Claim.NON_INFERIOR, Looks.WHOLE)

    wide = assert_the_ends_say_the_outcome(missing)["math"]
    narrow = assert_the_ends_say_the_outcome(whole)["math"]
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_few_losses_refute_no_small_difference_and_other_rules_give_no_interval() -> None:
    verdict = decide(sides([1.0] * 200, [0.0] * 200))

    interval = decision_intervals(verdict)["math"]
    assert verdict.suites[0].n_used < 60
    assert interval.low == -1.0
    assert interval.high <= 0.0
    older = replace(verdict, inputs={**verdict.inputs, "rules": 1})
    assert decision_intervals(older) == {}


@given(n=st.integers(60, 200), losing=st.integers(0, 20))
@settings(max_examples=10)
def test_more_losses_never_raise_the_low_end(n: int, losing: int) -> None:
    def low(losses: int) -> float:
        scores: Sequence[float] = [0.0] * losses + [1.0] * (n - losses)
        verdict = decide(sides([1.0] * n, scores), Claim.NON_INFERIOR, Looks.WHOLE)
        return decision_intervals(verdict)["math"].low

    assert low(losing + 1) <= low(losing)
