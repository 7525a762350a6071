"""The seed of a live comparison's order: a suite's author cannot choose it, and every reader of
a verdict can recompute the verdict with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.app.gate_run import RunnerSeeds
from harness.frame.errors import ConfigError, InputError
from harness.gate.offline.verdicts import RULES_VERSION
from harness.gate.order_seeds import InstallationSeeds, SeedOrigin
from harness.gate.suite_plan import SuitePlan
from harness.proposals import recomputation
from harness.proposals.context import NoSeeds, dry_run_context
from harness.proposals.recomputation import list_other_rule_proposals, replay_verdict
from harness.proposals.report.comparison import load_comparison
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET

pytestmark = pytest.mark.req("F2", "F6")

DIGEST = "ab" * 32
MODELS = ("sim/base", "sim/better")


def plan_of(proposal: Proposal) -> SuitePlan:
    return proposal.plans[0]


def verdict_plan(world: SmallInstallation, proposal: Proposal) -> Mapping[str, Any]:
    assert proposal.verdict
    with world.store.read() as tx:
        inputs: Any = Verdicts(tx).get(proposal.verdict).inputs
    plan: Mapping[str, Any] = inputs["plans"][0]
    return plan


def test_a_seed_needs_the_secret_and_fits_one_content_of_a_suite() -> None:
    ours = InstallationSeeds(b"ours").seed_of(DIGEST)

    assert ours == InstallationSeeds(b"ours").seed_of(DIGEST)
    assert ours.origin is SeedOrigin.INSTALLATION
    assert 2**64 < ours.value < 2**128
    others = {
        InstallationSeeds(b"theirs").seed_of(DIGEST).value,
        InstallationSeeds(b"ours").seed_of("cd" * 32).value,
        int(DIGEST[:8], 16),
    }
    assert ours.value not in others
    assert len(others) == 3


def test_a_process_without_a_secret_draws_no_order() -> None:
    with pytest.raises(ConfigError, match="no secret to draw the order of suite abab"):
        NoSeeds().seed_of(DIGEST)


def test_the_seed_is_in_the_run_before_its_first_answer_and_in_the_verdict(
    plain_world: SmallInstallation,
) -> None:
    proposal = plain_world.propose()
    seed = InstallationSeeds(SECRET).seed_of(plan_of(proposal).suite_digest).value
    assert plan_of(proposal).order_seed == seed

    decided = plain_world.until_decided(proposal.id)
    with plain_world.store.read() as tx:
        runs = EvalRuns(tx).list()

    assert {run.order_seed for run in runs} == {seed}
    assert verdict_plan(plain_world, decided)["order_seed"] == seed
    assert verdict_plan(plain_world, decided)["seed_origin"] == "installation"


def test_a_preview_and_a_dry_run_do_not_reveal_the_order(
    plain_world: SmallInstallation,
) -> None:
    shown = plain_world.preview().plans[0]
    tried = plain_world.propose(ctx=dry_run_context(plain_world.context())).plans[0]
    registered = plan_of(plain_world.propose())

    for plan in (shown, tried):
        assert (plan.order_seed, plan.seed_origin) == (0, SeedOrigin.UNDRAWN)
        drawn = replace(plan, order_seed=registered.order_seed)
        assert replace(drawn, seed_origin=registered.seed_origin) == registered


def test_a_verdict_is_recomputed_without_the_secret(plain_world: SmallInstallation) -> None:
    decided = plain_world.decided()
    assert decided.verdict

    elsewhere = replace(plain_world.context(), order_seeds=NoSeeds())
    replayed = replay_verdict(elsewhere, decided.verdict)

    assert replayed.stored_sha256 == replayed.again_sha256


def test_a_rerun_uses_the_seed_of_the_runner_again(tmp_path: Path) -> None:
    seeds = RunnerSeeds(tmp_path / "seeds", MODELS)
    first = seeds.seed_of(DIGEST)

    assert first.origin is SeedOrigin.RUNNER
    assert RunnerSeeds(tmp_path / "seeds", MODELS).seed_of(DIGEST) == first
    drawn = {
        seeds.seed_of("cd" * 32),
        RunnerSeeds(tmp_path / "seeds", MODELS[::-1]).seed_of(DIGEST),
        RunnerSeeds(tmp_path / "another runner", MODELS).seed_of(DIGEST),
    }
    assert len(drawn) == 3
    assert first not in drawn


def test_a_damaged_seed_is_refused_and_never_replaced(tmp_path: Path) -> None:
    seeds = RunnerSeeds(tmp_path, MODELS)
    seeds.seed_of(DIGEST)
    (file,) = tmp_path.iterdir()
    file.write_text("12")

    with pytest.raises(InputError, match="contains no seed of an order: delete it"):
        seeds.seed_of(DIGEST)
    with pytest.raises(InputError, match="run in a folder that you can write"):
        RunnerSeeds(file, MODELS).seed_of(DIGEST)


def test_a_verdict_says_that_the_runner_chose_its_seed(
    plain_world: SmallInstallation, tmp_path: Path
) -> None:
    ctx = replace(plain_world.context(), order_seeds=RunnerSeeds(tmp_path / "seeds", MODELS))
    proposal = plain_world.propose(ctx=ctx)
    decided = plain_world.until_decided(proposal.id)

    assert verdict_plan(plain_world, decided)["seed_origin"] == "runner"
    found = load_comparison(plain_world.context(), proposal.id)
    assert found.decided_on.endswith(" items. Seed chosen by the runner.")


def test_open_proposals_of_other_rules_are_listed_with_the_commands(
    plain_world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = plain_world.in_canary()
    assert list_other_rule_proposals(plain_world.context()) == []

    monkeypatch.setattr(recomputation, "RULES_VERSION", RULES_VERSION + 1)
    (found,) = list_other_rule_proposals(plain_world.context())

    assert (found.proposal.id, found.rules) == (proposal.id, RULES_VERSION)
    assert found.next_step == (
        "`swapproof canary abort chat --reason …`, then "
        "`swapproof proposal create chat sim/better --claim superior`"
    )
    waiting = replace(proposal, phase=ProposalPhase.AWAITING_APPROVAL)
    assert replace(found, proposal=waiting).next_step.startswith(
        f"`swapproof proposal cancel {proposal.id} --reason …`"
    )
