"""Fields and values of a policy, of a canary's rule and of a route's settings that only a newer
version knows: they hold the proposal and the canary that have them, with a reason, and no other
route's; and nobody loses what they say.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from dashboard.text import labels
from harness.app.doctor import checks
from harness.config import json_schema
from harness.config.schema import PolicyEntry
from harness.control import serialize
from harness.control.canary import decision, holds, machine, status
from harness.control.operations import alerts, queries
from harness.control.proposals import decisions, submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import fallback_chain, kill_switch, routes
from harness.control.routing import queries as route_queries
from harness.control.routing.fallback_chain import FallbackRequest
from harness.control.routing.kill_switch import SwitchRequest
from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.rollout import (
    ActionKind,
    Rollout,
    RolloutSignal,
    build_unit_rule,
)
from harness.domain.canary.unit_rule import CanaryJudge, UnitRule
from harness.domain.errors import Conflict, NewerVersion, NotAllowed, ProofRefused
from harness.domain.evals.suite_plan import Claim, SuitePlan
from harness.domain.evals.verdict import Failed
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.operations.alerts import AlertKind
from harness.domain.pagination import FIRST_PAGE
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import OPEN_PHASES, Proposal, ProposalPhase
from harness.domain.routing.kill_switch import SwitchSource, parse_force
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.store.schema import policies
from harness.store.schema import proposals as stored_proposals
from harness.store.schema.policies import (
    canary_policy_from_json,
    policy_from_json,
    reports_from_json,
    reports_to_json,
)
from router.snapshot.file import snapshot_from_json, snapshot_to_json
from router.snapshot.holder import SnapshotHolder
from tests.support.control.control_plane import ANN, BEN, POLICY, SmallInstallation, approved
from tests.support.control.manual_clock import ManualClock
from tests.support.store.records import REPORT

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


VALUES: dict[str, Callable[[Any], Any]] = {
    "promotion": lambda policy: policy,
    "change_reference": lambda policy: policy,
    "gate.claim": lambda policy: policy["gate"],
    "gate.spend": lambda policy: policy["gate"],
    "gate.served_pin": lambda policy: policy["gate"],
    "gate.primaries": lambda policy: policy["gate"],
    "gate.rule": lambda policy: policy["gate"],
    "gate.population": lambda policy: policy["gate"],
    "canary.evidence": lambda policy: policy["canary"],
    "canary.unit": lambda policy: policy["canary"],
}


def test_every_choice_of_a_policy_is_tried_with_an_unknown_value() -> None:
    def choices(record: Any, path: str = "") -> set[str]:
        values = {item.name: getattr(record, item.name) for item in fields(record)}
        return {f"{path}{name}" for name, value in values.items() if isinstance(value, StrEnum)}

    found = choices(POLICY) | choices(POLICY.gate, "gate.") | choices(POLICY.canary, "canary.")
    assert found == VALUES.keys()


@pytest.mark.parametrize("path", VALUES)
def test_a_value_that_is_unknown_is_named_and_kept(path: str) -> None:
    written = json.loads(json.dumps(POLICY.as_json()))
    VALUES[path](written)[path.rpartition(".")[2]] = "next"

    found = policy_from_json(written)
    assert found.newer_fields == [f"{path}: next"]
    assert json.loads(json.dumps(found.as_json())) == written
    assert policy_from_json(found.as_json()) == found


def test_a_claim_that_is_unknown_among_those_allowed_is_kept() -> None:
    written = json.loads(json.dumps(POLICY.as_json()))
    written["gate"]["claims"] = ["superior", "next"]
    found = policy_from_json(written)
    assert found.newer_fields == ["gate.claims: ['superior', 'next']"]
    assert found.gate.claims == (Claim.SUPERIOR,)
    assert json.loads(json.dumps(found.as_json())) == written


def test_what_a_rule_says_that_is_unknown_is_named_and_kept() -> None:
    judge = CanaryJudge("sim/judge", "It is kind.", 1.0)
    written = json.loads(json.dumps(UnitRule(judge=judge).as_json()))
    written |= {"unit": "next", "mood": "calm"}
    written["judge"]["tone"] = {"of": [1]}
    found = UnitRule.from_json(written)
    assert found.newer_fields == ["judge.tone", "mood", "unit: next"]
    assert found.judge == judge
    assert json.loads(json.dumps(found.as_json())) == written


SETTINGS = RouteSettings(
    suites=(RouteSuite("colours"),), overrides={RequestKind.EMBEDDING: "other"}
)
CHANGES: dict[str, Callable[[Any], Any]] = {
    "mood": lambda settings: settings.update(mood={"of": [1]}),
    "suites.0.tone": lambda settings: settings["suites"][0].update(tone=1),
    "suites.0.role: next": lambda settings: settings["suites"][0].update(role="next"),
    "overrides.next": lambda settings: settings["overrides"].update(next="other"),
    "stakes: next": lambda settings: settings.update(stakes="next"),
    "on_content_policy: next": lambda settings: settings.update(on_content_policy="next"),
    "commit: next": lambda settings: settings.update(commit="next"),
    "on_bad_event: next": lambda settings: settings.update(on_bad_event="next"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_routes_settings_say_that_is_unknown_is_named_and_kept(name: str) -> None:
    written = json.loads(json.dumps(SETTINGS.as_json()))
    assert RouteSettings.from_json(written) == SETTINGS
    CHANGES[name](written)
    found = RouteSettings.from_json(written)
    assert found.newer_fields == [name]
    assert json.loads(json.dumps(found.as_json())) == written
    assert RouteSettings.from_json(found.as_json()) == found


def test_every_choice_of_a_routes_settings_is_tried_with_an_unknown_value() -> None:
    values = {item.name: getattr(SETTINGS, item.name) for item in fields(SETTINGS)}
    choices = {name for name, value in values.items() if isinstance(value, StrEnum)}
    assert choices == {"stakes", "on_content_policy", "commit", "on_bad_event"}


def new_route(world: SmallInstallation, name: str, newer: dict[str, Any]) -> None:
    """newer: what of its settings only the version knows that makes it."""
    settings = RouteSettings(suites=(RouteSuite("colours"),), newer=newer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RouteSettings, "newer_fields", ())
        routes.create_route(world.context(), SYSTEM, name, "sim/base", settings=settings)


def propose_for(world: SmallInstallation, route: str) -> Proposal:
    wanted = ProposalRequest(route, "sim/better", "a test")
    return submission.create_proposal(world.context(), ANN, wanted)


def test_a_routes_settings_hold_its_own_proposals_and_no_other_routes(
    world: SmallInstallation,
) -> None:
    new_route(world, "newer", {"mood": "calm", "commit": "next"})
    held, goes_on = propose_for(world, "newer"), propose_for(world, "chat")

    failed = world.run_once().failed
    assert world.until_decided(goes_on.id).phase is ProposalPhase.CANARY
    assert world.get(held.id).phase is ProposalPhase.PROPOSED
    (words,) = [text for text in failed if held.id in text]
    said = "its route has commit: next, mood, which this version does not know"
    assert said in words
    found = {finding.found for finding in checks.check_newer_policies(world.context())}
    assert found == {f"{held.id} is held: {said}", f"its proposals are held: {said}"}
    with pytest.raises(Conflict, match=r"commit: next, mood, which this version does not know"):
        routes.change_settings(
            world.context(), SYSTEM, "newer", lambda now: replace(now, description="calm")
        )
    with world.store.read() as tx:
        kept = tx.routing.route("newer")
    assert kept is not None
    assert kept.settings.newer == {"mood": "calm", "commit": "next"}


def test_a_routes_settings_hold_its_canary_and_no_harm(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = canary_of(world)
    world.feed(blocks=4)
    world.run_once()
    ctx = world.context()
    with world.store.read() as tx:
        now, route = tx.rollouts.get(rollout.id), tx.routing.route("chat")
    assert route is not None
    assert decision.decide(ctx, now).kind is ActionKind.ADVANCE
    monkeypatch.setattr(RouteSettings, "newer_fields", ["mood"])

    action = decision.decide(ctx, now)
    assert action.kind is ActionKind.HOLD
    assert "its route has mood, which this version does not know" in action.reason
    holds.update_hold_alert(ctx, now)
    assert alerts.is_open(ctx, AlertKind.CANARY_HELD, rollout.id)
    world.feed(blocks=8, failing=True)
    assert decision.decide(ctx, now).signal is RolloutSignal.HARM


@pytest.mark.parametrize("path", ["gate.rule", "canary.evidence", "promotion"])
def test_an_unknown_value_holds_its_own_proposal_and_no_other_routes(
    world: SmallInstallation, path: str
) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(world.context(), SYSTEM, "other", "sim/base", settings=settings)
    written = json.loads(json.dumps(POLICY.as_json()))
    VALUES[path](written)[path.rpartition(".")[2]] = "next"
    world.policy = policy_from_json(written)
    held = world.propose()
    world.policy = POLICY
    goes_on = propose_for(world, "other")

    failed = world.run_once().failed
    assert world.until_decided(goes_on.id).phase is ProposalPhase.CANARY
    assert world.get(held.id).phase is ProposalPhase.PROPOSED
    assert any(f"its policy has {path}: next, which this" in text for text in failed)


def test_a_plan_of_a_newer_version_holds_its_own_proposal(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_json = SuitePlan.as_json
    with monkeypatch.context() as patch:
        patch.setattr(
            SuitePlan, "as_json", lambda plan: {**as_json(plan), "rule": "next", "tone": 1}
        )
        held = world.propose()
    failed = world.run_once().failed
    assert any("it has plans.0.rule: next, plans.0.tone, which this" in text for text in failed)
    found = world.get(held.id)
    assert found.phase is ProposalPhase.PROPOSED
    with world.store.write() as tx:
        tx.proposals.save(replace(found, retry_at=found.created_at))
    assert world.get(held.id).newer == {"plans.0.rule": "next", "plans.0.tone": 1}


def test_a_router_takes_no_route_whose_settings_it_cannot_follow(
    world: SmallInstallation, tmp_path: Path
) -> None:
    holder = SnapshotHolder(world.store, tmp_path / "snapshot.json")
    served = holder.boot()
    new_route(world, "newer", {"commit": "next"})
    assert not holder.refresh()
    assert "route newer has commit: next, which this version does not know" in holder.refused
    assert holder.current is served


def test_nobody_configures_such_a_field() -> None:
    with pytest.raises(ValidationError, match="unknown key `newer`"):
        PolicyEntry.model_validate({"canary": {"newer": {"mood": 1}}})
    assert '"newer"' not in json.dumps(json_schema())


class Phases(StrEnum):
    PROPOSED = "other"


@contextmanager
def older_version(name: str, known: object) -> Iterator[None]:
    """Lets this version know no more than that of what rows of proposals may say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_proposals, name, known)
        yield


