"""Why a canary is where it is, and what would move it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.canary.guardrails import (
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
)
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.content_hash import canonical_json
from harness.domain.proposals.policy import CanaryPolicy, CanaryStep
from harness.gate.online.guardrail_report import OpinionTotals
from harness.gate.online.next_step import decide_action
from harness.gate.text.explain import GuardrailRow, RolloutExplanation, explain_rollout
from tests.unit.test_canary_policy import START, rollout

pytestmark = pytest.mark.req("F3", "A7")

HOUR = timedelta(hours=1)
POLICY = CanaryPolicy(steps=(CanaryStep(100, 20), CanaryStep(2500, 100, certify=True)))


def blocks(
    count: int, *, bps: int = 100, failing: bool = False, slow: bool = False
) -> list[ObservationBlock]:
    """One each minute."""
    canary = bps // 100
    latency = Guardrail.LATENCY
    return [
        ObservationBlock(
            rollout="r",
            worker="w",
            sequence=number,
            weight_bps=bps,
            units=100,
            canary_units=canary,
            failures=1 + canary * failing,
            canary_failures=canary * failing,
            missing=0,
            opened_at=START + timedelta(minutes=number - 1),
            closed_at=START + timedelta(minutes=number),
            number=number,
            ranks={latency: (0.97,)} if slow else {},
            levels={latency: ArmLevels(2.0, 1.0)} if slow else {},
        )
        for number in range(1, count + 1)
    ]


def explained(
    what: Rollout, observation_blocks: list[ObservationBlock], minutes: int
) -> RolloutExplanation:
    now = START + timedelta(minutes=minutes)
    return explain_rollout(
        what, decide_action(what, observation_blocks, now), observation_blocks, now
    )


def waiting(step: int = 0) -> Rollout:
    return rollout(RolloutState.WAITING, step, POLICY)


def test_what_is_missing_is_counted_and_timed_from_the_current_pace() -> None:
    explanation = explained(waiting(), blocks(10), 10)

    assert explanation.units_per_hour == pytest.approx(6000)
    need = explanation.needs[0]
    assert need.words == "10 of 20 canary callers at 1 %"
    assert need.eta_s == pytest.approx(600)
    assert explanation.goes_to == "25 %"
    assert explanation.eta == "in about 10 min"
    assert "rollback level" in explanation.goes_back


def test_without_traffic_nobody_can_tell_when() -> None:
    explanation = explained(waiting(), [], 10)

    assert explanation.eta_s is None
    assert explanation.eta == "unknown at the current pace"
    assert {row.says for row in explanation.guardrails} == {"no data yet"}


def test_what_comes_after_the_deadline_says_that_it_will_pause() -> None:
    slow = replace(POLICY, steps=(replace(POLICY.steps[0], deadline_s=700.0),))

    explanation = explained(rollout(RolloutState.WAITING, 0, slow), blocks(10), 10)

    assert explanation.goes_to == "promotion"
    assert "so it will pause" in explanation.eta


def test_each_guardrail_says_its_figures_and_how_far_it_is() -> None:
    explanation = explained(waiting(), blocks(12, slow=True), 12)

    rows = {row.guardrail: row for row in explanation.guardrails}
    errors, latency = rows[Guardrail.ERRORS], rows[Guardrail.LATENCY]
    assert (errors.candidate, errors.says) == ("0 % (0 of 12)", "no evidence of harm")
    assert errors.incumbent == "1 % (12 of 1,188)"
    assert (latency.candidate, latency.incumbent) == ("2 s", "1 s")
    assert latency.says == "strong evidence of harm"
    assert 0 < latency.distance <= latency.furthest <= 1
    assert rows[Guardrail.REFUSALS].says == "no data yet"


def with_classes(observation_blocks: list[ObservationBlock]) -> list[ObservationBlock]:
    """The canary's failures time out, but for its first; the incumbent's are the server's."""
    return [
        replace(
            block,
            counts={
                Guardrail.ERRORS: ErrorTally(
                    block.units,
                    block.canary_units,
                    block.failures,
                    block.canary_failures,
                    {
                        "malformed" if block.number == 1 else "timeout": ArmSplit(1, 1),
                        "server": ArmSplit(1, 0),
                    },
                )
            },
        )
        for block in observation_blocks
    ]


def test_errors_are_told_by_class_in_the_row_and_in_the_reason_of_the_rollback() -> None:
    harm = decide_action(
        waiting(), with_classes(blocks(19, failing=True)), START + 19 * HOUR / 60
    )
    explanation = explain_rollout(
        waiting(), harm, with_classes(blocks(19, failing=True)), START
    )

    assert explanation.guardrails[0].classes == (
        "candidate, 2 failures: 1 malformed, 1 timeout",
        "incumbent, 2 failures: 2 server",
    )
    counted = "2 of 2 (1 malformed, 1 timeout) against 2 of 198 (2 server)"
    assert f"The canary fails more often than the incumbent: {counted}; " in harm.reason


def test_classes_explain_the_evidence_and_are_none_and_old_blocks_decide_as_they_did() -> None:
    now, plain = START + 19 * HOUR / 60, blocks(19, failing=True)

    old, new = (
        decide_action(waiting(), plain, now),
        decide_action(waiting(), with_classes(plain), now),
    )

    assert (old.log_e, old.block, old.signal) == (new.log_e, new.block, new.signal)
    assert explain_rollout(waiting(), old, plain, now).guardrails[0].classes == ()
    assert "classes" not in canonical_json(old.figures.as_json())


