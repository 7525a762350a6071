"""A canary's state in words: one for Overview, Canary page and command line; trouble first."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dashboard.text import labels
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import Rollout, RolloutState
from harness.gate.online.next_step import decide_action
from harness.gate.text.canary_state import CanaryState, CanaryStateKind, describe_canary_state
from harness.gate.text.explain import explain_rollout
from tests.unit.test_canary_explained import POLICY, blocks
from tests.unit.test_canary_policy import START, rollout

pytestmark = pytest.mark.req("F3")

HOLD = "On hold: no router has recorded anything of this route for 5 min"


def described(
    what: Rollout, counted: list[ObservationBlock], *holds: str, pause_reason: str = ""
) -> CanaryState:
    now = START + timedelta(minutes=20)
    action = decide_action(what, counted, now)
    return describe_canary_state(
        what,
        holds,
        action,
        explain_rollout(what, action, counted, now),
        pause_reason=pause_reason,
    )


def waiting() -> Rollout:
    return rollout(RolloutState.WAITING, 0, POLICY)


def test_a_hold_is_said_before_that_no_harm_shows_and_harm_before_a_hold() -> None:
    calm, held = described(waiting(), blocks(10)), described(waiting(), blocks(10), HOLD)
    harmed = described(waiting(), blocks(19, failing=True), HOLD)

    assert calm.predicate == "shows no harm so far, at 1 %"
    assert (held.kind, held.predicate) == (CanaryStateKind.HELD, "is on hold at 1 %")
    assert held.reason == "No router has recorded anything of this route for 5 min."
    assert held.next_step.startswith("its share stays at 1 % until the hold ends.")
    assert harmed.kind is CanaryStateKind.HARM
    assert "rolled back within seconds" in harmed.next_step


def test_a_pause_says_who_paused_it_what_else_holds_it_and_that_a_person_goes_on() -> None:
    paused = replace(waiting(), state=RolloutState.PAUSED)

    found = described(paused, blocks(10), HOLD, pause_reason="pause by ben: lunch")

    assert found.words == "paused at 1 %, and on hold"
    assert found.reason.startswith("Pause by ben: lunch. No router has recorded")
    assert found.next_step.startswith("a person resumes or aborts it")


def test_the_next_step_has_its_time_or_says_why_it_has_none() -> None:
    skewed = [replace(block, canary_units=4) for block in blocks(300)]

    assert described(waiting(), blocks(10)).next_step.startswith(
        "to 25 % in about 20 min. If harm"
    )
    assert described(waiting(), []).next_step.startswith(
        "to 25 %, no estimate yet: too little traffic."
    )
    assert described(waiting(), skewed).next_step.startswith(
        "to 25 %, once callers are split as planned."
    )


def test_without_traffic_it_is_not_called_harmless() -> None:
    found = described(waiting(), [])

    assert found.predicate == "has no traffic counted yet, at 1 %"
    assert found.reason == "This step needs 20 canary callers; none has been counted yet."


def test_what_has_ended_says_so_whatever_else_is_known() -> None:
    back = rollout(RolloutState.ROLLED_BACK, 0, POLICY)
    ended = replace(back, ended_because="abort by ana: the customer asked")
    baking = replace(
        rollout(RolloutState.PROMOTED, 1, POLICY), bake_ends_at=START + timedelta(hours=5)
    )

    found = described(ended, blocks(10), HOLD)

    assert (found.words, found.reason) == ("aborted", "Abort by ana: the customer asked.")
    harmed = replace(back, ended_because="errors are more frequent")
    assert described(harmed, blocks(10)).predicate == "was rolled back"
    assert described(baking, blocks(10)).predicate == "is promoted and baking"
    assert described(baking, blocks(10), HOLD).predicate == "is on hold after its promotion"
    over = described(replace(baking, bake_ends_at=None), blocks(10))
    assert over.next_step == "nothing; the candidate became the route's model."


def test_a_list_of_routes_says_it_with_the_same_words() -> None:
    back = rollout(RolloutState.ROLLED_BACK, 0, POLICY)
    baking = replace(
        rollout(RolloutState.PROMOTED, 1, POLICY), bake_ends_at=START + timedelta(hours=5)
    )
    aborted = replace(back, ended_because="abort by ana: the customer asked")

    assert [
        described(what, blocks(10), *holds).of_route
        for what, holds in (
            (waiting(), ()), (waiting(), (HOLD,)), (back, ()), (aborted, ()), (baking, ()),
            (baking, (HOLD,)),
        )
    ] == [
        "canary shows no harm so far, at 1 %",
        "canary on hold at 1 %",
        "canary rolled back",
        "canary aborted",
        "promoted and baking",
        "on hold after its promotion",
    ]  # fmt: skip


def test_strong_evidence_is_said_beside_a_hold_and_alone() -> None:
    action = decide_action(waiting(), blocks(10), START + timedelta(minutes=20))
    strong = replace(action, distance_to_trip=0.6)

    alone, held = (describe_canary_state(waiting(), holds, strong) for holds in ((), (HOLD,)))

    assert alone.words == "may be hurting users, at 1 %"
    assert held.words == "on hold at 1 %, and may be hurting users"


def test_who_has_no_evidence_at_hand_claims_none() -> None:
    assert describe_canary_state(waiting(), ()).words == "running at 1 %"
    assert describe_canary_state(waiting(), (HOLD,)).words == "on hold at 1 %"


@pytest.mark.parametrize("kind", CanaryStateKind)
def test_every_state_has_a_sign_of_its_own_kind(kind: CanaryStateKind) -> None:
    label = labels.canary_label(CanaryState(kind, "words", "is so", "because"))

    assert len(label.symbol) == 1
    calm = kind in (
        CanaryStateKind.HEALTHY, CanaryStateKind.BAKING, CanaryStateKind.PROMOTED,
    )  # fmt: skip
    assert (label.tone is labels.Tone.BETTER) is calm
