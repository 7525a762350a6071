from dataclasses import replace
from datetime import datetime
from typing import Final

import numpy as np
import pytest
import sqlalchemy as sa

from harness.canary import audit, decision, operations
from harness.canary.audit import ReplayedAction
from harness.canary.status import FailureShare, explain_canary
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, NotFound, SignatureInvalid
from harness.frame.plain_data import to_plain
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.canary_sentences import failed_callers, guard_sentence
from harness.gate.online.guardrails import Guardrail, Guardrails
from harness.gate.online.observation import Segment
from harness.gate.online.rollout import (
    ActionKind,
    CanaryEnd,
    ReasonCode,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.online.worker_guard import GuardCount, GuardError
from harness.interfaces.cli.canary_facts import rollout_facts
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from tests.support.canary.segmented_traffic import (
    SegmentTruth,
    simulate_segments,
)
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import CANARY
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F3", "F5")


def actions(world: SmallInstallation) -> dict[str, AuditEvent]:
    with world.store.read() as tx:
        return {e.action: e for e in AuditLog(tx).all() if e.action.startswith("canary.")}


@pytest.mark.spine
def test_every_action_up_to_the_promotion_comes_out_the_same(world: SmallInstallation) -> None:
    world.promoted()
    found = actions(world)

    assert {
        "canary.enough",
        "canary.step_done",
        "canary.promote",
    } <= found.keys()
    for event in found.values():
        again = audit.replay_action(world.context(), event.number)
        assert again.agrees, again.differences
        assert again.again_sha256 == event.details["decided_sha256"]


def test_blocks_that_came_after_the_decision_change_nothing(world: SmallInstallation) -> None:
    world.decided()
    for _ in range(3):
        world.run_once()
        world.feed(blocks=4)
    event = actions(world)["canary.enough"]
    before = audit.replay_action(world.context(), event.number)

    world.feed(blocks=9)

    assert audit.replay_action(world.context(), event.number) == before


def test_a_rollback_and_a_persons_hand_keep_their_inputs_too(world: SmallInstallation) -> None:
    world.decided()
    world.run_once()
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PAUSE, "lunch")
    world.feed(failing=True, blocks=30)
    world.run_once(turns=2)

    found = actions(world)

    assert audit.replay_action(world.context(), found["canary.pause"].number).agrees
    harm = audit.replay_action(world.context(), found["canary.harm"].number)
    assert harm.agrees
    assert isinstance(harm.decided, RolloutAction)
    assert harm.decided.signal is RolloutSignal.HARM


def test_a_person_ends_a_canary_whose_stored_blocks_cannot_be_read_as_counts(
    world: SmallInstallation,
) -> None:
    world.decided()
    world.run_once()
    world.feed(blocks=3)
    # Raises what is no InputError: no number is compared with a text.
    tally = '{"units": "many", "canary": 1, "failures": 1, "canary_failures": 1}'
    counts = f'{{"refusals": {tally}}}'
    with owned(world.store) as db:
        db.execute(sa.text("UPDATE block SET counts = :counts"), {"counts": counts})

    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "enough")

    (event,) = [event for action, event in actions(world).items() if "abort" in action]
    assert "inputs_unreadable" in event.details


@pytest.mark.parametrize("loss", ["changed", "not there"])
def test_a_canary_whose_proof_was_changed_or_is_not_there_goes_back(
    world: SmallInstallation, loss: str
) -> None:
    world.decided()
    world.run_once()
    with world.store.read() as tx:
        (rollout,) = Rollouts(tx).live()
    if loss == "changed":
        with owned(world.store) as db:
            assert db.execute(sa.text("UPDATE verdict SET reason = 'It is better.'")).rowcount
    else:
        rollout = replace(rollout, verdict="v_nobody")

    action = decision.decide(world.context(), rollout)

    assert (action.kind, action.signal) == (
        ActionKind.ROLLBACK,
        RolloutSignal.STALE,
    )
    assert action.reason.startswith("its proof is gone: ")


def test_what_is_no_action_of_a_canary_is_refused_in_words(world: SmallInstallation) -> None:
    with pytest.raises(InputError, match="has no inputs"):
        audit.replay_action(world.context(), 1)
    with pytest.raises(NotFound, match="no event 9999"):
        audit.replay_action(world.context(), 9999)


