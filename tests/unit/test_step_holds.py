"""A step holds while too many requests prove nothing, and the hold names reason and counts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.left_out import (
    ExclusionCause,
    bound_blocks,
    compare_left_out,
    left_out_exposures,
    left_out_reason,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import (
    OutcomeKind,
    OutcomeReason,
    outcome_key,
)
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.online.uncounted import (
    UncountedReason,
    describe_uncountable,
    find_unsupported,
)
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.routing.records.block_checks import check_block
from tests.support.canary.left_out_traffic import (
    START,
    ArmTruth,
    LeftOutScene,
    simulate_left_out,
)

pytestmark = pytest.mark.req("F3", "B11")

POLICY = CanaryPolicy(
    steps=(CanaryStep(2_500, 100), CanaryStep(5_000, 1_000_000)),
    p0=0.05,
    warm_up_s=0.0,
)
PAUSE = outcome_key(OutcomeKind.NOT_SENT, OutcomeReason.PAUSE)
HANDOVER = UncountedReason.HANDOVER.value
ROLLOUT = Rollout(
    id="r",
    proposal="p",
    route="chat",
    incumbent="a",
    candidate="b",
    verdict="v",
    policy=POLICY,
    salt="s",
    step=0,
    state=RolloutState.MEASURING,
    started_at=START,
    step_started_at=START,
    updated_at=START,
)
Blocks = list[ObservationBlock]


def blocks_of(
    canary: ArmTruth,
    control: ArmTruth | None = None,
    blocks: int = 40,
) -> Blocks:
    scene = LeftOutScene(canary, control or ArmTruth())
    return simulate_left_out(scene, blocks=blocks, rng=np.random.default_rng(3))


def with_uncounted(blocks: Blocks, uncounted: Mapping[str, ArmSplit]) -> Blocks:
    return [replace(block, uncounted=uncounted) for block in blocks]


def decide(blocks: Blocks, rollout: Rollout = ROLLOUT) -> RolloutAction:
    return decide_action(rollout, blocks, datetime(2026, 1, 1, 1, tzinfo=UTC))


CERTIFYING = replace(
    ROLLOUT,
    policy=replace(POLICY, steps=(CanaryStep(2_500, 100, certify=True),), p0=0.5),
)


def test_blocks_of_the_simulation_can_be_stored() -> None:
    for block in blocks_of(ArmTruth(0.1, 0.1, 0.1, 0.1)):
        check_block(block)


def test_a_healthy_step_goes_on() -> None:
    assert decide(blocks_of(ArmTruth())).signal is RolloutSignal.STEP_DONE


def test_a_step_holds_if_more_than_a_tenth_was_not_sent() -> None:
    few = with_uncounted(blocks_of(ArmTruth()), {PAUSE: ArmSplit(2, 2)})
    assert decide(few).signal is RolloutSignal.STEP_DONE

    many = with_uncounted(blocks_of(ArmTruth()), {PAUSE: ArmSplit(6, 6)})
    action = decide(many)
    assert action.signal is None
    assert "were not sent, and 0 of the incumbent's" in action.reason
    assert "the provider requested a pause" in action.reason


def test_what_was_not_sent_before_a_person_resumed_does_not_hold() -> None:
    blocks = with_uncounted(blocks_of(ArmTruth()), {PAUSE: ArmSplit(9, 9)})
    resumed = replace(ROLLOUT, step_started_at=START + timedelta(minutes=10))
    assert decide(blocks, resumed).signal is RolloutSignal.STEP_DONE


def test_a_certificate_needs_nine_tenths_of_each_arm() -> None:
    control = ArmTruth(limited=0.2)
    action = decide(blocks_of(ArmTruth(limited=0.2), control), CERTIFYING)
    assert action.signal is None
    assert action.reason.startswith("A certificate needs 90 % of each arm's assigned requests")
    assert "rate limit" in action.reason


HIDDEN = ArmTruth(early=0.4)
SHOWN = ArmTruth(early=0.1)


def test_unlike_left_out_shares_hold_with_reason_and_counts_until_they_are_acknowledged() -> (
    None
):
    blocks = blocks_of(HIDDEN, SHOWN)
    action = decide(blocks)
    assert action.signal is None
    assert "callers who left early: " in action.reason
    assert "of the candidate, " in action.reason
    assert "swapproof canary resume" in action.reason

    acknowledged = replace(ROLLOUT, acknowledged=(ExclusionCause.EARLY.value,))
    assert decide(blocks, acknowledged).signal is RolloutSignal.STEP_DONE


def test_unlike_shares_that_change_no_step_hold_nothing() -> None:
    blocks = blocks_of(SHOWN, HIDDEN)
    assert [one.reason for one in compare_left_out(blocks)] == [ExclusionCause.EARLY]
    assert decide(blocks).signal is RolloutSignal.STEP_DONE


def test_the_excess_of_the_canary_counts_as_its_failures() -> None:
    blocks = blocks_of(HIDDEN, SHOWN)
    bounded = bound_blocks(blocks, [ExclusionCause.EARLY])
    canary = sum(block.canary_units for block in blocks)
    more = sum(block.canary_failures for block in bounded)
    more -= sum(block.canary_failures for block in blocks)
    assert 0.25 * canary < more < 0.35 * canary
    for block in bounded:
        check_block(block)


def test_limited_units_become_known_failures() -> None:
    blocks = blocks_of(ArmTruth(limited=0.5))
    bounded = bound_blocks(blocks, [ExclusionCause.LIMITED])
    unknown = sum(block.unknown_exposures.canary for block in bounded)
    assert unknown < 0.1 * sum(
        left_out_exposures(one, ExclusionCause.LIMITED).canary for one in blocks
    )
    for block in bounded:
        check_block(block)


def test_each_outcome_is_left_out_for_one_reason_or_counts() -> None:
    reasons = {
        kind: left_out_reason(outcome_key(kind, OutcomeReason.PROVIDER)) for kind in OutcomeKind
    }
    counted = {kind for kind, reason in reasons.items() if reason is None}
    assert counted == {
        OutcomeKind.ANSWERED,
        OutcomeKind.FAILED,
        OutcomeKind.CUT,
        OutcomeKind.STOPPED,
        OutcomeKind.LEFT,
    }
    assert left_out_reason("left: early") is ExclusionCause.EARLY
    assert left_out_reason("left: waited") is None
    assert left_out_reason("not_measured: missing") is None


def test_most_callers_who_cannot_be_counted_are_named_with_the_setting_that_helps() -> None:
    few = blocks_of(ArmTruth(), blocks=2)
    action = decide(with_uncounted(few, {HANDOVER: ArmSplit(900, 225)}))
    assert action.signal is None
    assert "Most callers can't be counted" in action.reason
    assert "`handover_s`" in action.reason
    assert describe_uncountable({HANDOVER: ArmSplit(40, 10)}, exposures=60) == ""
    for reason in UncountedReason:
        assert describe_uncountable({reason.value: ArmSplit(200, 50)}, exposures=0)


UNSUPPORTED = UncountedReason.UNSUPPORTED.value


def test_a_step_holds_while_the_candidate_cannot_take_many_requests() -> None:
    many = with_uncounted(blocks_of(ArmTruth()), {UNSUPPORTED: ArmSplit(40, 10)})
    held = decide(many)
    assert held.signal is None
    assert "The evidence speaks for" in held.reason
    assert "need an ability that the candidate lacks" in held.reason
    assert "`swapproof canary resume`" in held.reason

    known = replace(ROLLOUT, acknowledged=(ExclusionCause.UNSUPPORTED.value,))
    taken = decide(many, known)
    assert taken.signal is RolloutSignal.STEP_DONE
    # The reason is kept with the promotion, as a part of its evidence.
    assert "need an ability that the candidate lacks" in taken.reason


def test_few_requests_that_the_candidate_cannot_take_are_said_and_hold_no_step() -> None:
    blocks = blocks_of(ArmTruth())
    one = [replace(blocks[0], uncounted={UNSUPPORTED: ArmSplit(1, 1)}), *blocks[1:]]
    action = decide(one)
    assert action.signal is RolloutSignal.STEP_DONE
    assert "need an ability that the candidate lacks" in action.reason
    assert "ability" not in decide(blocks).reason


def test_unsupported_requests_count_once_whether_lacking_or_untranslated() -> None:
    untranslated = outcome_key(OutcomeKind.NOT_MEASURED, OutcomeReason.UNSUPPORTED)
    found = find_unsupported(
        ArmSplit(100, 50), {untranslated: ArmSplit(5, 5)}, {UNSUPPORTED: ArmSplit(20, 10)}
    )
    assert found == (15, 60)
    assert found.text == (
        "The evidence speaks for 75 % of the callers: 25 % (15 of 60) need an ability that "
        "the candidate lacks"
    )
    assert find_unsupported(ArmSplit(9, 4), {}, {}).text == ""
    assert left_out_reason(untranslated) is ExclusionCause.UNSUPPORTED
