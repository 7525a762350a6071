"""A candidate that comes back to a suite pays for its further looks (statistics.md 1.8)."""

from dataclasses import replace

import pytest

from harness.control import propose, routes
from harness.control.propose import Wish
from harness.domain.access import SYSTEM
from harness.domain.evaluation import SuitePlan
from harness.domain.policy import Policy, Spend
from harness.domain.proposal import Proposal
from harness.domain.routing import RouteSettings, RouteSuite
from harness.gate.words import spending
from tests.world import ANN, POLICY, World

pytestmark = pytest.mark.req("F2")


def decided(world: World, wish: Wish) -> Proposal:
    proposal = propose.create(world.context(), ANN, wish)
    return world.until_decided(proposal.id)


def wish(candidate: str = "sim/worse", route: str = "chat", **more: str) -> Wish:
    return Wish(route, candidate, "a test", **more)  # type: ignore[arg-type]  # names only


def spends(spend: Spend) -> Policy:
    return replace(POLICY, gate=replace(POLICY.gate, spend=spend))


def plan_of(proposal: Proposal) -> SuitePlan:
    return proposal.plans[0]


@pytest.mark.parametrize(
    ("spend", "alphas"),
    [
        (Spend.FIRST_FULL, (0.05, 0.05 / 6, 0.05 / 12)),
        (Spend.HARMONIC, (0.025, 0.05 / 6, 0.05 / 12)),
        (Spend.SQUARE, (0.030396, 0.007599, 0.003377)),
        (Spend.NONE, (0.05, 0.05, 0.05)),
    ],
)
def test_each_look_gets_the_alpha_of_its_rule(
    world: World, spend: Spend, alphas: tuple[float, ...]
) -> None:
    world.policy = spends(spend)

    for look, alpha in enumerate(alphas, start=1):
        plan = plan_of(decided(world, wish()))
        assert (plan.look, plan.spend) == (look, spend.value)
        assert plan.alpha == pytest.approx(alpha, rel=1e-3)


def test_the_verdict_says_which_look_it_was(world: World) -> None:
    decided(world, wish())
    proposal = decided(world, wish())

    with world.store.read() as tx:
        details = tx.verdicts.get(proposal.verdict or "").suites[0].details
    assert (details["look"], details["spend"]) == (2, "first_full")
    assert details["alpha"] == pytest.approx(0.05 / 6)


def test_another_candidate_looks_for_the_first_time_unless_it_descends(world: World) -> None:
    decided(world, wish())

    assert plan_of(decided(world, wish("sim/equal"))).look == 1
    tuned = decided(world, wish("sim/good", descends_from="sim/worse"))
    assert plan_of(tuned).look == 2


def test_a_proposal_that_scored_nothing_was_no_look(world: World) -> None:
    first = propose.create(world.context(), ANN, wish())
    propose.cancel(world.context(), ANN, first.id)

    assert plan_of(decided(world, wish())).look == 1


def test_looks_count_over_routes(world: World) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create(world.context(), SYSTEM, "mail", "sim/base", settings=settings)
    decided(world, wish())

    assert plan_of(decided(world, wish(route="mail"))).look == 2


def test_fresh_items_begin_again(world: World) -> None:
    decided(world, wish())
    colours = world.suites["colours"]
    assert colours.path is not None
    fresh = colours.path.with_name("fresh.jsonl")
    fresh.write_text(colours.path.read_text().replace("Colour", "Shade"))
    world.suites["colours"] = replace(colours, path=fresh)

    (plan,) = propose.preview(world.context(), wish())

    assert plan.look == 1


def test_another_version_of_a_suite_does_not_make_its_items_fresh(world: World) -> None:
    decided(world, wish())
    world.suites["colours"] = replace(world.suites["colours"], version="2")

    assert plan_of(decided(world, wish())).look == 2


def test_the_preview_shows_the_look_that_the_proposal_will_get(world: World) -> None:
    decided(world, wish())

    (plan,) = propose.preview(world.context(), wish())

    assert plan.look == 2
    assert plan.alpha == pytest.approx(0.05 / 6)


@pytest.mark.parametrize(
    ("look", "spend", "said"),
    [
        (
            1,
            "first_full",
            "first look of this candidate at this suite: alpha 0.05 (first_full: ",
        ),
        (2, "none", "nothing is promised about repeats"),
        (1, "", ""),
    ],
)
def test_words_name_the_look_and_what_is_promised(look: int, spend: str, said: str) -> None:
    assert said in spending(look, 0.05, spend)
    assert bool(spending(look, 0.05, spend)) is bool(spend)
