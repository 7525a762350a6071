"""A route's class of data (D8) at every step of a swap, and in the evals, on every store."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.app import installation, seed
from harness.canary import operations, shadows
from harness.evals import drift_monitor as monitor
from harness.frame.errors import (
    InputError,
    NotAllowed,
    ProofRefused,
    SwapproofError,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.online.guardrails import CanaryJudge, Guardrails
from harness.gate.online.rollout import RolloutSignal
from harness.gate.policy import DriftPolicy
from harness.gate.run import RunState
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import decisions, eval_queue
from harness.providers.records import Providers
from harness.providers.registry import credentials, registered_providers, targets
from harness.providers.registry import registered_providers as providers
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns
from harness.routing.shadow import ShadowLimits
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import CANARY, POLICY, approved

pytestmark = pytest.mark.req("D8")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
ROOT = Path(__file__).parents[2]
AWAY = "away/better"


def as_of(world: SmallInstallation, *providers: str) -> Context:
    """A process that was started with these providers cleared."""
    return replace(world.context(), data_classes={"personal": frozenset(providers)})


@pytest.fixture
def personal(world: SmallInstallation) -> SmallInstallation:
    """The route carries personal data, and the candidates come from another provider."""
    plain = world.context()
    sim = next(iter(_providers(world)))
    targets.put_provider(plain, SYSTEM, replace(sim, name="away"))
    cleared = as_of(world, "sim", "away")
    routes.change_settings(
        cleared, ADA, "chat", lambda old: replace(old, data_class="personal")
    )
    return world


def _providers(world: SmallInstallation) -> list[Provider]:
    with world.store.read() as tx:
        return list(Providers(tx).all().values())


def proposed(world: SmallInstallation) -> Proposal:
    return world.propose(AWAY, ctx=as_of(world, "sim", "away"))


def until(
    world: SmallInstallation,
    proposal: Proposal,
    reached: Callable[[Proposal], object],
) -> Proposal:
    ctx = as_of(world, "sim", "away")
    for _ in range(10):
        if reached(world.get(proposal.id)):
            break
        world.run_once(ctx)
    found = world.get(proposal.id)
    assert reached(found)
    return found


def in_canary(world: SmallInstallation) -> Proposal:
    return until(
        world,
        proposed(world),
        lambda proposal: proposal.phase is ProposalPhase.CANARY,
    )


def serving(world: SmallInstallation) -> str:
    table = routes.load_table(world.context())
    assert table.routes["chat"].canary is None
    return table.targets[table.routes["chat"].incumbent].name


def test_no_canary_opens_for_who_is_not_cleared_any_more(personal: SmallInstallation) -> None:
    personal.policy = approved()
    waits = until(
        personal,
        proposed(personal),
        lambda p: p.phase is ProposalPhase.AWAITING_APPROVAL,
    )

    with pytest.raises(ProofRefused, match="carries personal data"):
        decisions.approve_proposal(as_of(personal, "sim"), BEN, waits.id)
    decisions.approve_proposal(as_of(personal, "sim", "away"), BEN, waits.id)
    personal.run_once(as_of(personal, "sim"))

    ended = personal.get(waits.id)
    assert ended.phase is ProposalPhase.REJECTED
    assert "carries personal data" in ended.closed_because
    assert serving(personal) == "sim/base"


def test_a_verdict_lets_nobody_in_who_is_not_cleared_any_more(
    personal: SmallInstallation,
) -> None:
    proposal = proposed(personal)
    ctx = as_of(personal, "sim")
    for _ in range(10):
        personal.run_once(ctx)

    assert not personal.get(proposal.id).open
    assert serving(personal) == "sim/base"


def test_a_live_canary_goes_back_at_once_when_its_clearance_is_gone(
    personal: SmallInstallation,
) -> None:
    proposal = in_canary(personal)

    personal.run_once(as_of(personal, "sim"))

    assert "may not see it" in personal.get(proposal.id).closed_because
    assert serving(personal) == "sim/base"


def test_nobody_promotes_by_hand_what_may_not_see_the_data(personal: SmallInstallation) -> None:
    in_canary(personal)
    ctx = as_of(personal, "sim")

    for signal in (RolloutSignal.PROMOTE, RolloutSignal.ADVANCE):
        with pytest.raises(ProofRefused, match="may not see it"):
            operations.operate(ctx, BEN, "chat", signal, "in a hurry")


def test_going_back_does_not_bring_in_who_is_not_cleared_any_more(
    personal: SmallInstallation,
) -> None:
    proposal = in_canary(personal)
    ctx = as_of(personal, "sim", "away")
    for _ in range(40):
        personal.feed()
        personal.run_once(ctx)
    assert personal.get(proposal.id).phase is ProposalPhase.PROMOTED

    with pytest.raises(NotAllowed, match="'sim' of sim/base may not see it"):
        operations.roll_back(as_of(personal, "away"), BEN, "chat", reason="a test")


def test_nothing_is_proposed_whose_canary_a_stranger_would_judge(
    personal: SmallInstallation,
) -> None:
    judge = CanaryJudge("judge/m", "It helps.", max_usd=1.0)
    heard = replace(Guardrails(), judge=1.25)
    personal.policy = replace(POLICY, canary=replace(CANARY, guardrails=heard, judge=judge))
    with pytest.raises(NotAllowed, match="'judge' of judge/m may not see it"):
        personal.propose(AWAY, ADA, ctx=as_of(personal, "sim", "away"))
    with pytest.raises(
        InputError, match="`swapproof model price judge/m INPUT OUTPUT` sets it"
    ):
        personal.propose(AWAY, ADA, ctx=as_of(personal, "sim", "away", "judge"))


def test_a_shadow_by_hand_ends_with_its_clearance(personal: SmallInstallation) -> None:
    wanted = "chat", AWAY, ShadowLimits(share_bps=100)
    with pytest.raises(NotAllowed, match="may not see it"):
        shadows.start_shadow(as_of(personal, "sim"), ADA, *wanted, reason="a look")

    # One who may not approve mirrors to the model of an open proposal alone.
    cleared = as_of(personal, "sim", "away")
    with pytest.raises(NotAllowed, match="approver"):
        shadows.start_shadow(cleared, ANN, *wanted, reason="a look")
    shown = proposed(personal)
    assert shadows.start_shadow(cleared, ANN, *wanted, reason="a look").proposal == shown.id
    [said] = shadows.end_finished(as_of(personal, "sim"))

    assert "may not see it" in said


@pytest.fixture
def captured(world: SmallInstallation) -> SmallInstallation:
    """The suite's data are personal, as those of captured requests are."""
    suite = replace(world.suites["colours"], data_class="personal")
    world.suites["colours"] = suite
    return world