def test_a_verdict_of_a_newer_kind_holds_its_proposal_until_it_can_be_read(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    held = world.until_decided(world.propose().id)
    ctx = world.context()
    decisions.approve_proposal(ctx, BEN, held.id)

    with older_version("VERDICTS", {"failed": Failed}):
        failed = world.run_once().failed
        listed = queries.list_proposals(ctx)
    (words,) = [text for text in failed if held.id in text]
    assert f"verdict {held.verdict} has outcome: passed, which this version does not" in words
    assert [proposal.id for proposal in listed] == [held.id]
    assert alerts.is_open(ctx, AlertKind.PROPOSAL_HELD, held.id)
    world.run_once()
    assert world.get(held.id).phase is ProposalPhase.CANARY
    assert not alerts.is_open(ctx, AlertKind.PROPOSAL_HELD, held.id)


def test_a_verdict_that_a_newer_version_wrote_hides_its_own_route_alone(
    world: SmallInstallation,
) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(world.context(), SYSTEM, "other", "sim/base", settings=settings)
    rollout = canary_of(world)
    ctx = world.context()
    with older_version("VERDICTS", {"failed": Failed}):
        page = route_queries.load_page(ctx, FIRST_PAGE)
        (canary,) = status.list_canaries(ctx)
    assert [shown.route.name for shown in page.items] == ["other"]
    (fault,) = page.invalid
    assert fault.key == ("chat",)
    assert f"verdict {rollout.verdict} has outcome: passed, which" in fault.why
    assert canary.rollout.id == rollout.id

    with pytest.MonkeyPatch.context() as patch, world.store.read() as tx:
        patch.setattr(policies, "SuiteRole", StrEnum("SuiteRole", {"GUARD": "guard"}))
        with pytest.raises(NewerVersion, match=r"suites\.0\.role: primary"):
            tx.verdicts.newest("chat")
        assert tx.verdicts.list() == []


def test_a_routers_abort_ends_a_canary_whose_verdict_a_newer_version_wrote(
    world: SmallInstallation,
) -> None:
    rollout = canary_of(world)
    ctx = world.context()
    with older_version("VERDICTS", {"failed": Failed}):
        (words,) = world.run_once().failed
        assert f"verdict {rollout.verdict} has outcome: passed, which" in words
        with world.store.write() as tx:
            said = {"subject": "route chat", "title": "it was stopped", "text": "It failed."}
            alerts.raise_alert(ctx, tx, AlertKind.LOCAL_ABORT, rollout.id, **said)
        assert not world.run_once().failed
    assert world.get(rollout.proposal).phase is ProposalPhase.ROLLED_BACK


def test_an_approval_of_a_newer_kind_is_no_consent(world: SmallInstallation) -> None:
    world.policy = approved()
    held = world.until_decided(world.propose().id)
    decisions.approve_proposal(world.context(), BEN, held.id)
    with older_version("ApprovalKind", StrEnum("ApprovalKind", "OTHER")):
        assert any("has kind: canary, which this" in text for text in world.run_once().failed)
    assert world.get(held.id).phase is ProposalPhase.AWAITING_APPROVAL


def test_a_canary_in_a_newer_state_is_left_to_the_newer_version(
    world: SmallInstallation,
) -> None:
    rollout = canary_of(world)
    ctx = world.context()
    with world.store.write() as tx:
        said = {"subject": "route chat", "title": "it is paused", "text": "Look."}
        alerts.raise_alert(ctx, tx, AlertKind.CANARY_PAUSED, rollout.id, **said)
    with older_version("RolloutState", StrEnum("RolloutState", "OTHER")):
        (words,) = world.run_once().failed
        # It says no end of an alert, and keeps no other one from being told.
        alerts.run_once(ctx)
    assert alerts.is_open(ctx, AlertKind.CANARY_PAUSED, rollout.id)
    assert f"rollout {rollout.id} has state: waiting, which this version does not" in words
    assert alerts.is_open(world.context(), AlertKind.PROPOSAL_HELD, rollout.proposal)


def test_a_proposal_in_a_newer_phase_is_shown_and_never_moved(
    world: SmallInstallation,
) -> None:
    made = world.propose()
    with older_version("ProposalPhase", Phases):
        shown = world.get(made.id)
        assert shown.newer_fields == ["phase: proposed"]
        with pytest.raises(NewerVersion, match="phase: proposed"), world.store.write() as tx:
            tx.proposals.save(replace(shown, updated_at=shown.created_at))
    assert world.get(made.id) == made


def test_a_proposal_in_a_newer_phase_is_told_of_by_that_phase_and_alerted(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    made = world.until_decided(world.propose().id)
    known = {p.name: p.value for p in ProposalPhase if p is not made.phase}
    ctx = world.context()
    with older_version("ProposalPhase", StrEnum("ProposalPhase", known)):
        shown = world.get(made.id)
        plain = serialize.to_plain(shown)
        assert isinstance(plain, dict)
        assert plain["phase"] == shown.stored_phase == "awaiting_approval"
        assert shown.predicate == "is awaiting approval"
        assert labels.phase_label(shown).words == "awaiting approval"
        (words,) = world.run_once().failed
        # Who proposed it lets nobody have it by another door meanwhile.
        wanted = SwitchRequest(parse_force("target:sim/better"), "a drill", route="chat")
        proposer = replace(ANN, role=Role.APPROVER)
        with pytest.raises(NotAllowed, match="ask another approver"):
            kill_switch.throw_switch(ctx, proposer, wanted, source=SwitchSource.REST)
    assert "phase: awaiting_approval, which this version does not know" in words
    assert alerts.is_open(ctx, AlertKind.PROPOSAL_HELD, made.id)
    world.run_once()
    assert not alerts.is_open(ctx, AlertKind.PROPOSAL_HELD, made.id)


def test_a_proposal_in_a_phase_that_no_version_knows_as_an_end_is_open() -> None:
    phases = {*ProposalPhase, "paused", "zzz", ""}
    table = sa.table("proposal", sa.column("phase", sa.Text))
    query = sa.select(table.c.phase).where(stored_proposals.HAS_NOT_ENDED)
    with sa.create_engine("sqlite://").connect() as db:
        db.exec_driver_sql("CREATE TABLE proposal (phase TEXT)")
        db.execute(sa.insert(table), [{"phase": str(phase)} for phase in phases])
        found = set(db.scalars(query))
    assert found == {*OPEN_PHASES, "paused", "zzz", ""}


def test_the_verdict_of_a_proposal_in_a_newer_phase_is_no_proof_for_a_fallback(
    world: SmallInstallation,
) -> None:
    rollout = canary_of(world)
    world.feed(blocks=8, failing=True)
    world.run_once()
    assert world.get(rollout.proposal).phase is ProposalPhase.ROLLED_BACK
    known = {phase.name: phase.value for phase in ProposalPhase if phase.name != "ROLLED_BACK"}
    with older_version("ProposalPhase", StrEnum("ProposalPhase", known)):
        with world.store.read() as tx:
            (shown,) = tx.proposals.of_pair("chat", rollout.incumbent, rollout.candidate)
        assert shown.newer_fields == ["phase: rolled_back"]
        ctx, wanted = world.context(), FallbackRequest(rollout.candidate)
        with pytest.raises(ProofRefused, match="no evidence"):
            fallback_chain.add_fallback(ctx, SYSTEM, "chat", wanted, reason="a spare")


@pytest.mark.parametrize(("name", "said"), [("tone", "tone"), ("role", "role: next")])
def test_what_a_verdicts_report_says_that_is_unknown_is_named(name: str, said: str) -> None:
    (written,) = json.loads(json.dumps(reports_to_json([REPORT])))
    assert reports_from_json([written], "verdict v_1") == (REPORT,)
    with pytest.raises(NewerVersion, match=f"verdict v_1 has suites.0.{said}, which"):
        reports_from_json([{**written, name: "next"}], "verdict v_1")