def test_strong_evidence_that_does_not_act_yet_speaks_against_a_step_by_hand() -> None:
    explanation = explained(waiting(), blocks(12, slow=True), 12)

    (against,) = explanation.against
    assert against.startswith(
        "The canary takes 2 × as long as the incumbent for an answer: 2 s"
    )
    assert [row.guardrail for row in explanation.guardrails if row.warns] == [Guardrail.LATENCY]
    assert explained(waiting(), blocks(12), 12).against == ()


def test_a_wrong_split_of_callers_speaks_against_a_step_by_hand() -> None:
    skewed = [replace(block, canary_units=4) for block in blocks(300)]

    (against,) = explained(waiting(), skewed, 300).against

    assert "share of callers is not the planned one" in against


def test_where_harm_is_shown_there_is_nothing_to_warn_of() -> None:
    assert explained(waiting(), blocks(19, failing=True), 19).against == ()


def test_the_certificate_has_a_time_of_its_own() -> None:
    explanation = explained(waiting(step=1), blocks(10, bps=2500), 10)

    need = {step_need.what: step_need for step_need in explanation.needs}["certificate"]
    assert not need.done
    assert need.eta_s is not None
    assert 0 < need.eta_s < 86_400
    assert explanation.goes_to == "promotion"


def test_a_paused_one_waits_for_a_person() -> None:
    explanation = explained(rollout(RolloutState.PAUSED, 0, POLICY), blocks(10), 10)

    assert explanation.needs[0].what == "person"
    assert explanation.eta == "not before a person resumes it"


def test_with_harm_shown_it_goes_back_and_nothing_else_is_waited_for() -> None:
    explanation = explained(waiting(), blocks(19, failing=True), 19)

    assert (explanation.goes_to, explanation.eta) == ("0 %", "at the next look")
    assert not explanation.needs
    assert explanation.guardrails[0].says == "harm is shown"


def test_an_ended_one_says_why_it_ended_and_needs_nothing() -> None:
    ended = replace(rollout(RolloutState.ROLLED_BACK, 0, POLICY), ended_because="harm")

    explanation = explained(ended, blocks(10, failing=True), 10)

    assert (explanation.why, explanation.goes_to, explanation.eta) == ("harm", "", "")
    assert not explanation.needs


def test_a_bake_tells_when_it_ends() -> None:
    baking = replace(
        rollout(RolloutState.PROMOTED, 1, POLICY), bake_ends_at=START + timedelta(hours=5)
    )

    explanation = explained(baking, blocks(10), 60)

    assert explanation.goes_to == "the end of the bake"
    assert explanation.eta == "in 4 h"


def test_floors_of_time_and_peak_hours_have_an_end() -> None:
    step = CanaryStep(100, 1, min_s=3600.0, min_peak_s=7200.0)
    explanation = explained(
        rollout(RolloutState.MEASURING, 0, replace(POLICY, steps=(step,))), blocks(10), 10
    )

    need = {step_need.what: step_need for step_need in explanation.needs}["time"]
    assert not need.done
    assert need.eta_s
    assert need.eta_s >= 3000


def test_a_price_of_a_fraction_of_a_cent_is_told_by_the_thousand_answers() -> None:
    cost = Guardrail.COST_PER_SUCCESS
    seen = [
        replace(block, ranks={cost: (0.5,)}, levels={cost: ArmLevels(1.11e-05, 2.21e-05)})
        for block in blocks(3)
    ]
    rows = {row.guardrail: row for row in explained(waiting(), seen, 3).guardrails}
    assert rows[cost].candidate == "$0.0111 per 1,000 answers"
    assert rows[cost].incumbent == "$0.0221 per 1,000 answers"


def with_feedback(
    observation_blocks: list[ObservationBlock], opinions: int | None, bad: int = 0
) -> list[ObservationBlock]:
    """opinions: of the incumbent's units of a block, None for a block that does not tell."""

    def tally(block: ObservationBlock) -> FailureTally:
        units = (block.units, block.canary_units, bad, 0)
        return (
            FailureTally(*units)
            if opinions is None
            else FeedbackTally(*units, ArmSplit(opinions, 0))
        )

    return [
        replace(block, counts={Guardrail.FEEDBACK: tally(block)})
        for block in observation_blocks
    ]


def feedback_row(observation_blocks: list[ObservationBlock]) -> GuardrailRow:
    rows = explained(waiting(), observation_blocks, 12).guardrails
    return next(row for row in rows if row.guardrail is Guardrail.FEEDBACK)


def test_where_no_user_said_anything_there_is_no_feedback_yet() -> None:
    row = feedback_row(with_feedback(blocks(12), 0))

    assert row.says == "no feedback yet"
    assert (row.candidate, row.incumbent, row.exposures) == ("", "", 0)


def test_feedback_says_of_how_many_units_there_was_an_opinion() -> None:
    row = feedback_row(with_feedback(blocks(12), 5, bad=2))

    assert row.says == "no evidence of harm"
    assert row.candidate == "0 % (0 of 12, 0 with an opinion)"
    assert row.incumbent == "2 % (24 of 1,188, 60 with an opinion)"


def test_blocks_that_are_older_than_the_count_of_opinions_are_read_as_before() -> None:
    mixed = with_feedback(blocks(12), None)[:1] + with_feedback(blocks(12), 0)[1:]

    assert feedback_row(mixed).candidate == "0 % (0 of 12)"


def test_opinions_explain_the_evidence_and_are_none() -> None:
    now = START + 12 * HOUR / 60
    old, new = (
        decide_action(waiting(), with_feedback(blocks(12), figure, bad=2), now)
        for figure in (None, 7)
    )

    assert (old.log_e, old.reason, old.signal) == (new.log_e, new.reason, new.signal)
    value = Guardrail.FEEDBACK.value
    assert old.figures.guardrails[Guardrail(value)].opinions is None
    assert new.figures.guardrails[Guardrail(value)].opinions == OpinionTotals(0, 84)
