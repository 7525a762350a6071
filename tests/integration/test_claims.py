from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboard.views.verdict_text import failing_loss
from evals.suites.items import Item
from harness.frame.errors import ConfigError, InputError, NotFound
from harness.frame.people.access import SYSTEM
from harness.gate.offline.suite_claims import WEIGHTED_MEAN
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
    SuiteRole,
)
from harness.gate.verdict import Passed
from harness.proposals import recomputation
from harness.proposals.candidates import estimate
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.report import comparison
from harness.proposals.report.answer_examples import describe_report
from harness.proposals.report.content import gather_report
from harness.proposals.report.junit import render_junit
from harness.proposals.report.markdown import render_markdown
from harness.proposals.submission import ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Price, Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.colours_suite import ITEMS
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.short_policies import POLICY

CHEAPER = Claim.CHEAPER
# With the 60 items of this world a smaller allowed loss, or a higher ceiling, shows nothing.
GATE = replace(POLICY.gate, margin=0.2, cost_ceiling=2.0)


@pytest.fixture
def plain(tmp_path: Path) -> SmallInstallation:
    clock = ManualClock()
    world = SmallInstallation(tmp_path, clock=clock)
    world.set_up()
    return world


def same(
    _target: Target,
    item: Item,
    _epoch: int,
) -> str:
    """All models answer alike."""
    return str(item.target)


def prepared(world: SmallInstallation, gate: GatePolicy = GATE) -> SmallInstallation:
    world.policy = replace(POLICY, gate=gate)
    prices = {
        "base": Price(2.0, 4.0),
        "good": Price(0.5, 1.0),
        "equal": Price(2.0, 4.0),
    }
    provider = Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=prices)
    targets.put_provider(world.context(), SYSTEM, provider)
    return world


def estimated(
    world: SmallInstallation,
    candidate: str = "sim/better",
    *,
    route: str = "chat",
    effect: float | None = None,
    **wish: Any,
) -> SuiteEstimate:
    request = ProposalRequest(route, candidate, **wish)
    (found,) = estimate.estimate_proposal(
        world.context(),
        request,
        effect=effect,
    )
    return found


def proposed(
    world: SmallInstallation,
    candidate: str,
    **more: Any,
) -> Proposal:
    return world.decided(candidate, claim=CHEAPER, **more)


def with_suites(world: SmallInstallation, *suites: RouteSuite) -> None:
    colours = world.suites["colours"]
    text = (world.folder / "colours.jsonl").read_text(encoding="utf-8")
    for suite in suites:
        if suite.suite == "colours":
            continue
        path = world.folder / f"{suite.suite}.jsonl"
        # Primary suites with the same items are refused.
        path.write_text(
            text.replace("Colour number", f"{suite.suite} number"), encoding="utf-8"
        )
        world.suites[suite.suite] = replace(
            colours, name=suite.suite, version=suite.suite, path=path
        )
    settings = RouteSettings(suites=suites)
    routes.create_route(world.context(), SYSTEM, "mixed", "sim/base", settings=settings)


@pytest.mark.req("A3", "A7")
def test_a_cheaper_equal_candidate_passes_and_the_evidence_is_told_everywhere(
    world: SmallInstallation,
) -> None:
    prepared(world).script = same
    proposal = proposed(world, "sim/good", min_saving=0.3)

    assert proposal.claim is CHEAPER
    proposal_comparison = comparison.load_comparison(world.context(), proposal.id)
    assert isinstance(proposal_comparison.verdict, Passed), proposal_comparison.verdict
    cost = proposal_comparison.verdict.suites[0].figures.cost
    assert cost is not None
    assert cost.saving == pytest.approx(0.75)
    assert cost.min_saving == 0.3
    assert proposal_comparison.candidate_figures.cost_interval_usd_per_1000 is not None
    text = render_markdown(describe_report(gather_report(world.context(), proposal.id)))
    assert "It is cheaper: 75 % less per item" in text
    assert "| colours | shown |" in text
    replayed = recomputation.replay_verdict(world.context(), proposal.id)
    assert replayed.agrees, replayed.differences


@pytest.mark.req("A3", "A7")
def test_an_equally_dear_candidate_does_not_pass(plain: SmallInstallation) -> None:
    prepared(plain).script = same
    proposal = proposed(plain, "sim/equal")

    assert proposal.phase is ProposalPhase.REJECTED
    assert "0 % less per item" in proposal.closed_because
    assert recomputation.replay_verdict(plain.context(), proposal.id).agrees


@pytest.mark.req("A3", "A7")
def test_a_model_without_a_price_is_refused_before_anything_is_asked(
    plain: SmallInstallation,
) -> None:
    prepared(plain)

    with pytest.raises(
        InputError,
        match="price of sim/better is unknown: `swapproof model price sim/better",
    ):
        plain.propose("sim/better", claim=CHEAPER)
    with pytest.raises(InputError, match="needs the claim cheaper_and_not_worse"):
        plain.propose("sim/good", min_saving=0.2)
    with pytest.raises(InputError, match="the smallest saving must be a share of 0"):
        plain.propose("sim/good", claim=CHEAPER, min_saving=1.0)


