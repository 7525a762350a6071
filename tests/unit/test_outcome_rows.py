from dataclasses import replace

import pytest

from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.rollout_action import RolloutFigures
from harness.gate.outcome_rows import (
    describe_outcomes,
    outcome_rows,
    uncounted_rows,
)

pytestmark = pytest.mark.req("F5")
FIGURES = RolloutFigures(
    outcomes={
        "answered": ArmSplit(194, 97),
        "failed: provider": ArmSplit(3, 3),
        "not_sent: pause": ArmSplit(3, 0),
    },
    uncounted={"max_keys": ArmSplit(7, 1)},
    assigned=ArmSplit(200, 100),
)


def test_the_rows_of_each_model_sum_to_its_assigned_requests() -> None:
    *rows, whole = outcome_rows(FIGURES)
    assert sum(row.candidate for row in rows) == whole.candidate == 100
    assert sum(row.incumbent for row in rows) == whole.incumbent == 100
    assert [row.name for row in rows] == [
        "Answered",
        "Failed: the provider's fault",
        "Not sent: the provider requested a pause",
    ]
    assert rows[1].candidate_text == "3 (3 %)"


def test_a_sentence_has_the_outcomes_of_both_models() -> None:
    assert describe_outcomes(FIGURES) == (
        "candidate: 97 answered, 3 failed, of 100 assigned; "
        "incumbent: 97 answered, 3 not sent, of 100 assigned"
    )


def test_requests_that_could_not_be_counted_stand_beside_the_sum() -> None:
    (row,) = uncounted_rows(FIGURES)
    assert row.name == "Not counted: the router remembers no further caller today"
    assert (row.candidate_text, row.incumbent_text) == ("1", "6")


def test_a_rollout_without_outcomes_has_no_rows() -> None:
    assert outcome_rows(RolloutFigures()) == ()
    assert describe_outcomes(RolloutFigures()) == ""


def test_requests_that_the_candidate_cannot_take_stand_with_their_share() -> None:
    figures = replace(FIGURES, uncounted={"unsupported": ArmSplit(50, 25)})
    (row,) = uncounted_rows(figures)
    assert row.name == "Not counted: the candidate lacks an ability that the request needs"
    assert (row.candidate_text, row.incumbent_text) == ("25 (20 %)", "25")
    assert describe_outcomes(figures).endswith(
        "The evidence speaks for 80 % of the callers: 20 % (25 of 125) need an ability that "
        "the candidate lacks"
    )
