"""Each thing that a verdict rests on, changed in turn: it is proof no more (F6)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from evals.runner.provider_client import ProviderFailed
from evals.runner.questions import GIVE_UP_AFTER
from evals.suites.items import Item
from harness.app.store.store import Store
from harness.canary import operations
from harness.evals.proof_validity import ProofState
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import ProofRefused, StaleEvidence
from harness.frame.failures import FIRST_PAUSE_S
from harness.frame.people.access import Actor, Role
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.pins import ServedModel, ServedPin, Sighting
from harness.gate.run import Sample
from harness.gate.verdict import InfraError, Passed
from harness.operations import control_jobs
from harness.proposals import decisions, evaluation, fallback_chain
from harness.proposals.fallback_chain import FallbackRequest
from harness.proposals.recomputation import replay_verdict
from harness.proposals.report import comparison
from harness.providers.records import Sightings
from harness.providers.target import Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.colours_suite import answer
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.router.live_router import KEY, wait_until
from tests.support.router.router_process import (
    ask,
    eventually,
    routed,
    start_canary,
)
from tests.support.router.simulated_router import OWN, SimScene

pytestmark = pytest.mark.req("F6")


ADMIN = Actor("eve", Role.ADMIN, "pr_eve")


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    return plain_world


def awaiting(world: SmallInstallation) -> Proposal:
    world.policy = approved(world.policy)
    return world.decided("sim/better")


def now_serves(
    world: SmallInstallation,
    target: str,
    model: str,
) -> None:
    world.clock.advance(1)
    at = world.clock.now()
    with world.store.write() as tx:
        Sightings(tx).note([Sighting(target, ServedModel(model), at, at)])


def changed(world: SmallInstallation, change: str) -> None:
    suite = world.suites["colours"]
    edits: Mapping[str, Mapping[str, object]] = {
        "scorer": {"scorer": "regex", "scorer_options": {}},
        "template": {"template": "Tell: {input}"},
        "settings": {"temperature": 0.5},
        "version": {"version": "2"},
    }
    if change == "data":
        assert suite.path is not None
        text = suite.path.read_text(encoding="utf-8")
        suite.path.write_text(text.replace("number 1?", "number one?"), encoding="utf-8")
    else:
        world.suites["colours"] = replace(suite, **edits[change])  # type: ignore[arg-type] # fields of its own


PIECES = {
    "data": "(data, ",
    "scorer": "(scorer, ",
    "template": "(prompt or settings, ",
    "settings": "(prompt or settings, ",
    "version": "(version, ",
}


@pytest.mark.spine
@pytest.mark.parametrize("change", PIECES)
def test_a_changed_suite_closes_what_waits_for_approval(
    world: SmallInstallation, change: str
) -> None:
    proposal = awaiting(world)
    changed(world, change)
    with pytest.raises(ProofRefused, match="is stale"):
        decisions.approve_proposal(world.context(), BEN, proposal.id)
    world.run_once()

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "is stale: colours changed" in after.closed_because
    assert PIECES[change] in after.closed_because
    shown = comparison.load_comparison(world.context(), proposal.id).standing
    assert shown is not None
    assert shown.proof is ProofState.STALE


@pytest.mark.spine
@pytest.mark.parametrize("whose", ["incumbent", "candidate"])
def test_another_model_behind_either_alias_closes_what_waits_for_approval(
    world: SmallInstallation, whose: str
) -> None:
    proposal = awaiting(world)
    now_serves(world, getattr(proposal, whose), "other-2026")
    world.run_once()

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "serves other-2026" in after.closed_because


def test_a_canary_whose_suite_changed_goes_no_further_until_it_is_put_back(
    world: SmallInstallation,
) -> None:
    proposal = world.in_canary()
    before = world.suites["colours"]
    changed(world, "template")
    world.run_once()
    world.feed(blocks=8)
    world.run_once(turns=3)
    with world.store.read() as tx:
        paused = Rollouts(tx).get(proposal.rollout or "")
    assert (paused.state, paused.step) == (RolloutState.PAUSED, 0)
    with pytest.raises(ProofRefused, match="stale"):
        operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "a drill")

    world.suites["colours"] = before
    operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "put back")
    for _ in range(40):
        world.feed(blocks=4)
        world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.PROMOTED


def test_a_verdict_that_expires_during_its_canary_promotes_nobody(
    world: SmallInstallation,
) -> None:
    proposal = world.in_canary()
    world.clock.advance(world.policy.gate.verdict_ttl_s)
    for _ in range(40):
        world.feed(blocks=4)
        world.run_once()

    with world.store.read() as tx:
        rollout = Rollouts(tx).get(proposal.rollout or "")
        assert Routing(tx).route("chat").incumbent == proposal.incumbent  # type: ignore[union-attr]
    assert rollout.state is RolloutState.PAUSED
    with pytest.raises(ProofRefused, match="is expired"):
        operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "a drill")


@pytest.mark.req("F3")
def test_an_alias_that_is_repointed_in_mid_canary_is_rolled_back(
    world: SmallInstallation,
) -> None:
    proposal = world.in_canary()
    now_serves(world, proposal.candidate, "other-2026")
    world.run_once()

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.ROLLED_BACK
    assert "serves other-2026" in after.closed_because
    with world.store.read() as tx:
        kinds = [alert.kind for alert in Alerts(tx).list()]
        route = Routing(tx).route("chat")
    assert AlertKind.ROLLED_BACK in kinds
    assert route is not None
    assert route.canary is None


def test_an_alias_that_changes_in_mid_run_is_measured_anew(world: SmallInstallation) -> None:
    asked: list[str] = []

    def served(target: Target, item: Item) -> ServedModel:
        asked.append(item.id)
        return ServedModel(f"{target.model}-{1 if len(asked) < 8 else 2}")

    world.served = served
    proposal = world.decided("sim/better")
    with world.store.read() as tx:
        first = Verdicts(tx).get(proposal.verdict or "")
    assert isinstance(first, InfraError)
    assert "one measurement needs one model" in first.reason
    assert proposal.phase is ProposalPhase.EVALUATING

    world.clock.advance(FIRST_PAUSE_S)
    world.run_once(turns=4)
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.CANARY, after.closed_because
    with world.store.read() as tx:
        second = Verdicts(tx).get(after.verdict or "")
    assert isinstance(second, Passed)
    assert second.inputs["served"]["colours"]["incumbent"] == [["base-2", ""]]  # type: ignore[index]
    assert replay_verdict(world.context(), second.id).agrees


def test_a_run_of_a_model_that_is_served_no_more_is_not_shared(
    world: SmallInstallation,
) -> None:
    first = world.decided("sim/equal")
    now_serves(world, first.incumbent, "base-2")
    world.served = lambda target, _: ServedModel(f"{target.model}-2")
    second = world.decided("sim/better")

    assert first.runs["colours"].incumbent != second.runs["colours"].incumbent


@pytest.mark.parametrize(("pin", "opens"), [(ServedPin.MODEL, True), (ServedPin.BUILD, False)])
def test_the_policy_says_whether_a_build_counts(
    world: SmallInstallation,
    pin: ServedPin,
    *,
    opens: bool,
) -> None:
    world.policy = replace(world.policy, gate=replace(world.policy.gate, served_pin=pin))
    world.served = lambda target, item: ServedModel(target.model, f"fp_{item.id[-1]}")
    after = world.decided("sim/better")

    assert (after.phase is ProposalPhase.CANARY) is opens


@pytest.mark.parametrize("piece", ["suite_digest", "target", "order_seed", "epochs"])
def test_an_arm_that_was_measured_on_something_else_is_refused(
    world: SmallInstallation, piece: str
) -> None:
    proposal = world.in_canary()
    with world.store.read() as tx:
        runs = {run.id: run for run in EvalRuns(tx).list()}
    evaluation.check_arms(proposal, runs)
    for arm in ("incumbent", "candidate"):
        run = runs[getattr(proposal.runs["colours"], arm)]
        other = getattr(run, piece) * 2
        with pytest.raises(StaleEvidence, match="than the proposal"):
            evaluation.check_arms(proposal, runs | {run.id: replace(run, **{piece: other})})


def test_a_stale_verdict_opens_no_chain(world: SmallInstallation) -> None:
    decisions.approve_proposal(world.context(), BEN, awaiting(world).id)
    before = world.suites["colours"]
    changed(world, "template")
    with pytest.raises(ProofRefused, match="no evidence"):
        fallback_chain.add_fallback(
            world.context(),
            ADMIN,
            "chat",
            FallbackRequest("sim/better"),
            reason="a spare",
        )

    world.suites["colours"] = before
    route = fallback_chain.add_fallback(
        world.context(),
        ADMIN,
        "chat",
        FallbackRequest("sim/better"),
        reason="a spare",
    )
    assert len(route.fallbacks) == 1


def renaming(world: SmallInstallation, model: str) -> list[str]:
    """A provider that calls `model` otherwise from its ninth answer on; all that was asked."""
    asked: list[str] = []
    before = 8

    def served(target: Target, item: Item) -> ServedModel:
        asked.append(f"{target.model} {item.id}")
        of_it = sum(request.startswith(model) for request in asked)
        return ServedModel(f"{target.model}-{1 if of_it <= before else 2}")

    world.served = served
    return asked


@pytest.mark.req("F2")
def test_scores_of_a_candidate_that_was_replaced_in_mid_run_are_not_asked_for_again(
    world: SmallInstallation,
) -> None:
    asked = renaming(world, "better")
    proposal = world.decided("sim/better")

    assert proposal.phase is ProposalPhase.REJECTED
    assert "better-1, better-2" in proposal.closed_because
    assert len(asked) == len(set(asked))
    assert world.propose("sim/better").plans[0].look == 2


@pytest.mark.req("F2")
def test_an_incumbent_that_was_replaced_in_mid_run_is_measured_anew_alone(
    world: SmallInstallation,
) -> None:
    asked = renaming(world, "base")
    proposal = world.decided("sim/better")
    world.clock.advance(FIRST_PAUSE_S)
    world.run_once(turns=4)

    assert world.get(proposal.id).phase is ProposalPhase.CANARY
    candidate = [request for request in asked if request.startswith("better")]
    assert len(candidate) == len(set(candidate))


@pytest.mark.req("F2")
def test_sightings_that_nobody_signed_have_no_score_asked_for_again(
    world: SmallInstallation,
) -> None:
    asked: list[str] = []
    failed: set[str] = set()

    def failing(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if target.model == "better":
            asked.append(item.id)
            if 5 <= len(asked) < 5 + GIVE_UP_AFTER:
                failed.add(item.id)
                raise ProviderFailed("away")
        return answer(target, item, epoch)

    world.script = failing
    proposal = world.decided("sim/better")
    assert world.get(proposal.id).retry_at is not None
    scored = set(asked) - failed
    asked.clear()
    now_serves(world, proposal.candidate, "never-seen")
    world.clock.advance(FIRST_PAUSE_S)
    world.run_once(turns=4)

    assert asked
    assert not scored & set(asked)


@pytest.mark.req("F2")
@pytest.mark.parametrize("arm", ["incumbent", "candidate"])
def test_another_judge_in_mid_run_of_either_arm_takes_a_proposal_of_its_own(
    world: SmallInstallation, arm: str
) -> None:
    proposal = world.propose("sim/better")
    control_jobs.reconcile(replace(world.context(), workers=None))
    proposal = world.get(proposal.id)
    run = getattr(proposal.runs["colours"], arm)
    with world.store.write() as tx:
        for number in (1, 2):
            item = f"colour-{number}"
            judge = f"judge-{number}"
            scored = Sample(run, item, 0, number, "c", 1.0, 1.0, 1, 1, 0.0, 0.1)
            EvalRuns(tx).store_sample(replace(scored, judge_model=judge))
            assert (
                "the judge" in evaluation.find_replacement(world.context(), tx, proposal)
            ) is (number == 2)


def live(store: Store) -> list[Rollout]:
    with store.read() as tx:
        return list(Rollouts(tx).live())


def stand_for(
    sim_url: str,
    alias: str,
    serves: str,
) -> None:
    done = httpx.post(f"{sim_url}/sim/profiles/{alias}", json={"serves": serves})
    assert done.status_code == 200, done.text


HI = [{"role": "user", "content": "hi"}]
ASKS: Mapping[str, Mapping[str, object]] = {
    "chat/completions": {"messages": HI},
    "messages": {"messages": HI, "max_tokens": 50},
    "responses": {"input": "hi"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("endpoint", ASKS)
def test_the_name_in_the_providers_answer_is_noted_once(
    scene: SimScene,
    sim_url: str,
    endpoint: str,
    *,
    stream: bool,
) -> None:
    url = f"{scene.world.url}/v1/{endpoint}"
    body = {"model": "support", "stream": stream}
    bearer = {"authorization": f"Bearer {KEY}"}
    serving = scene.world.holder.current
    assert serving is not None
    targets = serving.snapshot.table.targets.values()
    target = next(target for target in targets if target.model == OWN)
    for name in ("first-2026", "second-2026"):
        stand_for(sim_url, OWN, name)
        for _ in range(3):
            done = httpx.post(
                url,
                json={**body, **ASKS[endpoint]},
                headers=bearer,
                timeout=60,
            )
            assert done.status_code == 200, done.text
    scene.world.wait_for_traffic(6)
    wait_until(lambda: len(scene.world.store.sightings) >= 2)

    seen = [
        (sighting.target, sighting.served.model) for sighting in scene.world.store.sightings
    ]
    assert seen == [(target.id, "first-2026"), (target.id, "second-2026")]


@pytest.mark.slow
def test_an_alias_that_changes_in_mid_canary_takes_it_back_without_another_eval(
    sim_url: str,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    stand_for(sim_url, "sim-better", "sim-better")
    with (
        routed(tmp_path, sim_url, sqlite_url) as world,
        world.client() as client,
    ):
        world.start("--workers", "2")
        control = start_canary(world, tmp_path)
        (rollout,) = live(world.installation.store)

        def served_models() -> set[str]:
            for turn in range(8):
                ask(client, stream=turn % 2 == 0, user=f"user-{turn}")
            with world.installation.store.read() as tx:
                return {
                    sighting.served.model
                    for sighting in Sightings(tx).for_target(rollout.candidate)
                }

        eventually(lambda: "sim-better" in served_models() and world.recorded() > 0)
        control.run_once()
        assert live(world.installation.store) == [rollout]

        stand_for(sim_url, "sim-better", "cheap-2027")
        eventually(lambda: "cheap-2027" in served_models())
        control.run_once()

        after = control.get(rollout.proposal)
        with control.store.read() as tx:
            told = {alert.kind: alert for alert in Alerts(tx).list()}
    assert after.phase is ProposalPhase.ROLLED_BACK
    assert "serves cheap-2027" in after.closed_because
    assert "serves cheap-2027" in told[AlertKind.ROLLED_BACK].text