@pytest.mark.spine
@pytest.mark.req("A3", "F2")
def test_the_plan_says_beforehand_which_loss_fails_under_a_margin(
    plain: SmallInstallation,
) -> None:
    prepared(plain).script = same
    listed = estimated(plain, "sim/good", claim=CHEAPER)
    better = estimated(plain, "sim/good", claim=Claim.SUPERIOR)

    assert listed.failing is not None
    assert listed.failing > listed.plan.margin
    size, said = listed.texts
    assert size.startswith(f"{listed.plan.planned_items:,} items: ")
    assert said.startswith(f"a loss of {listed.failing * 100:.1f} points fails in 80 % of")
    assert (better.failing, len(better.texts)) == (None, 1)
    assert failing_loss(listed) == f"{listed.failing * 100:.1f} points in 80 % of comparisons"
    assert failing_loss(better) == "any loss that is shown"
    assert list(estimate.describe_before_answers(plain.context(), listed.plan)) == [size, said]


@pytest.mark.req("A3", "A7")
def test_the_plan_says_how_many_items_the_saving_takes(plain: SmallInstallation) -> None:
    prepared(plain).script = same
    listed = estimated(plain, "sim/good", claim=CHEAPER)
    assert listed.guessed
    assert listed.saving == pytest.approx(0.75)
    proposed(plain, "sim/good")

    known = estimated(plain, "sim/good", claim=CHEAPER)
    assert known.saving == pytest.approx(0.75)
    assert known.saving_items is not None
    assert known.saving_items < 30


@pytest.mark.req("A3", "A7")
def test_the_plan_recommends_the_claim_that_fits_the_candidates_price(
    plain: SmallInstallation,
) -> None:
    gate = replace(GATE, claim=Claim.SUPERIOR, margin_max=0.3)
    prepared(plain, gate)
    tenth = estimated(plain, "sim/good").advice
    same_price = estimated(plain, "sim/equal").advice
    asked = estimated(plain, "sim/good", claim=Claim.SUPERIOR).advice

    assert [(one.claim, one.margin) for one in tenth.options if one.epochs == 1] == [
        (CHEAPER, 0.2),
        (Claim.SUPERIOR, 0.2),
        (Claim.NON_INFERIOR, 0.2),
        (Claim.NON_INFERIOR, 0.3),
        (CHEAPER, 0.3),
    ]
    assert tenth.own.claim is Claim.SUPERIOR
    assert "the candidate costs 75 % less" in tenth.why
    assert same_price.preferred.claim is Claim.SUPERIOR
    assert CHEAPER not in {one.claim for one in same_price.options}
    assert asked.preferred.claim is CHEAPER  # a person sees it before the first look
    # About these very items: said, and the owner's setting decides whether it comes first.
    assert [one.claim for one in tenth.options if one.epochs == 2] == [CHEAPER]
    these = replace(gate, population=ClaimPopulation.THESE, epochs=2)
    first = estimated(prepared(plain, these), "sim/good").advice.preferred
    assert (first.claim, first.population) == (
        CHEAPER,
        ClaimPopulation.THESE,
    )


@pytest.mark.req("A3", "A7", "F2")
def test_a_guard_stops_a_swap_that_the_primary_suite_would_pass(
    plain: SmallInstallation,
) -> None:
    def script(
        target: Target,
        item: Item,
        _epoch: int,
    ) -> str:
        right = (target.model == "base") == item.id.startswith("guard")
        return str(item.target) if right else "wrong"

    prepared(plain).script = script
    with_suites(plain, RouteSuite("colours"), RouteSuite("guarding", SuiteRole.GUARD))
    others = plain.folder / "guarding.jsonl"
    text = (plain.folder / "colours.jsonl").read_text(encoding="utf-8")
    others.write_text(text.replace("colour-", "guard-"), encoding="utf-8")
    plain.suites["guarding"] = replace(plain.suites["guarding"], path=others)
    decided = plain.decided("sim/good", route="mixed")

    assert decided.phase is ProposalPhase.REJECTED
    assert decided.closed_because.startswith("guarding: The candidate is worse")
    text = render_markdown(describe_report(gather_report(plain.context(), decided.id)))
    assert "| guarding | guard | failed | −" in text


@pytest.mark.req("A3", "A7", "F2")
def test_a_weighted_primary_is_registered_judged_reported_and_replayed(
    plain: SmallInstallation,
) -> None:
    prepared(plain)
    with_suites(plain, RouteSuite("colours"), RouteSuite("shades", weight=2.0))
    decided = plain.decided("sim/good", route="mixed")
    report = gather_report(plain.context(), decided.id)

    weights = [(plan.suite, plan.combine, plan.weight) for plan in decided.plans]
    assert weights == [
        ("colours", PrimaryCombination.WEIGHTED, 1.0),
        ("shades", PrimaryCombination.WEIGHTED, 2.0),
    ]
    assert [suite_report.suite for suite_report in report.together] == [WEIGHTED_MEAN]
    assert f"| {WEIGHTED_MEAN} | primary | passed |" in render_markdown(describe_report(report))
    assert "| primary | counts in the mean |" in render_markdown(describe_report(report))
    assert 'tests="3" failures="0"' in render_junit(report)
    assert recomputation.replay_verdict(plain.context(), decided.id).agrees


