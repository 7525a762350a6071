from dataclasses import replace

import numpy as np
import pytest

from harness.control.canary import audit
from harness.control.canary.status import explain_canary
from harness.control.operations import alerts
from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.observation import Segment
from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.operations.alerts import AlertKind
from tests.support.canary.segmented_traffic import SegmentTruth, simulate_segments
from tests.support.control.control_plane import CANARY, SmallInstallation

pytestmark = pytest.mark.req("F3", "F5")
SAID = "The harm is in requests with tools: "


def harmed_tools(world: SmallInstallation, rate: float) -> Rollout:
    """A canary that fails with tools at this rate; its blocks are stored."""
    canary = replace(CANARY, guardrails=Guardrails.none())
    world.policy = replace(world.policy, canary=canary)
    world.decided()
    world.run_once()
    with world.store.read() as tx:
        (rollout,) = tx.rollouts.live()
    store_blocks(world, rollout, rate)
    return rollout


def store_blocks(
    world: SmallInstallation, rollout: Rollout, rate: float, first: int = 0
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
        tx.observations.append(blocks, [])


def test_a_rollback_by_a_routers_own_guard_names_the_segment_once_its_blocks_show_it(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.01)
    with world.store.write() as tx:
        alerts.raise_alert(
            tx, AlertKind.LOCAL_ABORT, rollout.id, subject="route chat",
            title="the router stopped the canary", text="Worker w saw 3 of 3 keys fail.",
        )  # fmt: skip
    world.run_once()
    found = explain_canary(world.context(), "chat").status
    assert found.rollout.state is RolloutState.ROLLED_BACK
    assert SAID not in str(found.explanation)

    store_blocks(world, rollout, rate=0.9, first=40)

    found = explain_canary(world.context(), "chat").status
    assert found.action.figures.segment is not None
    lines = found.explanation.guardrails[0].classes
    assert any(SAID in line for line in lines), lines


def test_a_rollback_names_the_segment_and_is_decided_again_the_same(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.9)
    world.run_once(turns=2)

    with world.store.read() as tx:
        (event,) = [event for event in tx.audit.all() if event.action == "canary.harm"]
        ended = tx.rollouts.get(rollout.id)
        alerts = [alert.text for alert in tx.alerts.list()]
    assert SAID in ended.ended_because
    guardrails = event.details["guardrails"]
    assert isinstance(guardrails, dict)
    assert guardrails["errors"]["segment"]["segment"] == "tools"
    assert any(SAID in text for text in alerts)
    again = audit.replay_action(world.context(), event.number)
    assert again.agrees, again.differences
    assert again.again_sha256 == event.details["decided_sha256"]
