"""A candidate that comes back to a suite pays for its further looks (statistics.md §1.8)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.evals.settings import SuiteSettings
from harness.frame.people.access import SYSTEM
from harness.gate.pins import ServedModel
from harness.gate.run import Sample
from harness.gate.sentences import spending_text
from harness.gate.suite_plan import SuitePlan
from harness.proposals import decisions, eval_queue
from harness.providers.registry import targets
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.colours_suite import answer
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN
from tests.support.control.short_policies import POLICY

pytestmark = pytest.mark.req("F2")
WORSE = "sim/worse"


def plan_of(proposal: Proposal) -> SuitePlan:
    return proposal.plans[0]


@pytest.mark.spine
def test_each_look_gets_its_part_of_alpha(world: SmallInstallation) -> None:
    for look, alpha in enumerate((0.05, 0.05 / 6, 0.05 / 12), start=1):
        proposal = world.decided(WORSE)
        plan = plan_of(proposal)
        assert (plan.look, plan.spend) == (look, "first_full")
        assert plan.alpha == pytest.approx(alpha)
        with world.store.read() as tx:
            details = Verdicts(tx).get(proposal.verdict or "").suites[0].details
        told = (
            details["look"],
            details["spend"],
            details["alpha"],
        )
        assert told == (look, "first_full", plan.alpha)


def test_another_candidate_looks_for_the_first_time_unless_it_descends(
    world: SmallInstallation,
) -> None:
    world.decided(WORSE)

    assert plan_of(world.decided("sim/equal")).look == 1
    tuned = world.decided("sim/good", descends_from="sim/worse")
    assert plan_of(tuned).look == 2


def test_a_proposal_that_scored_nothing_was_no_look(world: SmallInstallation) -> None:
    first = world.propose(WORSE)
    decisions.cancel_proposal(world.context(), ANN, first.id)

    assert plan_of(world.decided(WORSE)).look == 1


def test_fresh_items_begin_again(world: SmallInstallation) -> None:
    world.decided(WORSE)
    colours = world.suites["colours"]
    assert colours.path is not None
    fresh = colours.path.with_name("fresh.jsonl")
    fresh.write_text(colours.path.read_text().replace("Colour", "Shade"))
    world.suites["colours"] = replace(colours, path=fresh)

    (plan,) = world.preview(WORSE).plans

    assert plan.look == 1


SPELLINGS = {
    "seed": Target("sim", "worse", {"seed": 7}),
    "max_tokens": Target("sim", "worse", {"max_tokens": 99}),
    "user": Target("sim", "worse", {"user": "somebody"}),
    "temperature": Target("sim", "worse", {"temperature": 0.1}),
    "addendum": Target("sim", "worse", {}, RequestPatch(prompt_addendum="Be brief.")),
    "patched field": Target("sim", "worse", {}, RequestPatch({"top_p": 0.9})),
    "name's case": Target("sim", "WORSE"),
    "another provider at the same host": Target("alias", "worse"),
}


@pytest.fixture
def plain_world(tmp_path: Path) -> SmallInstallation:
    clock = ManualClock()
    world = SmallInstallation(tmp_path, clock=clock)
    world.set_up()
    world.script = lambda target, item, epoch: answer(
        replace(target, model=target.model.casefold()), item, epoch
    )
    alias = Provider("alias", "custom", "HTTP://127.0.0.1:9/another/v1")
    targets.put_provider(world.context(), SYSTEM, alias)
    return world


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_model_that_is_spelled_otherwise_is_the_same_candidate(
    plain_world: SmallInstallation, spelling: str
) -> None:
    """Of a format mismatch, too: its remedy is another look."""
    plain_world.decided(WORSE)
    target = targets.add_target(plain_world.context(), SYSTEM, SPELLINGS[spelling])

    assert plan_of(plain_world.decided(target.id)).look == 2


def test_a_name_that_its_provider_answers_with_is_the_same_model(
    plain_world: SmallInstallation,
) -> None:
    plain_world.served = lambda target, _item: ServedModel(
        target.model if target.model == "base" else "worse-2026-05-01"
    )
    plain_world.script = lambda _target, item, _epoch: str(item.target) + "!"
    plain_world.decided(WORSE)

    assert plan_of(plain_world.decided("sim/worse-2026-05-01")).look == 2


def test_aliases_that_answer_with_one_name_have_one_first_look_together(
    plain_world: SmallInstallation,
) -> None:
    """By the first answer of the second one it is known whose look that is."""
    plain_world.served = lambda target, _item: ServedModel(
        target.model if target.model == "base" else "one-model"
    )
    plain_world.script = lambda target, item, epoch: answer(
        replace(
            target,
            model={"alias-1": "equal", "alias-2": "better"}[target.model],
        )
        if target.model != "base"
        else target,
        item,
        epoch,
    )
    first = plain_world.decided("sim/alias-1")
    second = plain_world.decided("sim/alias-2")

    assert (plan_of(second).look, second.phase) == (
        1,
        ProposalPhase.REJECTED,
    )
    assert f"with 1 earlier looks at colours ({first.id})" in second.closed_because
    third = plain_world.decided("sim/alias-2")
    assert (plan_of(third).look, third.phase) == (3, ProposalPhase.CANARY)


def test_two_proposals_of_one_model_at_once_are_charged_in_their_order(
    plain_world: SmallInstallation,
) -> None:
    """The first one is not held up by the second, which knew of it."""
    plain_world.add_route("mail")
    first = plain_world.propose("sim/better")
    plain_world.clock.advance(1)
    second = plain_world.propose("sim/better", route="mail")

    assert plan_of(plain_world.until_decided(second.id)).look == 2
    assert plain_world.get(first.id).phase is ProposalPhase.CANARY


RESPELLED: dict[str, Callable[[SuiteSettings], SuiteSettings]] = {
    "name": lambda suite: replace(suite, name="shades"),
    "case": lambda suite: rewritten(suite, lambda text: text.replace("Colour", "COLOUR")),
    "spaces": lambda suite: rewritten(suite, lambda text: text.replace("number", " number  ")),
    "punctuation": lambda suite: rewritten(suite, lambda text: text.replace("?", " …!?")),
    "unicode": lambda suite: rewritten(suite, lambda text: text.replace("number", "nümber")),
    "order and labels": lambda suite: rewritten(suite, upside_down),
    "nine of ten are new": lambda suite: rewritten(suite, nine_of_ten_are_new),
}


def rewritten(suite: SuiteSettings, change: Callable[[str], str]) -> SuiteSettings:
    assert suite.path is not None
    other = suite.path.with_name("respelled.jsonl")
    other.write_text(change(suite.path.read_text()), encoding="utf-8")
    return replace(suite, path=other, version="2")


def upside_down(text: str) -> str:
    return "\n".join(reversed(text.replace('"target": "c', '"target": "d').splitlines()))


def nine_of_ten_are_new(text: str) -> str:
    lines = text.splitlines()
    others = [line.replace("Colour", "Shade") for line in lines]
    return "\n".join([*lines[: len(lines) // 10], *others[len(lines) // 10 :]])


@pytest.mark.parametrize("how", RESPELLED)
def test_items_that_are_spelled_otherwise_are_the_same_items(
    plain_world: SmallInstallation, how: str
) -> None:
    plain_world.decided(WORSE)
    changed = RESPELLED[how](plain_world.suites["colours"])
    plain_world.suites[changed.name] = changed
    settings = RouteSettings(suites=(RouteSuite(changed.name),))
    routes.create_route(plain_world.context(), SYSTEM, "mail", "sim/base", settings=settings)

    (plan,) = plain_world.preview(WORSE, route="mail").plans

    assert plan.look == 2


def test_other_settings_that_were_tried_by_hand_are_looks(
    plain_world: SmallInstallation,
) -> None:
    """The same target looked at before it is proposed decides nothing by itself."""
    ctx = plain_world.context()
    for name in ("sim/worse", "sim/equal"):
        eval_queue.start_run(
            ctx,
            ANN,
            "colours",
            targets.add_target(ctx, ANN, seed_of(name)).id,
        )
    plain_world.run_once(turns=2)
    assert plain_world.preview(WORSE).plans[0].look == 1

    for spelling in ("seed", "addendum"):
        target = targets.add_target(ctx, ANN, SPELLINGS[spelling])
        eval_queue.start_run(ctx, ANN, "colours", target.id)
    plain_world.run_once(turns=2)

    assert plain_world.preview(WORSE).plans[0].look == 3


def seed_of(name: str) -> Target:
    provider, _, model = name.partition("/")
    return Target(provider, model)


def test_cancelling_after_one_score_and_proposing_anew_is_another_look(
    plain_world: SmallInstallation,
) -> None:
    ctx = plain_world.context()
    proposal = plain_world.propose(WORSE)
    plain_world.run_once()
    with plain_world.store.write() as tx:
        run = plain_world.get(proposal.id).runs["colours"].candidate
        if not EvalRuns(tx).scored(run):
            EvalRuns(tx).store_sample(sample(run))
    decisions.cancel_proposal(ctx, ANN, proposal.id)

    assert plain_world.preview(WORSE).plans[0].look == 2


def sample(run: str) -> Sample:
    return Sample(run, "colour-1", 0, 0, "c1", 1.0, 1.0, 1, 1, 0.0, 0.1)


def test_the_risk_of_a_route_adds_up_and_is_told_before_the_next_proposal(
    plain_world: SmallInstallation,
) -> None:
    assert plain_world.preview(WORSE).risk.text == (
        "1st candidate on this route in 90 days: up to 5 % that it passed by luck"
    )
    for model in ("worse", "equal", "worse"):
        plain_world.decided(f"sim/{model}")

    risk = plain_world.preview("sim/good").risk
    assert risk.number == 4
    assert risk.risk == pytest.approx(0.05 + 0.05 + 0.05 / 6 + 0.05)
    assert "4th candidate on this route in 90 days: up to 16 % that one of" in risk.text

    plain_world.clock.advance(91 * 86_400)
    assert plain_world.preview("sim/good").risk.number == 1


def test_a_budget_caps_the_risk_of_a_route(plain_world: SmallInstallation) -> None:
    plain_world.policy = replace(POLICY, gate=replace(POLICY.gate, alpha_budget=0.08))
    alphas = [
        plan_of(plain_world.decided(f"sim/{model}")).alpha for model in ("worse", "equal")
    ]

    assert alphas == pytest.approx([0.04, 0.02])
    left = plain_world.preview("sim/good")
    assert left.plans[0].alpha == pytest.approx(0.01)
    assert left.risk.risk <= 0.08
    assert "the policy allows 8 %" in left.risk.text


def test_words_name_the_look_and_what_is_promised() -> None:
    assert spending_text(1, 0.05, "first_full") == (
        "first look of this model at these items: alpha 0.05 "
        "(first_full: 1.5 alpha over all looks together)"
    )
    assert "look number 2" in spending_text(2, 0.05, "first_full")
    assert spending_text(1, 0.05, "") == ""
