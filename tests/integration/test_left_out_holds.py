"""An approver acknowledges once why the arms leave out unlike shares, and decisions replay."""

from dataclasses import replace

import pytest

from harness.canary import audit, operations
from harness.frame.errors import IllegalTransition, NotAllowed
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.router_rows import block_of

pytestmark = pytest.mark.req("F3", "F5")


def feed_left_out(
    world: SmallInstallation,
    *,
    first: int,
    blocks: int,
) -> None:
    """Appends blocks in which only the canary's callers leave early, all of them."""
    rollout = stored(world)
    new = []
    for number in range(first, first + blocks):
        block = replace(
            block_of(rollout, number, world.clock, failing=False),
            failures=0,
            canary_failures=0,
        )
        canary = block.canary_units
        outcomes = {
            "answered": ArmSplit(block.units - canary, 0),
            "left: early": ArmSplit(canary, canary),
        }
        new.append(replace(block, outcomes=outcomes))
    with world.store.write() as tx:
        Observations(tx).append(new, [])


def stored(world: SmallInstallation) -> Rollout:
    with world.store.read() as tx:
        (rollout,) = Rollouts(tx).live()
    return rollout


def canary_events(world: SmallInstallation) -> list[AuditEvent]:
    with world.store.read() as tx:
        return [e for e in AuditLog(tx).all() if e.action.startswith("canary.")]


def test_an_approver_acknowledges_a_difference_once_and_every_decision_replays(
    world: SmallInstallation,
) -> None:
    world.decided()
    world.run_once()
    feed_left_out(world, first=0, blocks=30)
    world.run_once(turns=3)
    held = stored(world)
    assert (held.step, held.state) == (0, RolloutState.MEASURING)
    with pytest.raises(NotAllowed):
        operations.operate(world.context(), ANN, "chat", RolloutSignal.RESUME, "known")

    operations.operate(
        world.context(),
        BEN,
        "chat",
        RolloutSignal.RESUME,
        "our own load test leaves early",
    )
    acknowledged = stored(world)
    world.run_once(turns=3)

    assert acknowledged.acknowledged == ("left_early",)
    assert stored(world).step == 1
    events = canary_events(world)
    (event,) = [e for e in events if e.action == "canary.acknowledge"]
    texts = event.details["acknowledged"]
    assert isinstance(texts, dict)
    assert "callers who left early: 30 of 30" in texts["left_early"]
    for event in events:
        if "inputs" in event.details:
            again = audit.replay_action(world.context(), event.number)
            assert again.agrees, again.differences
    with pytest.raises(IllegalTransition):
        operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "again")
