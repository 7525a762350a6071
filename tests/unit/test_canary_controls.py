"""The Canary page: which move can be made, why another cannot, and what each one does."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dashboard.dialogs import canary_controls
from dashboard.text import canary_text, labels
from harness.control.canary.duration_estimate import CanaryReach, find_share_after
from harness.control.canary.status import CanaryStatus
from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState
from harness.domain.routing.target import Target
from harness.gate.online.next_step import decide_action
from harness.gate.online.rollout_action import RolloutFigures
from harness.gate.text.explain import explain_rollout
from tests.unit.test_canary_policy import START, rollout
from tests.unit.test_canary_sentences import POLICY, blocks

pytestmark = pytest.mark.req("F3")


def status(what: Rollout, observation_blocks: list[ObservationBlock]) -> CanaryStatus:
    now = START + timedelta(hours=1)
    action = decide_action(what, observation_blocks, now)
    old, new = (Target(provider="sim", model=name) for name in ("old", "new"))
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


def test_the_dialog_says_how_many_requests_an_act_concerns() -> None:
    first, last = (rollout(RolloutState.WAITING, step, POLICY) for step in (0, 1))
    seen = CanaryReach("sim/new", answered=12, requests=1_200)

    shares = {
        signal: find_share_after(first, signal)
        for signal in (RolloutSignal.ABORT, RolloutSignal.ADVANCE, RolloutSignal.PAUSE)
    }
    assert list(shares.values()) == [0, 2500, None]
    assert find_share_after(last, RolloutSignal.ADVANCE) is None
    of_three = [rollout(RolloutState.WAITING, step) for step in range(3)]
    advanced = [find_share_after(what, RolloutSignal.ADVANCE) for what in of_three]
    assert advanced == [500, 2500, None]
    so_far = "In the last hour sim/new answered 12 of this route's 1,200 requests"
    assert [seen.describe(share) for share in shares.values()] == [
        f"{so_far}; after this it answers none.",
        f"{so_far}; at 25 % it would have been about 300.",
        f"{so_far}.",
    ]
    assert "No request of this route was recorded" in CanaryReach("sim/new", 0, 0).describe(0)


def test_a_live_canary_can_be_moved_in_every_way_but_resumed() -> None:
    assert set(canary_controls.disabled_reasons(live())) == {RolloutSignal.RESUME}


def test_one_that_is_held_by_faults_of_a_router_can_be_resumed_in_its_bake_too() -> None:
    for state in (live(), baking()):
        held = replace(state, faults="On hold: routers failed once")
        assert RolloutSignal.RESUME not in canary_controls.disabled_reasons(held)
        assert RolloutSignal.RESUME in canary_controls.visible_signals(
            held.rollout, faults=True
        )
        assert "same step and time" in canary_controls.effect(held, RolloutSignal.RESUME)


def test_abort_comes_first_and_pause_and_resume_take_turns() -> None:
    onward = [RolloutSignal.ADVANCE, RolloutSignal.PROMOTE]

    running = canary_controls.visible_signals(live().rollout)
    paused = canary_controls.visible_signals(live(state=RolloutState.PAUSED).rollout)

    assert running == [RolloutSignal.ABORT, RolloutSignal.PAUSE, *onward]
    assert paused == [RolloutSignal.ABORT, RolloutSignal.RESUME, *onward]


def test_the_split_of_callers_is_checked_with_its_figures() -> None:
    planned = [replace(block, canary_units=1) for block in blocks(300)]
    skewed = [replace(block, canary_units=4) for block in blocks(300)]

    for counted, symbol in ((planned, "✓"), (skewed, "▲"), ([], "◷")):
        found = status(rollout(RolloutState.WAITING, 0, POLICY), counted)
        label, figures = canary_text.split_check(found)
        assert label.symbol == symbol
        assert figures.startswith("planned 1 % of the callers, ")
        assert [label for label, _ in canary_text.needs(found)].count(label) == 1


def test_a_certificate_beyond_its_goal_is_reached_and_not_millions_of_twenty() -> None:
    found = status(rollout(RolloutState.WAITING, 1, POLICY), blocks(60, bps=2500))
    action = replace(
        found.action,
        log_certificate=16.0,
        figures=replace(found.action.figures, certificate=8.9e6, certificate_at=20.0),
    )

    explanation = explain_rollout(found.rollout, action, found.blocks, START)

    (need,) = [need for need in explanation.needs if need.what == "certificate"]
    assert need.words == "the certificate of no harm is reached (20)"


def test_a_paused_one_can_be_resumed_and_not_paused() -> None:
    assert set(canary_controls.disabled_reasons(live(state=RolloutState.PAUSED))) == {
        RolloutSignal.PAUSE
    }


def test_at_the_last_step_there_is_no_step_on() -> None:
    assert (
        canary_controls.disabled_reasons(live(step=1))[RolloutSignal.ADVANCE]
        == canary_controls.LAST
    )


def test_with_harm_shown_it_cannot_go_on_by_hand() -> None:
    signals = canary_controls.disabled_reasons(
        status(rollout(RolloutState.WAITING, 0, POLICY), blocks(30, failing=True))
    )

    assert (
        signals[RolloutSignal.ADVANCE] == signals[RolloutSignal.PROMOTE] == canary_controls.HARM
    )
    assert RolloutSignal.ABORT not in signals


def test_who_overrules_the_plan_is_told_what_the_data_say_against_it() -> None:
    canary_status = status(rollout(RolloutState.WAITING, 0, POLICY), blocks(12, slow=True))

    assert (
        canary_controls.objections(canary_status, RolloutSignal.ADVANCE)
        == canary_status.explanation.against
    )
    assert canary_controls.objections(canary_status, RolloutSignal.PROMOTE)
    assert not canary_controls.objections(canary_status, RolloutSignal.ABORT)
    assert not canary_controls.objections(live(), RolloutSignal.ADVANCE)


@pytest.mark.parametrize(
    ("log_e", "distance", "symbol", "tone"),
    [
        (-0.5, 0.0, "✓", labels.Tone.BETTER),
        (0.5, 0.1, "=", labels.Tone.NEUTRAL),
        (1.2, 0.2, "?", labels.Tone.UNDECIDED),
        (2.31, 0.4, "▲", labels.Tone.UNDECIDED),
        (5.0, 1.0, "✕", labels.Tone.WORSE),
    ],
)
def test_the_sign_of_a_guardrail_says_what_its_words_say(
    log_e: float, distance: float, symbol: str, tone: labels.Tone
) -> None:
    canary_status = status(rollout(RolloutState.WAITING, 0, POLICY), blocks(12))
    action = replace(
        canary_status.action,
        figures=with_errors_at(canary_status.action.figures, log_e, distance),
    )
    explanation = explain_rollout(canary_status.rollout, action, canary_status.blocks, START)

    (label,) = [
        row.label
        for row in canary_text.guardrails(replace(canary_status, explanation=explanation))
        if row.name == "Errors"
    ]

    assert (label.symbol, label.tone) == (symbol, tone)
    strong = "strong" in label.words
    assert strong is (symbol == "▲")


def with_errors_at(figures: RolloutFigures, log_e: float, distance: float) -> RolloutFigures:
    errors = replace(
        figures.guardrails[Guardrail.ERRORS],
        log_e=log_e,
        log_e_max=log_e,
        distance_to_trip=distance,
    )
    return replace(figures, guardrails={**figures.guardrails, Guardrail.ERRORS: errors})


def test_a_bake_is_finished_or_taken_back() -> None:
    found = baking()

    assert canary_controls.visible_signals(found.rollout) == [
        RolloutSignal.ABORT,
        RolloutSignal.FINISH,
    ]
    assert not {RolloutSignal.FINISH, RolloutSignal.ABORT} & set(
        canary_controls.disabled_reasons(found)
    )
    assert "From 100 % to 0 % for sim/new" in canary_controls.effect(found, RolloutSignal.ABORT)


def test_what_has_ended_says_so_for_every_button() -> None:
    found = status(rollout(RolloutState.ROLLED_BACK, 0, POLICY), blocks(3))

    assert set(canary_controls.disabled_reasons(found).values()) == {canary_controls.ENDED}
    assert canary_controls.visible_signals(found.rollout) == []


@pytest.mark.parametrize(
    ("signal", "says"),
    [
        (RolloutSignal.ADVANCE, "From 1 % to 25 % for sim/new"),
        (RolloutSignal.PROMOTE, "From 1 % to 100 % for sim/new"),
        (RolloutSignal.ABORT, "From 1 % to 0 %: all traffic goes back to sim/old"),
    ],
)
def test_the_question_names_percents_and_models(signal: RolloutSignal, says: str) -> None:
    assert says in canary_controls.effect(live(), signal)