@pytest.mark.parametrize(
    ("forgery", "said"),
    [
        (
            "UPDATE block SET failures = failures + 1 WHERE number = 1",
            "differ from the blocks",
        ),
        ("DELETE FROM block WHERE number = 2", "blocks were used"),
        (
            "UPDATE rollout SET policy = replace(policy, '0.05', '0.5')",
            "policy",
        ),
    ],
)
def test_tampering_with_blocks_or_policy_is_seen(
    world: SmallInstallation,
    forgery: str,
    said: str,
) -> None:
    world.promoted()
    event = actions(world)["canary.promote"]
    with owned(world.store) as db:
        assert db.execute(sa.text(forgery)).rowcount

    if "rollout" in forgery:  # it is signed: nothing is decided from it any more
        with pytest.raises(SignatureInvalid, match="rollout"):
            audit.replay_action(world.context(), event.number)
    else:
        action = audit.replay_action(world.context(), event.number)
        assert not action.agrees
        assert any(said in difference for difference in action.differences), action.differences


SAID = "The harm is in requests with tools: "


def harmed_tools(world: SmallInstallation, rate: float) -> Rollout:
    """A canary that fails with tools at this rate; its blocks are stored."""
    rollout = opened(world)
    store_blocks(world, rollout, rate)
    return rollout


def opened(world: SmallInstallation) -> Rollout:
    canary = replace(CANARY, guardrails=Guardrails.none())
    world.policy = replace(world.policy, canary=canary)
    world.decided()
    world.run_once()
    with world.store.read() as tx:
        (rollout,) = Rollouts(tx).live()
    return rollout


def store_blocks(
    world: SmallInstallation,
    rollout: Rollout,
    rate: float,
    first: int = 0,
) -> None:
    harmed = simulate_segments(
        SegmentTruth(Segment.TOOLS, canary=rate),
        blocks=40,
        rng=np.random.default_rng([2, first]),
        share=0.1,
    )
    at = world.clock.now()
    blocks = [
        replace(
            block,
            rollout=rollout.id,
            opened_at=at,
            closed_at=at,
            sequence=first + block.sequence,
        )
        for block in harmed
    ]
    with world.store.write() as tx:
        Observations(tx).append(blocks, [])


def test_a_rollback_by_a_guard_of_an_older_router_shows_its_text_as_stored(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.01)
    text = "Worker w saw 3 of 3 units fail."
    with world.store.write() as tx:
        alerts.raise_alert(
            tx,
            AlertKind.LOCAL_ABORT,
            rollout.id,
            subject="route chat",
            title="the router stopped the canary",
            text=text,
        )
    world.run_once()

    found = explain_canary(world.context(), "chat").status
    assert found.rollout.state is RolloutState.ROLLED_BACK
    assert found.rollout.end is CanaryEnd.ROLLED_BACK
    assert found.state.reason == text


def guard_alert(
    rollout: Rollout,
    at: datetime,
    count: GuardCount,
) -> Alert:
    kind = AlertKind.LOCAL_ABORT
    key = f"{kind.value}:{rollout.id}"
    return Alert(
        kind,
        "route chat",
        key,
        "the router stopped it",
        guard_sentence(count),
        at,
        "w",
        details=to_plain(count),
    )


COUNT: Final = GuardCount(
    8,
    3,
    0,
    log_e=7.0,
    log_limit=6.0,
    canary_classes={"overloaded": 3},
    control_exposures=24,
    error=GuardError("overloaded", 503, 3),
)


def stopped_by_guard(world: SmallInstallation, rollout: Rollout, count: GuardCount) -> None:
    with world.store.write() as tx:
        Alerts(tx).fold([guard_alert(rollout, tx.now(), count)])
    world.run_once()


