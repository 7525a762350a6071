"""A route's proven spares, from their rounds to the routers (statistics.md §1.18)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from evals.suites.items import Item
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.suite_plan import Claim
from harness.proposals import decisions, fallback_chain
from harness.proposals.candidates import candidates, spares
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.providers.target import Target
from harness.routing.candidate_schedule import OnBetter, Preference
from harness.routing.control import routes
from harness.routing.evidence import EvidenceKind
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.route_settings import FailoverOrder
from harness.routing.spare import Spare
from router.snapshot.compiler import UNPROVEN, compile_snapshot
from tests.integration.test_candidates import (
    MONDAY,
    WEEKLY,
    list_models,
    run_schedule,
    schedule,
    wait_until,
)
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import POLICY

pytestmark = pytest.mark.req("F12")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
SPARES = replace(WEEKLY, prefer=Preference.NOT_WORSE, on_better=OnBetter.NOTIFY)
EQUAL = Target.from_name("sim/equal").id
WAIVE = WaiverRequest("not measured yet", timedelta(days=90))


def skilled(target: Target, item: Item, _epoch: int) -> str:
    """Every model but `worse` answers like the incumbent, until an item names it."""
    number = int(item.id.rpartition("-")[2])
    is_right = number * 7 % 60 < (5 if target.model == "worse" else 55)
    return str(item.target) if is_right else "wrong"


@pytest.fixture
def world(world: SmallInstallation) -> SmallInstallation:
    world.script = skilled
    # A margin that 60 items can show at the small alpha of a round.
    world.policy = replace(POLICY, gate=replace(POLICY.gate, margin=0.3))
    list_models(world, "base", "good", "equal", "worse")
    return world


def add_fallbacks(world: SmallInstallation, *names: str) -> None:
    for name in names:
        fallback_chain.add_fallback(
            world.context(), ADA, "chat", FallbackRequest(name, waive=WAIVE), reason="a spare"
        )


def measure(world: SmallInstallation, weeks: int = 0) -> None:
    wait_until(world, MONDAY + timedelta(weeks=weeks))
    run_schedule(world)
    for _ in range(12):
        world.run_once()
        with world.store.read() as tx:
            phases = {proposal.phase for proposal in Proposals(tx).open()}
        if not phases & {ProposalPhase.PROPOSED, ProposalPhase.EVALUATING}:
            return


def newest(world: SmallInstallation, model: str) -> Proposal:
    with world.store.read() as tx:
        return Proposals(tx).of_candidates([Target.from_name(f"sim/{model}").id])[0]


def shown(world: SmallInstallation) -> dict[str, Spare]:
    return {spare.name: spare for spare in spares.list_spares(world.context(), "chat")}


def set_failover(world: SmallInstallation, order: FailoverOrder) -> None:
    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda before: replace(before, failover=order)
    )
    spares.run_once(world.context())


def tried(world: SmallInstallation) -> list[str]:
    snapshot = world.store.snapshot()
    return [
        snapshot.table.targets[id_].model for id_ in snapshot.table.routes["chat"].fallbacks
    ]


@pytest.mark.both_databases
def test_a_round_proves_the_fallbacks_and_announces_none_of_them(
    world: SmallInstallation,
) -> None:
    add_fallbacks(world, "sim/worse", "sim/equal")
    assert not any(spare.proven for spare in shown(world).values())

    schedule(world, SPARES)
    measure(world)

    found = shown(world)
    assert {name: spare.proven for name, spare in found.items()} == {
        "sim/worse": False,
        "sim/equal": True,
        "sim/good": True,  # outside of the chain
    }
    assert "its newest verdict" in found["sim/worse"].text
    assert found["sim/good"].place is None
    made = newest(world, "equal")
    assert made.claim is Claim.NON_INFERIOR
    assert made.phase is ProposalPhase.REJECTED
    with world.store.read() as tx:
        assert not Alerts(tx).newest(f"{AlertKind.BETTER_CANDIDATE.value}:{made.id}")


def test_a_round_proves_a_fallback_again_before_its_30_days_end(
    world: SmallInstallation,
) -> None:
    add_fallbacks(world, "sim/equal")
    schedule(world, replace(SPARES, models=("sim/equal", "sim/good")))
    measure(world)
    first = shown(world)["sim/equal"].proof
    [first_plan] = newest(world, "equal").plans
    for week in (1, 2, 3):
        wait_until(world, MONDAY + timedelta(weeks=week))
        assert not candidates.plan_round(world.context(), world.route(), SPARES).measured[1:]
    measure(world, weeks=4)

    again = shown(world)
    assert again["sim/equal"].proof.verdict != first.verdict
    assert again["sim/equal"].proven
    [plan] = newest(world, "equal").plans
    assert plan.look == 2
    assert plan.alpha < first_plan.alpha * 2  # alone, so that it gets the whole round's alpha
    world.clock.advance(timedelta(days=3).total_seconds())
    assert "sim/good" not in shown(world)  # no fallback, so no round renews it


def test_the_newest_verdict_counts_and_not_the_best(world: SmallInstallation) -> None:
    add_fallbacks(world, "sim/equal")
    schedule(world, SPARES)
    measure(world)
    assert shown(world)["sim/equal"].proven
    world.script = lambda target, item, _: "wrong" if target.id == EQUAL else str(item.target)
    measure(world, weeks=4)

    spare = shown(world)["sim/equal"]
    assert not spare.proven
    assert "is FAILED" in spare.text


def test_another_suite_and_a_refusal_by_a_person_end_a_proof(world: SmallInstallation) -> None:
    add_fallbacks(world, "sim/equal")
    schedule(world, replace(SPARES, models=("sim/equal",), on_better=OnBetter.PROPOSE))
    measure(world)
    assert shown(world)["sim/equal"].proven  # while it waits for a person
    made = newest(world, "equal")
    decisions.refuse_proposal(world.context(), ADA, made.id, "unsafe")
    assert "refused by ada: unsafe" in shown(world)["sim/equal"].text

    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda before: replace(before, suites=())
    )
    assert shown(world)["sim/equal"].text.endswith("not proven: the route has no suites")


@pytest.mark.spine
@pytest.mark.req("H6")
def test_routers_try_proven_fallbacks_first_only_if_the_route_says_so(
    world: SmallInstallation,
) -> None:
    add_fallbacks(world, "sim/worse", "sim/equal")
    schedule(world, SPARES)
    measure(world)
    assert tried(world) == ["worse", "equal"]

    set_failover(world, FailoverOrder.PROVEN_FIRST)
    assert tried(world) == ["equal", "worse"]
    assert world.route().fallbacks == (Target.from_name("sim/worse").id, EQUAL)
    version = world.route().version
    spares.run_once(world.context())
    assert world.route().version == version  # nothing changed
    compiled = compile_snapshot(world.store.snapshot()).routes["chat"]
    unproven = {up.name for up in compiled.upstreams.values() if UNPROVEN in up.headers}
    assert unproven == {"sim/worse"}

    set_failover(world, FailoverOrder.DECLARED)
    assert tried(world) == ["worse", "equal"]
    assert not world.route().settings.proven


@pytest.mark.spine
def test_a_proof_that_lapses_is_withdrawn_from_the_routers(world: SmallInstallation) -> None:
    add_fallbacks(world, "sim/worse", "sim/equal")
    schedule(world, SPARES)
    measure(world)
    set_failover(world, FailoverOrder.PROVEN_FIRST)
    schedule(world, replace(SPARES, models=("sim/good",)))

    world.clock.advance(timedelta(days=30).total_seconds())
    spares.run_once(world.context())

    assert tried(world) == ["worse", "equal"]
    assert "proved it for 30 days only" in shown(world)["sim/equal"].text


def test_an_expired_waiver_stops_the_job_for_its_own_route_alone(
    world: SmallInstallation,
) -> None:
    add_fallbacks(world, "sim/worse", "sim/equal")
    schedule(world, SPARES)
    set_failover(world, FailoverOrder.PROVEN_FIRST)
    measure(world, weeks=13)
    assert shown(world)["sim/equal"].proven

    assert spares.run_once(world.context()) == []

    assert tried(world) == ["worse", "equal"]


@pytest.mark.spine
def test_a_proven_spare_enters_the_chain_without_a_waiver(world: SmallInstallation) -> None:
    schedule(world, SPARES)
    measure(world)

    fallback_chain.add_fallback(
        world.context(), ADA, "chat", FallbackRequest("sim/good"), reason="it is proven"
    )

    [entry] = fallback_chain.list_fallbacks(world.context(), "chat")
    assert entry.evidence is EvidenceKind.VERDICT
