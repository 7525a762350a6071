from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.control.canary import audit, decision, operations
from harness.domain.canary.rollout import ActionKind, RolloutSignal
from harness.domain.errors import InputError, NotFound, SignatureInvalid
from harness.domain.operations.audit import AuditEvent
from harness.gate.online.rollout_action import RolloutAction
from tests.support.control.control_plane import BEN, SmallInstallation
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5", "F3")


def actions(world: SmallInstallation) -> dict[str, AuditEvent]:
    with world.store.read() as tx:
        return {e.action: e for e in tx.audit.all() if e.action.startswith("canary.")}


def test_every_action_up_to_the_promotion_comes_out_the_same(world: SmallInstallation) -> None:
    world.promoted()
    found = actions(world)

    assert {"canary.enough", "canary.step_done", "canary.promote"} <= found.keys()
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
        (rollout,) = tx.rollouts.live()
    if loss == "changed":
        with owned(world.store) as db:
            assert db.execute(sa.text("UPDATE verdict SET reason = 'It is better.'")).rowcount
    else:
        rollout = replace(rollout, verdict="v_nobody")

    action = decision.decide(world.context(), rollout)

    assert (action.kind, action.signal) == (ActionKind.ROLLBACK, RolloutSignal.STALE)
    assert action.reason.startswith("its proof is gone: ")


def test_what_is_no_action_of_a_canary_is_refused_in_words(world: SmallInstallation) -> None:
    with pytest.raises(InputError, match="keeps no inputs"):
        audit.replay_action(world.context(), 1)
    with pytest.raises(NotFound, match="no event 9999"):
        audit.replay_action(world.context(), 9999)


@pytest.mark.parametrize(
    ("forgery", "said"),
    [
        ("UPDATE block SET failures = failures + 1 WHERE number = 1", "not those"),
        ("DELETE FROM block WHERE number = 2", "blocks were used"),
        ("UPDATE rollout SET policy = replace(policy, '0.05', '0.5')", "policy"),
    ],
)
def test_tampering_with_blocks_or_policy_is_seen(
    world: SmallInstallation, forgery: str, said: str
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
