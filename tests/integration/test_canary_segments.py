"""What the audit log, the alert and the explanation say of a canary that harms one segment."""

from dataclasses import replace

import numpy as np
import pytest

from harness.bench.segmented_traffic import SegmentTruth, simulate_segments
from harness.control.canary import audit
from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.segments import Segment
from tests.support.control.control_plane import CANARY, SmallInstallation

pytestmark = pytest.mark.req("F3", "F5")
SAID = "The harm is in requests with tools: "


def test_a_rollback_names_the_segment_and_is_decided_again_the_same(
    world: SmallInstallation,
) -> None:
    canary = replace(CANARY, segment_share=0.1, guardrails=Guardrails.none())
    world.policy = replace(world.policy, canary=canary)
    world.until_decided(world.propose().id)
    world.run_once()
    harmed = simulate_segments(
        SegmentTruth(Segment.TOOLS, canary=0.9),
        blocks=40,
        rng=np.random.default_rng(2),
        share=0.1,
    )
    with world.store.write() as tx:
        (rollout,) = tx.rollouts.live()
        at = world.clock.now()
        blocks = [
            replace(block, rollout=rollout.id, opened_at=at, closed_at=at) for block in harmed
        ]
        tx.observations.append(blocks, [])
    world.run_once()
    world.run_once()

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
