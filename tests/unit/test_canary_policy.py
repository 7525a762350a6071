from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.plain_data import canonical_json
from harness.gate.online.guardrails import ArmSplit, ErrorTally, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import (
    ActionKind,
    ReasonCode,
    Rollout,
    RolloutSignal,
    RolloutState,
    next_state,
)
from harness.gate.online.rollout_action import decide_action
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.store import records
from tests.support.store.records import PLAIN_BLOCK

pytestmark = pytest.mark.req("F3", "A7")

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = CanaryPolicy(
    steps=(
        CanaryStep(100, 20, deadline_s=7 * 86_400.0),
        CanaryStep(500, 50, deadline_s=7 * 86_400.0),
        CanaryStep(
            2500,
            100,
            certify=True,
            deadline_s=7 * 86_400.0,
        ),
    )
)


def rollout(
    state: RolloutState,
    step: int = 0,
    policy: CanaryPolicy = POLICY,
) -> Rollout:
    built = records.rollout(state=state, step=step, policy=policy)
    return replace(
        built,
        started_at=START,
        step_started_at=START,
        updated_at=START,
    )


def blocks(
    count: int,
    canary: int,
    failures: int = 0,
    canary_failures: int = 0,
    weight_bps: int = 100,
    first: int = 1,
) -> list[ObservationBlock]:
    return [
        replace(
            PLAIN_BLOCK,
            sequence=number,
            number=number,
            weight_bps=weight_bps,
            canary_units=canary,
            failures=failures,
            canary_failures=canary_failures,
            opened_at=START,
            closed_at=START,
        )
        for number in range(first, first + count)
    ]


def ask(
    found: Rollout,
    data: Sequence[ObservationBlock],
    now: datetime = START,
) -> tuple[ActionKind, RolloutSignal | None]:
    action = decide_action(found, data, now)
    if action.signal is not None:
        next_state(found.state, action.signal)
    canonical_json(action.figures.as_json())
    assert action.reason
    return action.kind, action.signal


def silent(
    data: Sequence[ObservationBlock],
    canary: int,
    control: int,
) -> list[ObservationBlock]:
    lost = ArmSplit(canary + control, canary)
    return [
        replace(
            block,
            failures=block.failures + canary + control,
            canary_failures=block.canary_failures + canary,
            missing=canary + control,
            counts={
                Guardrail.ERRORS: ErrorTally(
                    block.units,
                    block.canary_units,
                    block.failures + canary + control,
                    block.canary_failures + canary,
                    {"missing": lost},
                )
            },
        )
        for block in data
    ]


W = RolloutState.WAITING
M = RolloutState.MEASURING
P = RolloutState.PAUSED
HELD = (ActionKind.HOLD, None)


def test_silence_is_paused_at_the_deadline() -> None:
    late = START + 7 * DAY
    assert ask(rollout(W), [], late - timedelta(seconds=1)) == HELD
    assert ask(rollout(W), [], late) == (
        ActionKind.PAUSE,
        RolloutSignal.SILENT,
    )
    few = decide_action(rollout(W), blocks(3, 1), late)
    assert few.signal is RolloutSignal.SILENT
    assert (few.code, few.step_exposures) == (ReasonCode.TOO_FEW, 3)
    assert "at this pace they take 47 days" in few.reason


@pytest.mark.parametrize("state", [W, M, P])
def test_harm_rolls_back_from_every_live_state(state: RolloutState) -> None:
    sick = blocks(
        2,
        1,
        failures=1,
        canary_failures=1,
    )
    action = decide_action(rollout(state), sick, START)

    assert (action.kind, action.signal) == (
        ActionKind.ROLLBACK,
        RolloutSignal.HARM,
    )
    assert action.block == 2
    assert action.distance_to_trip == 1.0
    assert "2 of 2 against 0 of 198" in action.reason


def test_the_certified_step_promotes_only_with_its_certificate() -> None:
    last = rollout(M, step=2)
    short = blocks(6, 25, weight_bps=2500)
    held = decide_action(last, short, START)
    assert (held.kind, held.signal) == HELD
    assert "certificate of no harm is at" in held.reason
    assert "of 26.7" in held.reason  # the carried stream has three quarters
    enough = blocks(30, 25, weight_bps=2500)
    action = decide_action(last, enough, START)
    assert (action.kind, action.signal) == (
        ActionKind.PROMOTE,
        RolloutSignal.PROVEN,
    )
    assert action.figures.certificate > 20


def with_steps(*steps: CanaryStep) -> CanaryPolicy:
    return replace(POLICY, steps=steps)


EARLIER = blocks(90, 1)
MIDDLE = with_steps(CanaryStep(100, 20, certify=True), CanaryStep(500, 50))
FREE = with_steps(CanaryStep(100, 0), CanaryStep(500, 0))
ENOUGH = (ActionKind.HOLD, RolloutSignal.ENOUGH)
ON = (ActionKind.ADVANCE, RolloutSignal.STEP_DONE)
UP = (ActionKind.PROMOTE, RolloutSignal.PROVEN)


