"""Models that differ in habit, in substance, in both: only the first loses by form (A8)."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from evals.sim import answers
from evals.sim.profiles import Habits, Profile
from evals.sim.simulated_model import ItemBank, SimulatedModel, bank_item, load_suites
from evals.suites.items import Item
from harness import package_data
from harness.cli.proposals.submission import create_proposal
from harness.control.proposals import comparison, submission
from harness.control.proposals.format_failures import (
    FormatFailure,
    find_format_failures,
    patch_candidate,
    with_json_mode,
)
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes, targets
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import Verdict
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.policy import GatePolicy, Policy
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import SuiteSettings, TargetSeed
from tests.support.control.control_plane import ANN, SmallInstallation
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("A8")

FOLDER = package_data.path("datasets")
SUITES = {
    name: SuiteSettings(
        name, path=FOLDER / f"{name}.jsonl", scorer=scorer, scorer_options=options
    )
    for name, scorer, options in (
        ("extraction", "json_fields", {}),
        ("tickets", "label", {}),
        ("arithmetic", "numeric", {"final_line": "ANSWER:"}),
        ("instructions", "instructions", {}),
    )
}
# Of one seed: right and wrong on the same items where the skill is the same.
BASE = Profile("base", default_skill=0.8, seed=3)
WEAK = 0.5
OFTEN = 0.6
HABITS = [
    ("extraction", Habits(json_fences=OFTEN), "code_fence"),
    ("extraction", Habits(trailing_prose=OFTEN), "trailing_prose"),
    ("tickets", Habits(verbose=OFTEN), "label_with_extra_text"),
    ("instructions", Habits(verbose=OFTEN), "leading_prose"),
]
# `make test` plays one habit of each suite, `make verify` the others.
SAMPLED = {
    ("extraction", "code_fence"),
    ("tickets", "label_with_extra_text"),
    ("instructions", "leading_prose"),
}


@dataclass
class Sitting:
    """One suite, and models that sit it. A system message and a format reach them."""

    world: SmallInstallation

    def verdict(self, candidate: str) -> Verdict:
        verdict = self.compared(candidate).verdict
        assert verdict is not None
        return verdict

    def compared(self, candidate: str) -> comparison.Comparison:
        made = submission.create_proposal(
            self.world.context(), ANN, ProposalRequest("route", candidate, "a test")
        )
        return comparison.load_comparison(
            self.world.context(), self.world.until_decided(made.id).id
        )


def sitting(tmp_path: Path, suite: str, *candidates: Profile) -> Sitting:
    bank = ItemBank(load_suites([SUITES[suite]]))
    models = {candidate.name: candidate for candidate in (BASE, *candidates)}
    pupils = {name: SimulatedModel(model, bank) for name, model in models.items()}

    def script(target: Target, item: Item, _epoch: int) -> str:
        patch = target.request_patch
        return answers.answer(
            pupils[target.model].sit(bank_item(item, suite=suite, place="")),
            models[target.model],
            prompt=item.input,
            json_asked=patch.response_format is not None,
            form_asked=answers.insists_on_form(patch.prompt_addendum),
        )

    clock = ManualClock()
    policy = Policy("default", gate=GatePolicy(n_max=160))
    world = SmallInstallation(tmp_path, clock=clock, policy=policy, script=script)
    world.suites = {suite: SUITES[suite]}
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
    settings = RouteSettings(suites=(RouteSuite(suite),))
    routes.create_route(ctx, SYSTEM, "route", "sim/base", settings=settings)
    return Sitting(world)


@pytest.mark.parametrize(
    ("suite", "habits", "rule"),
    [
        pytest.param(
            suite, habits, rule, marks=[] if (suite, rule) in SAMPLED else pytest.mark.verify
        )
        for suite, habits, rule in HABITS
    ],
)
def test_a_habit_alone_is_a_format_mismatch_and_with_less_skill_a_failure(
    suite: str, habits: Habits, rule: str, tmp_path: Path
) -> None:
    in_habit = replace(BASE, name="in-habit", habits=habits)
    in_both = replace(in_habit, name="in-both", default_skill=WEAK)
    in_substance = replace(BASE, name="in-substance", default_skill=WEAK)

    found = sitting(tmp_path, suite, in_habit, in_both, in_substance)
    compared = found.compared("sim/in-habit")
    both, substance = (found.verdict(f"sim/in-{n}") for n in ("both", "substance"))

    (lost,) = find_format_failures(compared)
    assert compared.verdict is not None
    assert compared.verdict.outcome == "harness_mismatch"
    assert (lost.remedy.rule, max(lost.rules, key=lost.rules.__getitem__)) == (rule, rule)
    assert lost.strict_delta < -0.05 < lost.lenient_delta
    assert len(lost.examples) == 5
    for example in lost.examples:
        assert (example.rule, example.candidate_score, example.lenient_score) == (rule, 0, 1)
        assert example.incumbent != example.candidate
    assert (both.outcome, substance.outcome) == ("failed", "failed")


def the_loss(compared: comparison.Comparison) -> FormatFailure:
    (lost,) = find_format_failures(compared)
    return lost


@pytest.mark.parametrize("claim", list(Claim))
def test_the_commands_of_a_remedy_ask_the_same_question_in_options_that_there_are(
    claim: Claim, tmp_path: Path
) -> None:
    compared = sitting(
        tmp_path, "extraction", replace(BASE, name="m", habits=Habits(json_fences=OFTEN))
    ).compared("sim/m")
    request = replace(compared.proposal, claim=claim, reason="it's cheaper")

    for mend in the_loss(replace(compared, proposal=request)).mends:
        words = shlex.split(mend.commands[1])
        given = create_proposal.make_context("create", words[3:]).params
        assert words[:3] == ["swapgate", "proposal", "create"]
        assert (given["route"], given["candidates"]) == ("route", (mend.target,))
        assert (given["claim"], given["reason"]) == (claim.value, "it's cheaper")
        assert given["descends_from"] == request.candidate
        assert (given["margin"] is None) == (claim is Claim.SUPERIOR)


@pytest.mark.parametrize(
    ("suite", "habits"),
    [
        ("extraction", Habits(json_fences=0.4, trailing_prose=0.4)),
        pytest.param("tickets", Habits(verbose=OFTEN), marks=pytest.mark.verify),
        ("instructions", Habits(verbose=OFTEN)),
    ],
)
def test_the_remedy_as_a_request_patch_makes_another_target_that_passes(
    suite: str, habits: Habits, tmp_path: Path
) -> None:
    """Better in substance, hidden by its habits; mended it shows."""
    better = replace(BASE, name="better", default_skill=0.97, habits=habits)

    found = sitting(tmp_path, suite, better)
    compared = found.compared("sim/better")
    lost = the_loss(compared)
    mended = patch_candidate(compared.candidate, lost.remedy)
    assert mended.id == lost.mends[0].target
    ctx = found.world.context()
    seed = TargetSeed(mended.provider, mended.model, mended.parameters, mended.request_patch)
    assert targets.add_target(ctx, ANN, seed).id == mended.id
    request = ProposalRequest("route", mended.id, descends_from=compared.candidate.id)
    again = found.world.until_decided(submission.create_proposal(ctx, ANN, request).id)
    verdict = comparison.load_comparison(ctx, again.id).verdict

    assert verdict is not None
    assert verdict.outcome == "passed"
    assert {plan.look for plan in again.plans} == {2}


def test_a_response_format_is_offered_where_it_helps_and_helps(tmp_path: Path) -> None:
    better = replace(BASE, name="better", default_skill=0.97, habits=Habits(json_fences=OFTEN))

    found = sitting(tmp_path, "extraction", better)
    compared = found.compared("sim/better")
    mended = with_json_mode(compared.candidate)
    assert [mend.target for mend in the_loss(compared).mends][1:] == [mended.id]
    seed = TargetSeed("sim", "better", {}, mended.request_patch)
    targets.add_target(found.world.context(), ANN, seed)
    assert found.verdict(mended.id).outcome == "passed"