def reason_unanswered(world: SmallInstallation, run: str) -> str:
    """Why it has no answers: it is tried now and then, and never asks anybody."""
    for _ in range(8):
        world.run_once(as_of(world, "other"))
    with world.store.read() as tx:
        found = EvalRuns(tx).get(run)
        assert not EvalRuns(tx).done(run)
    assert found.state is RunState.FAILED
    return found.message


@pytest.mark.spine
def test_a_run_of_captured_samples_asks_no_provider_that_is_not_cleared(
    captured: SmallInstallation,
) -> None:
    with pytest.raises(NotAllowed, match="suite 'colours' has personal data"):
        eval_queue.start_run(as_of(captured, "other"), ANN, "colours", "sim/base")

    run = eval_queue.start_run(as_of(captured, "sim"), ANN, "colours", "sim/base")

    # What a worker host asks, too: it takes a run from the queue long after it was queued.
    assert "has personal data" in eval_queue.start_worker(as_of(captured, "other"), run.id)
    assert "suite 'colours' has personal data" in reason_unanswered(captured, run.id)


def test_a_proposal_is_made_and_measured_with_clearance_for_the_suites_data(
    captured: SmallInstallation,
) -> None:
    with pytest.raises(NotAllowed, match="suite 'colours' has personal data"):
        captured.propose(ctx=as_of(captured, "other"))

    proposal = captured.propose(ctx=as_of(captured, "sim"))
    captured.run_once(as_of(captured, "other"))

    for run in captured.get(proposal.id).runs.values():
        assert "personal data" in reason_unanswered(captured, run.candidate)