@pytest.mark.req("A3", "A7", "F2")
@pytest.mark.parametrize(
    ("suites", "claim", "why"),
    [
        (
            [RouteSuite("colours", SuiteRole.GUARD)],
            None,
            "needs a primary suite",
        ),
        (
            [RouteSuite("colours"), RouteSuite("shades")],
            CHEAPER,
            "which does not fit the claim",
        ),
        (
            [RouteSuite("colours"), RouteSuite("colours")],
            None,
            "contains a suite twice",
        ),
        (
            [RouteSuite("colours"), RouteSuite("copy")],
            None,
            "'colours' and 'copy' share 100 % of the smaller suite's items.* role `guard`",
        ),
    ],
)
def test_roles_that_make_no_claim_are_refused(
    plain: SmallInstallation,
    suites: Sequence[RouteSuite],
    claim: Claim | None,
    why: str,
) -> None:
    prepared(plain, replace(GATE, primaries=PrimaryCombination.ANY))
    with_suites(plain, *suites)
    plain.suites["copy"] = replace(plain.suites["colours"], name="copy")

    with pytest.raises(ConfigError, match=why):
        plain.propose("sim/good", route="mixed", claim=claim)


@pytest.mark.req("F2", "A3")
def test_without_a_former_run_cost_time_and_spread_are_guessed(
    world: SmallInstallation,
) -> None:
    suite_estimate = estimated(world)

    assert suite_estimate.guessed
    assert suite_estimate.cost_usd is not None
    assert 0.0 < suite_estimate.cost_usd < 0.1
    assert suite_estimate.duration_s is not None
    assert suite_estimate.spread is None
    assert suite_estimate.sd == pytest.approx((0.2 - 0.05**2) ** 0.5)
    assert f"With {ITEMS} items the gate can only show differences of" in suite_estimate.warning


@pytest.mark.req("F2", "A3")
def test_recorded_answers_give_spread_cost_and_time(world: SmallInstallation) -> None:
    world.decided("sim/better")

    suite_estimate = estimated(world)

    assert suite_estimate.spread is not None
    assert suite_estimate.spread.pairs == ITEMS
    assert suite_estimate.incumbent is not None
    assert suite_estimate.candidate is not None
    assert not suite_estimate.estimated
    each = (suite_estimate.incumbent.cost_usd or 0.0) + (
        suite_estimate.candidate.cost_usd or 0.0
    )
    assert suite_estimate.cost_usd == pytest.approx(ITEMS * each)
    assert suite_estimate.duration_s is not None


@pytest.mark.req("F2", "A3")
def test_a_candidate_without_answers_is_priced_by_the_incumbents_tokens(
    world: SmallInstallation,
) -> None:
    world.decided("sim/better")

    known = estimated(world, "sim/good")
    unpriced = estimated(world, "sim/nobody")

    assert known.estimated
    # The same price for all models of this world.
    assert known.cost_usd == pytest.approx(2 * ITEMS * (known.incumbent.cost_usd or 0.0))  # type: ignore[union-attr]
    assert unpriced.cost_usd is None


@pytest.mark.req("F2", "A3")
def test_the_cheapest_design_is_for_the_difference_that_matters(
    world: SmallInstallation,
) -> None:
    small = estimated(world, effect=0.05)
    large = estimated(world, effect=0.3)

    assert small.advice.own.enough is None
    assert "too few to detect 5" in small.warning
    assert large.advice.own.enough is not None
    assert large.advice.own.enough.items <= ITEMS
    assert large.warning == ""


@pytest.mark.req("F2", "A3")
def test_the_warning_of_too_few_planned_items_names_the_design_that_would_do(
    world: SmallInstallation,
) -> None:
    world.policy = replace(world.policy, gate=replace(world.policy.gate, n_max=30))

    found = estimated(world, effect=0.16)

    enough = found.advice.own.enough
    assert enough is not None
    assert found.warning.endswith(
        f"not in 80 %; {enough.items} items with {enough.epochs} epoch would show 16 points."
    )


@pytest.mark.req("F2", "A3")
def test_for_non_inferiority_the_margin_is_the_distance(world: SmallInstallation) -> None:
    world.policy = replace(world.policy, gate=replace(world.policy.gate, margin_max=0.25))
    suite_estimate = estimated(
        world,
        "sim/equal",
        reason="cheaper",
        claim=Claim.NON_INFERIOR,
        margin=0.25,
    )

    assert suite_estimate.effect == 0.25
    assert suite_estimate.advice.own.enough is not None


@pytest.mark.req("F2", "A3")
def test_a_wish_that_makes_no_sense_is_refused(world: SmallInstallation) -> None:
    with pytest.raises(NotFound):
        estimated(world, route="nowhere")
    with pytest.raises(InputError):
        estimated(world, margin=1.5)