@pytest.mark.req("F4")
@pytest.mark.both_databases
def test_after_a_rollback_by_a_guard_its_counts_are_shown_from_the_first_second(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.0)
    older = explain_canary(world.context(), "chat").status
    assert older.action.figures.canary_units > 8
    stopped_by_guard(world, rollout, COUNT)

    first = explain_canary(world.context(), "chat").status
    # The blocks with the guard's requests, and with later ones, come after the end.
    store_blocks(world, rollout, rate=0.9, first=40)
    later = explain_canary(world.context(), "chat").status

    for shown in (first, later):
        figures = shown.action.figures
        assert (figures.canary_failures, figures.canary_units) == (3, 8)
        assert (figures.control_failures, figures.control_units) == (0, 24)
        assert figures.guard == COUNT
        last = shown.timeline[-1]
        assert (last.candidate, last.incumbent) == (FailureShare(3, 8), FailureShare(0, 24))
        assert (last.distance, shown.action.distance_to_trip) == (1.0, 1.0)
        errors = shown.explanation.guardrails[0]
        assert (errors.exposures, errors.distance, errors.furthest) == (8, 1.0, 1.0)
        assert shown.action.code is ReasonCode.GUARD
        assert shown.state.reason == shown.explanation.why == guard_sentence(COUNT)
        assert dict(rollout_facts(shown))["failed"] == failed_callers(figures)
    assert later.blocks == first.blocks
    assert later.state == first.state


@pytest.mark.req("F4")
def test_the_event_the_alert_and_the_proposal_of_a_guards_rollback_have_its_counts(
    world: SmallInstallation,
) -> None:
    rollout = opened(world)
    stopped_by_guard(world, rollout, COUNT)

    with world.store.read() as tx:
        (event,) = [event for event in AuditLog(tx).all() if event.action == "canary.harm"]
        texts = {alert.kind: alert.text for alert in Alerts(tx).list()}
        proposal = Proposals(tx).get(rollout.proposal)
    assert event.details["guard"] == to_plain(COUNT)
    assert (event.details["code"], event.details["canary_units"]) == ("guard", 8)
    assert event.details["ending"] == to_plain(proposal.ending)
    assert proposal.end is CanaryEnd.ROLLED_BACK
    assert guard_sentence(COUNT) in texts[AlertKind.ROLLED_BACK]
    assert not audit.replay_action(world.context(), event.number).differences


@pytest.mark.req("F4")
def test_a_canary_that_later_turns_stopped_shows_the_callers_that_the_guard_counted(
    world: SmallInstallation,
) -> None:
    rollout = opened(world)
    stopped_by_guard(world, rollout, replace(COUNT, exposures=20, window_s=600.0))

    found = explain_canary(world.context(), "chat").status
    errors, windows = found.explanation.guardrails[:2]
    assert errors.exposures == 0
    assert (windows.guardrail, windows.exposures) == (Guardrail.CALLER_ERRORS, 20)


def test_an_event_of_an_older_version_is_compared_by_its_figures(
    world: SmallInstallation,
) -> None:
    harmed_tools(world, rate=0.9)
    world.run_once(turns=2)
    with world.store.read() as tx:
        (event,) = [event for event in AuditLog(tx).all() if event.action == "canary.harm"]
        rollout = Rollouts(tx).get(str(event.details["rollout"]))
        blocks = Observations(tx).blocks(rollout.id)
    decided = audit.repeat_end(rollout, rollout.decided, blocks)[0] if rollout.decided else None
    assert decided is not None
    old = {name: value for name, value in event.details.items() if name != "decided"}

    def compare(details: dict[str, object]) -> bool:
        replayed = ReplayedAction(replace(event, details=details), rollout.id, len(blocks), ())
        return replayed.decide_again("the blocks give", lambda: decided).agrees

    assert compare({**old, "decided_sha256": "a hash with the sentence"})
    assert not compare({**old, "log_e": 1.0})


@pytest.mark.spine
def test_a_rollback_names_the_segment_and_is_decided_again_the_same(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.9)
    world.run_once(turns=2)

    with world.store.read() as tx:
        (event,) = [event for event in AuditLog(tx).all() if event.action == "canary.harm"]
        ended = Rollouts(tx).get(rollout.id)
        alerts = [alert.text for alert in Alerts(tx).list()]
    assert SAID in ended.ended_because
    guardrails = event.details["guardrails"]
    assert isinstance(guardrails, dict)
    assert guardrails["errors"]["segment"]["segment"] == "tools"
    assert any(SAID in text for text in alerts)
    again = audit.replay_action(world.context(), event.number)
    assert again.agrees, again.differences
    assert again.again_sha256 == event.details["decided_sha256"]