@pytest.mark.parametrize(
    ("found", "data", "days", "expected"),
    [
        # Waiting holds until the step has its exposures, those of an earlier step apart.
        (rollout(W), [], 0, HELD),
        (rollout(W), blocks(19, 1), 0, HELD),
        (rollout(W), blocks(20, 1), 0, ENOUGH),
        (rollout(W, step=1), EARLIER, 0, HELD),
        (
            rollout(W, step=1),
            [
                *EARLIER,
                *blocks(
                    10,
                    5,
                    weight_bps=500,
                    first=91,
                ),
            ],
            0,
            ENOUGH,
        ),
        # A step without a minimum still wants one exposure.
        (rollout(W, policy=FREE), [], 0, HELD),
        (rollout(M, policy=FREE), [], 0, HELD),
        (rollout(M, policy=FREE), blocks(3, 0), 0, HELD),
        (rollout(M, policy=FREE), blocks(1, 1), 0, ON),
        (rollout(M), blocks(20, 1), 0, ON),
        # A certified step in the middle goes on; a last one without a certificate promotes.
        (rollout(M, policy=MIDDLE), blocks(600, 1), 0, ON),
        (
            rollout(M, policy=with_steps(CanaryStep(100, 20))),
            blocks(20, 1),
            0,
            UP,
        ),
        # Evidence that does not decide is paused at the deadline.
        (
            rollout(M, step=2),
            blocks(6, 25, weight_bps=2500),
            7,
            (ActionKind.PAUSE, RolloutSignal.UNDECIDED),
        ),
    ],
)
def test_each_step_is_left_by_its_exposures_its_certificate_or_its_deadline(
    found: Rollout,
    data: list[ObservationBlock],
    days: int,
    expected: tuple[ActionKind, RolloutSignal | None],
) -> None:
    assert ask(found, data, START + days * DAY) == expected


@given(
    state=st.sampled_from([W, M, P]),
    step=st.integers(0, 2),
    canary=st.integers(0, 40),
    failed=st.integers(0, 40),
    others=st.integers(0, 60),
    count=st.integers(0, 12),
    days=st.floats(0, 20),
)
def test_every_signal_is_in_the_table_and_nothing_moves_up_without_data(
    state: RolloutState,
    step: int,
    canary: int,
    failed: int,
    others: int,
    count: int,
    days: float,
) -> None:
    failed = min(failed, canary)
    data = blocks(
        count,
        canary,
        failed + others,
        failed,
        weight_bps=POLICY.steps[step].weight_bps,
    )
    found = rollout(state, step)
    kind, signal = ask(
        found,
        data,
        START + timedelta(days=days),
    )
    if kind in (ActionKind.ADVANCE, ActionKind.PROMOTE) or signal is RolloutSignal.ENOUGH:
        assert count * canary >= POLICY.steps[step].min_exposures


def test_a_wrong_split_holds_until_a_person_resumes() -> None:
    sticky = replace(POLICY)
    wrong = blocks(40, 5)
    held = decide_action(rollout(M, policy=sticky), wrong, START)
    assert (held.kind, held.signal) == HELD
    assert "not the planned share" in held.reason

    resumed = replace(rollout(M, policy=sticky), step_started_at=START + DAY)
    onward = decide_action(resumed, wrong, START + DAY)
    assert onward.signal is RolloutSignal.STEP_DONE


def test_outcomes_that_never_came_neither_take_a_canary_back_nor_let_it_on() -> None:
    healthy = blocks(30, 1, failures=1)
    assert ask(rollout(M), healthy) == ON
    sick = blocks(
        30,
        1,
        failures=2,
        canary_failures=1,
    )
    assert ask(rollout(M), sick) == (ActionKind.ROLLBACK, RolloutSignal.HARM)

    assert ask(rollout(M), silent(healthy, 1, 0)) == HELD
    said = decide_action(rollout(M), silent(healthy, 1, 0), START).reason
    assert said.startswith("30 outcomes did not arrive: counted against the canary, they")
    assert ask(rollout(M), silent(sick, 0, 1)) == (
        ActionKind.ROLLBACK,
        RolloutSignal.HARM,
    )
    # Of the incumbent, some may be missing: whatever they are, there is no harm.
    assert ask(rollout(M), silent(healthy, 0, 1)) == ON
    # No silence of the incumbent certifies a canary that fails as often as it answers.
    plain = blocks(
        40,
        25,
        failures=2,
        canary_failures=1,
    )
    open_, known = (collect_evidence(data, POLICY) for data in (silent(plain, 0, 20), plain))
    assert open_.log_certificate <= known.log_certificate
