"""Fields of a policy that only a newer version knows: they hold the proposal and the canary
that have them, with a reason, and no other route's; and nobody loses what they say.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.app.doctor import checks
from harness.config import json_schema
from harness.config.schema import PolicyEntry
from harness.control.canary import decision, holds, machine
from harness.control.operations import alerts
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.rollout import (
    ActionKind,
    Rollout,
    RolloutSignal,
    build_unit_rule,
)
from harness.domain.canary.unit_rule import UnitRule
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.store.schema.policies import canary_policy_from_json, policy_from_json
from router.snapshot.file import snapshot_from_json, snapshot_to_json
from tests.support.control.control_plane import ANN, POLICY, SmallInstallation
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("F3", "G6")

NEWER = replace(
    POLICY, newer={"gate.tone": 0.5}, canary=replace(POLICY.canary, newer={"mood": "calm"})
)
WORDS = "its policy has canary.mood, gate.tone, which this version does not know"


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path, clock=ManualClock())
    made.set_up()
    return made


def canary_of(world: SmallInstallation) -> Rollout:
    proposal = world.propose()
    assert world.until_decided(proposal.id).phase is ProposalPhase.CANARY
    with world.store.read() as tx:
        (rollout,) = tx.rollouts.live()
    return rollout


def test_it_holds_its_own_proposal_and_no_other_routes(world: SmallInstallation) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(world.context(), SYSTEM, "other", "sim/base", settings=settings)
    world.policy = NEWER
    held = world.propose()
    world.policy = POLICY
    wanted = ProposalRequest("other", "sim/better", "a test")
    goes_on = submission.create_proposal(world.context(), ANN, wanted)

    failed = world.run_once().failed
    assert world.until_decided(goes_on.id).phase is ProposalPhase.CANARY
    assert world.get(held.id).phase is ProposalPhase.PROPOSED
    (words,) = [text for text in failed if held.id in text]
    assert WORDS in words
    assert "start the control plane in the newer version" in words
    (finding,) = checks.check_newer_policies(world.context())
    assert finding.status == "warn"
    assert finding.subject == "route chat"
    assert WORDS in finding.found
    assert "newer version" in finding.next_step


def test_a_canary_with_it_takes_no_step_onward_and_says_why(world: SmallInstallation) -> None:
    rollout = canary_of(world)
    world.feed(blocks=4)
    world.run_once()
    ctx = world.context()
    with world.store.read() as tx:
        now = tx.rollouts.get(rollout.id)
    assert decision.decide(ctx, now).kind is ActionKind.ADVANCE
    newer = replace(now, policy=NEWER.canary)

    action = decision.decide(ctx, newer)
    assert action.kind is ActionKind.HOLD
    assert "its policy has mood, which this version does not know" in action.reason
    holds.update_hold_alert(ctx, newer)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, rollout.id)


def test_harm_ends_such_a_canary(world: SmallInstallation) -> None:
    rollout = canary_of(world)
    world.feed(blocks=8, failing=True)
    newer = replace(rollout, policy=NEWER.canary)
    assert decision.decide(world.context(), newer).signal is RolloutSignal.HARM


def test_a_field_of_the_rule_that_routers_follow_holds_its_canary(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_the_newer(*given: Any, **named: Any) -> UnitRule:
        return replace(build_unit_rule(*given, **named), newer={"mood": ["calm"]})

    monkeypatch.setattr(machine, "build_unit_rule", of_the_newer)
    rollout = canary_of(world)
    world.feed(blocks=4)
    world.run_once()
    with world.store.read() as tx:
        route, now = tx.routing.route("chat"), tx.rollouts.get(rollout.id)
    assert route is not None
    assert route.experiment is not None
    assert route.experiment.unit_rule.as_json()["mood"] == ["calm"]
    served = world.store.snapshot()
    kept = json.loads(json.dumps(snapshot_to_json(served)))
    assert kept["routes"][0]["canary"]["unit_rule"]["mood"] == ["calm"]
    assert snapshot_from_json(kept).table == served.table
    action = decision.decide(world.context(), now)
    assert action.kind is ActionKind.HOLD
    assert "its policy has unit_rule.mood, which this version" in action.reason


PLACES: dict[str, Callable[[Any], Any]] = {
    "tone": lambda policy: policy,
    "gate.tone": lambda policy: policy["gate"],
    "canary.tone": lambda policy: policy["canary"],
    "canary.steps.1.tone": lambda policy: policy["canary"]["steps"][1],
    "canary.peak.tone": lambda policy: policy["canary"]["peak"],
    "canary.shadow.tone": lambda policy: policy["canary"]["shadow"],
    "canary.guardrails.tone": lambda policy: policy["canary"]["guardrails"],
}


@pytest.mark.parametrize("path", PLACES)
def test_a_field_that_is_unknown_is_named_and_kept(path: str) -> None:
    shadow = ShadowStagePolicy(share_bps=100, min_pairs=10, max_cost_usd=1.0)
    canary = replace(POLICY.canary, shadow=shadow, guardrails=Guardrails())
    whole: Policy = replace(POLICY, canary=canary)
    written = json.loads(json.dumps(whole.as_json()))
    assert policy_from_json(written) == whole
    PLACES[path](written)["tone"] = {"of": [1, 2]}

    found = policy_from_json(written)
    assert found.newer_fields == [path]
    assert json.loads(json.dumps(found.as_json())) == written
    assert replace(found, newer={}, canary=replace(found.canary, newer={})) == whole
    assert canary_policy_from_json(written["canary"]) == found.canary


def test_nobody_configures_such_a_field() -> None:
    with pytest.raises(ValidationError, match="unknown key `newer`"):
        PolicyEntry.model_validate({"canary": {"newer": {"mood": 1}}})
    assert '"newer"' not in json.dumps(json_schema())