def test_a_drift_watch_asks_nobody_who_is_not_cleared(captured: SmallInstallation) -> None:
    captured.drift = {"colours": DriftPolicy()}
    monitor.run_once(as_of(captured, "other"))

    with captured.store.read() as tx:
        [run] = EvalRuns(tx).list()
    assert "personal data" in reason_unanswered(captured, run.id)


def test_a_schedule_asks_nobody_who_is_not_cleared(captured: SmallInstallation) -> None:
    with pytest.raises(NotAllowed, match="personal data"):
        control_jobs.evaluate_incumbents(
            as_of(captured, "other"), captured.clock.now(), "schedule", suite="colours"
        )


def test_the_api_moves_no_provider_that_may_see_a_class(personal: SmallInstallation) -> None:
    ctx = as_of(personal, "sim")
    there = "http://127.0.0.1:10/v1"
    elsewhere = credentials.CredentialChange(settings={"api_base": there})

    with pytest.raises(NotAllowed, match=r"'sim' may see personal data .* config apply"):
        credentials.put_credential(ctx, ADA, "sim", elsewhere)
    moved = ProviderChange(settings=elsewhere.settings)
    with pytest.raises(NotAllowed, match="'sim' may see personal data"):
        providers.change_provider(ctx, ADA, "sim", moved)
    assert providers.change_provider(ctx, ADA, "away", moved).api_base == there
    assert credentials.put_credential(ctx, ADA, "away", elsewhere).api_base == there
    there = "http://127.0.0.1:9/v1"
    headers = {"x-a": "b"}
    same = credentials.CredentialChange(
        settings={"api_base": there}, extra_headers=headers, reason="a new header"
    )
    assert credentials.put_credential(ctx, ADA, "sim", same).extra_headers == ["x-a"]


def test_nobody_takes_a_cleared_name_for_another_place(personal: SmallInstallation) -> None:
    ctx = as_of(personal, "local", "groq")
    there = "http://127.0.0.1:10/v1"

    for name in ("local", "groq"):
        with pytest.raises(NotAllowed, match="may see personal data"):
            registered_providers.register_with_provider(
                ctx, ADA, Target(name, "m"), api_base=there
            )
        change = credentials.CredentialChange(settings={"api_base": there}, kind="custom")
        with pytest.raises(NotAllowed, match="may see personal data"):
            credentials.put_credential(ctx, ADA, name, change)
    assert registered_providers.register_with_provider(ctx, ADA, Target("groq", "m")).added


def test_the_file_moves_a_provider_and_clears_it_in_one(
    personal: SmallInstallation, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(
        "providers:\n  sim: {kind: sim, api_base: 'http://127.0.0.1:11/v1'}\n"
        "data_classes: {personal: [sim]}\n",
        encoding="utf-8",
    )
    settings = installation.load_settings(file)

    assert seed.apply_providers(as_of(personal, "sim"), ADA, settings, "it moved") == ["sim"]


def test_a_route_of_the_file_begins_with_clearance_alone(
    personal: SmallInstallation, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(
        "providers:\n  fast: {kind: sim, api_base: 'http://127.0.0.1:9/v1', "
        "tiers: {quick: small}}\n"
        "data_classes: {personal: []}\n"
        "routes:\n  mail:\n    incumbent: {provider: fast, tier: quick}\n"
        "    data_class: personal\n",
        encoding="utf-8",
    )
    settings = installation.load_settings(file)

    with pytest.raises(SwapproofError, match="'fast' of fast/small may not see it"):
        seed.apply_seed(as_of(personal), settings)


def test_every_place_of_the_document_has_its_test() -> None:
    text = (ROOT / "tests/data_classes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)[1:]
    rows = [row for row in rows if not set(row[0]) <= {"-"}]
    assert len(rows) >= 20

    for place, where, named in rows:
        found = re.findall(r"`(\w+)\.py`: `(test_\w+)`", named)
        assert found, place
        for file, test in found:
            [path] = [*(ROOT / "tests").rglob(f"{file}.py")]
            assert re.search(rf"def {test}\(", path.read_text(encoding="utf-8")), (place, test)
        for module in re.findall(r"`([\w/]+\.py)`", where):
            assert (ROOT / module).is_file(), (place, module)
