"""What a shadow's judge may conclude from callers' first pairs (statistics.md §2.9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.shadow_evidence import UNSCORED, judge_shares
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F8")

WIN = (1.0, 1.0)
TIE = (0.5, 0.5)
LOSS = (0.0, 0.0)
NOT_WORSE = LabelDesign(Claim.NON_INFERIOR, 0.1)
BETTER = LabelDesign(Claim.SUPERIOR, 0.1)


def test_a_shadow_without_units_has_no_verdict() -> None:
    found = judge_shares([], NOT_WORSE)

    assert (found.outcome, found.units, found.low, found.high) == ("running", 0, 0.0, 1.0)


def test_wins_pass_losses_fail_and_units_after_the_verdict_change_nothing() -> None:
    passed = judge_shares([WIN] * 20 + [LOSS] * 100, NOT_WORSE)
    failed = judge_shares([LOSS] * 20 + [WIN] * 100, NOT_WORSE)

    assert (passed.outcome, passed.low) == ("passed", 1.0)
    assert (failed.outcome, failed.high) == ("failed", 0.0)
    assert passed.units < 20
    assert failed.units < 20


def test_ties_show_that_a_candidate_is_not_worse_but_not_that_it_is_better() -> None:
    assert judge_shares([TIE] * 200, NOT_WORSE).outcome == "passed"
    assert judge_shares([TIE] * 200, BETTER).outcome == "running"


def test_pairs_without_a_score_show_nothing() -> None:
    for design in (NOT_WORSE, BETTER):
        found = judge_shares([UNSCORED] * 500, design)

        assert found.outcome == "running"
        assert (found.low, found.high) == (0.0, 1.0)


def test_a_later_look_has_a_higher_bar() -> None:
    first = judge_shares([WIN] * 40, NOT_WORSE)
    fourth = judge_shares([WIN] * 40, LabelDesign(Claim.NON_INFERIOR, 0.1, 0.0025))

    assert first.units < fourth.units < 40


BOUNDS = st.lists(st.sampled_from([WIN, TIE, LOSS, UNSCORED, (0.25, 0.25)]), max_size=60)


@given(BOUNDS, st.sampled_from([NOT_WORSE, BETTER]))
def test_a_missing_score_never_helps_a_verdict(
    bounds: list[tuple[float, float]], design: LabelDesign
) -> None:
    """Whatever the missing scores are, the evidence with them is at least as strong."""
    found = judge_shares(bounds, design)
    best = judge_shares([WIN if each == UNSCORED else each for each in bounds], design)
    worst = judge_shares([LOSS if each == UNSCORED else each for each in bounds], design)

    if found.outcome == "passed":
        assert "passed" in (best.outcome, worst.outcome)
        assert worst.outcome == "passed"
    if found.outcome == "failed":
        assert best.outcome == "failed"


@given(BOUNDS, BOUNDS, st.sampled_from([NOT_WORSE, BETTER]))
def test_a_verdict_is_final(
    before: list[tuple[float, float]],
    after: list[tuple[float, float]],
    design: LabelDesign,
) -> None:
    found = judge_shares(before, design)

    if found.outcome != "running":
        assert judge_shares([*before, *after], design) == found
