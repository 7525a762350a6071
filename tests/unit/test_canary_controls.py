from dataclasses import replace
from datetime import timedelta

import pytest

from dashboard import labels
from dashboard.views import canary as canary_controls
from dashboard.views import canary_text
from harness.canary.canary_state import describe_effect
from harness.canary.status import CanaryStatus
from harness.gate.explain import explain_rollout
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import decide_action
from harness.providers.target import Target
from tests.unit.test_canary_policy import START, rollout
from tests.unit.test_canary_sentences import POLICY, blocks

pytestmark = pytest.mark.req("F3")


def status(what: Rollout, observation_blocks: list[ObservationBlock]) -> CanaryStatus:
    now = START + timedelta(hours=1)
    action = decide_action(what, observation_blocks, now)
    old = Target(provider="sim", model="old")
    new = Target(provider="sim", model="new")
    return CanaryStatus(
        what,
        old,
        new,
        action,
        observation_blocks,
        explain_rollout(what, action, observation_blocks, now),
    )


def live(step: int = 0, state: RolloutState = RolloutState.WAITING) -> CanaryStatus:
    return status(rollout(state, step, POLICY), blocks(3))


def baking() -> CanaryStatus:
    ends = START + timedelta(hours=9)
    what = rollout(RolloutState.PROMOTED, 1, POLICY)
    return status(replace(what, bake_ends_at=ends), blocks(3))


def effect(found: CanaryStatus, signal: RolloutSignal) -> str:
    return describe_effect(found.rollout, found.candidate.name, found.incumbent.name, signal)


S = RolloutSignal
ONWARD = [S.ADVANCE, S.PROMOTE]


def test_each_state_has_its_buttons_and_says_why_one_is_off() -> None:
    harmed = status(rollout(RolloutState.WAITING, 0, POLICY), blocks(30, failing=True))
    ended = status(rollout(RolloutState.ROLLED_BACK, 0, POLICY), blocks(3))
    paused = live(state=RolloutState.PAUSED)
    # By state: the buttons in their order, and those that are off.
    for canary, shown, off in (
        (
            live(),
            [S.ABORT, S.PAUSE, *ONWARD],
            {},
        ),
        (paused, [S.ABORT, S.RESUME, *ONWARD], {}),
        (
            live(step=1),
            [S.ABORT, S.PAUSE, *ONWARD],
            {S.ADVANCE: canary_controls.LAST},
        ),
        (
            harmed,
            [S.ABORT, S.PAUSE, *ONWARD],
            dict.fromkeys(ONWARD, canary_controls.HARM),
        ),
        (
            baking(),
            [S.ABORT, S.FINISH],
            {},
        ),
        (ended, [], {}),
    ):
        buttons = canary_controls.list_buttons(canary)
        assert list(buttons) == shown
        assert {signal: why for signal, why in buttons.items() if why} == off


def test_one_that_is_held_by_faults_of_a_router_can_be_resumed_in_its_bake_too() -> None:
    for state in (live(), baking()):
        held = replace(state, faults="On hold: routers failed once")
        assert canary_controls.list_buttons(held)[S.RESUME] == ""
        assert "same step and time" in effect(held, S.RESUME)
    assert "From 1 % to 25 % for sim/new" in effect(live(), S.ADVANCE)
    assert "From 100 % to 0 % for sim/new" in effect(baking(), S.ABORT)


def test_the_split_of_callers_is_checked_with_its_figures() -> None:
    planned = [replace(block, canary_units=1) for block in blocks(300)]
    skewed = [replace(block, canary_units=4) for block in blocks(300)]

    for counted, symbol in (
        (planned, "✓"),
        (skewed, "▲"),
        ([], "◷"),
    ):
        found = status(rollout(RolloutState.WAITING, 0, POLICY), counted)
        label, figures = canary_text.split_check(found)
        assert label.symbol == symbol
        assert figures.startswith("planned 1 % of the callers, ")
        assert [label for label, _ in canary_text.needs(found)].count(label) == 1


def test_who_overrules_the_plan_is_told_what_the_data_say_against_it() -> None:
    canary_status = status(rollout(RolloutState.WAITING, 0, POLICY), blocks(12, slow=True))

    against = canary_status.explanation.against
    assert against
    for signal, objections in (
        (S.ADVANCE, against),
        (S.PROMOTE, against),
        (S.ABORT, ()),
    ):
        assert canary_status.objections(signal) == objections
    assert not live().objections(S.ADVANCE)


def test_the_sign_of_a_guardrail_is_that_of_its_evidence() -> None:
    (row, *_) = live().explanation.guardrails
    for log_e, distance, warns, symbol, tone in (
        (-0.5, 0.0, False, "✓", labels.Tone.BETTER),
        (0.5, 0.1, False, "=", labels.Tone.NEUTRAL),
        (1.2, 0.2, False, "?", labels.Tone.UNDECIDED),
        (2.31, 0.4, True, "▲", labels.Tone.UNDECIDED),
        (5.0, 1.0, True, "✕", labels.Tone.WORSE),
    ):
        found = replace(
            row,
            log_e=log_e,
            distance=distance,
            warns=warns,
        )
        label = canary_text.evidence_label(found)
        assert (label.symbol, label.tone) == (symbol, tone)
