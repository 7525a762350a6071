"""A guardrail that only a newer version knows: a router of this version serves by a rule that
has it, a control process lets no canary go further by it, and nobody loses what was counted.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.control import reconciler
from harness.control.canary import decision
from harness.control.canary import status as canary_status
from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.canary.rollout import ActionKind, Rollout, RolloutSignal
from harness.domain.canary.unit_rule import DEFAULT_UNIT_RULE, UnitRule
from harness.domain.proposals.proposal import ProposalPhase
from router.recording.spool import Batch, decode, encode
from tests.support.control.control_plane import SmallInstallation, block_of
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("F3", "G6")

AT = datetime(2026, 3, 31, tzinfo=UTC)
TALLY = {"units": 2, "canary": 1, "failures": 1, "canary_failures": 1}


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path, clock=ManualClock())
    made.set_up()
    proposal = made.propose()
    assert made.until_decided(proposal.id).phase is ProposalPhase.CANARY
    return made


def live(world: SmallInstallation) -> Rollout:
    with world.store.read() as tx:
        (rollout,) = tx.rollouts.live()
    return rollout


def newer_router_counts(world: SmallInstallation) -> None:
    block = block_of(live(world), 900, world.clock, failing=False)
    with world.store.write() as tx:
        tx.observations.append([replace(block, newer={"counts": {"tone": TALLY}})], [])


def test_a_canary_with_it_goes_no_further_and_says_why(world: SmallInstallation) -> None:
    world.feed(blocks=4)
    world.run_once()
    ctx = world.context()
    assert decision.decide(ctx, live(world)).kind is ActionKind.ADVANCE
    newer_router_counts(world)

    action = decision.decide(ctx, live(world))
    assert action.kind is ActionKind.HOLD
    assert "routers of a newer version count tone" in action.reason
    before = live(world)
    reconciler.reconcile(ctx)
    assert live(world) == before
    shown = canary_status.explain_canary(ctx, "chat").status.held
    assert "which this version cannot judge: start the control plane in that version" in shown


def test_it_holds_no_harm_back(world: SmallInstallation) -> None:
    newer_router_counts(world)
    world.feed(blocks=8, failing=True)
    assert decision.decide(world.context(), live(world)).signal is RolloutSignal.HARM


def test_a_routers_spool_keeps_it_for_the_newer_version() -> None:
    block = ObservationBlock("r-1", "w", 1, 100, 2, 1, 0, 0, 0, AT, AT)
    block = replace(block, never_seen=NeverSeen(2, 1, 0, 0, {}, {}))
    of_newer = json.loads(encode(Batch([block], [])))
    (row,) = of_newer["blocks"]
    for figures in (row, row["never_seen"]):
        figures["counts"]["tone"] = TALLY

    (found,) = decode(json.dumps(of_newer)).blocks
    assert found.never_seen is not None
    assert found.newer == found.never_seen.newer == {"counts": {"tone": TALLY}}
    assert replace(found, newer={}, never_seen=block.never_seen) == block
    assert json.loads(encode(Batch([found], []))) == of_newer


def test_a_rule_with_it_is_followed_as_far_as_it_is_known_and_stays_whole() -> None:
    rule = replace(DEFAULT_UNIT_RULE, guardrails={Guardrail.REFUSALS: 1.25})
    written = rule.as_json()
    assert "newer_guardrails" not in written
    assert written == {**written, "guardrails": {"refusals": 1.25}}
    of_newer = {**written, "guardrails": {"refusals": 1.25, "tone": 1.5}}

    found = UnitRule.from_json(of_newer)
    assert found.guardrails == rule.guardrails
    assert found.newer_guardrails == {"tone": 1.5}
    assert found.as_json() == of_newer
    assert "guardrails" not in replace(rule, guardrails={}).as_json()
