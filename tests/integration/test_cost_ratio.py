from dataclasses import replace
from typing import Any

import pytest

from harness.frame.errors import Conflict, InputError, NotAllowed
from harness.frame.people.access import SYSTEM, Actor
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.guardrails import Guardrail
from harness.gate.policy import Policy
from harness.interfaces.api.proposals import ProposalBody
from harness.proposals import decisions
from harness.proposals.candidates import candidates, cost_ratio
from harness.proposals.report.comparison import load_comparison
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.registry import targets
from harness.providers.target import Price
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import POLICY, approved

pytestmark = pytest.mark.req("A3", "F4")
CARL = replace(BEN, name="carl", principal="pr_carl")


def price(world: SmallInstallation, **prices: Price | None) -> None:
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    listed = {**provider.prices, **prices}
    known = {model: usd for model, usd in listed.items() if usd is not None}
    targets.put_provider(world.context(), SYSTEM, replace(provider, prices=known))


def accepting(ratio: float, because: str = "it answers more") -> dict[str, Any]:
    return {
        "actor": BEN,
        "accept_cost": ratio,
        "because": because,
    }


def watching(policy: Policy, **guardrails: float | bool) -> Policy:
    watched = replace(policy.canary.guardrails, **guardrails)
    return replace(policy, canary=replace(policy.canary, guardrails=watched))


def test_a_candidate_that_its_canary_would_end_for_is_refused_as_it_is_proposed(
    world: SmallInstallation,
) -> None:
    price(world, better=Price(3.2, 6.4))
    with pytest.raises(InputError, match=r"3\.2 times as much .* above 1\.5 .*accept-cost 4"):
        world.propose()
    with pytest.raises(InputError, match=r"above 2 times as much, so this cost ends it"):
        world.propose(**accepting(2.0))
    with pytest.raises(InputError, match="so this cost ends it"):
        world.propose(**accepting(1.0))
    with pytest.raises(InputError, match="must be 1 to"):
        world.propose(**accepting(0.99))
    with pytest.raises(NotAllowed, match="needs approver"):
        world.propose(**{**accepting(3.5), "actor": ANN})
    with pytest.raises(InputError, match="needs a reason"):
        world.propose(**accepting(3.5, " "))
    with world.store.read() as tx:
        assert not Proposals(tx).list()

    world.policy = watching(POLICY, cost_per_success=False)
    assert world.propose().accepted_cost is None


def test_an_accepted_cost_widens_the_guardrail_of_this_one_canary(
    world: SmallInstallation,
) -> None:
    price(world, better=Price(3.2, 6.4))
    made = world.decided(**accepting(3.5, "it answers more."))

    assert made.phase is ProposalPhase.CANARY
    tolerated = world.rollout().policy.tolerated
    assert tolerated[Guardrail.COST_PER_SUCCESS] == 3.5
    assert {
        **tolerated,
        Guardrail.COST_PER_SUCCESS: 1.5,
    } == POLICY.canary.tolerated
    seen = load_comparison(world.context(), made.id).cost.text
    assert "ben accepts up to 3.5 times the cost: it answers more." in seen
    with world.store.read() as tx:
        found = AuditLog(tx).for_subject(f"proposal {made.id}", since=made.created_at, limit=50)
    details = next(event.details for event in found if event.action == "proposal.create")
    accepted = {
        "ratio": 3.5,
        "because": "it answers more.",
        "by": "ben",
    }
    assert details["accepted_cost"] == accepted


def test_an_approver_accepts_the_cost_of_one_proposal_of_another_person(
    world: SmallInstallation,
) -> None:
    price(world, better=Price(3.2, 6.4), good=Price(3.2, 6.4))

    def accept(actor: Actor, ratio: float = 3.5) -> None:
        because = "it answers more"
        cost_ratio.accept_cost_of(
            world.context(),
            actor,
            "chat",
            "sim/better",
            ratio=ratio,
            because=because,
        )

    with pytest.raises(NotAllowed, match="needs approver"):
        accept(ANN)
    with pytest.raises(InputError, match=r"this cost ends it.* at least `--up-to 4`"):
        accept(BEN, 3.0)
    accept(BEN)
    with pytest.raises(InputError, match="sim/good costs"):
        world.propose("sim/good")
    made = world.propose()
    assert made.accepted_cost is not None
    assert made.accepted_cost.text == "ben accepts up to 3.5 times the cost: it answers more"

    decisions.cancel_proposal(world.context(), ANN, made.id)
    with pytest.raises(InputError, match="before yours: `swapproof proposal accept-cost"):
        world.propose()
    accept(BEN)
    world.clock.advance(31 * 86_400)
    with pytest.raises(InputError, match=r"above 1\.5 times"):
        world.propose()


@pytest.mark.both_databases
def test_a_price_that_rose_since_waits_for_an_approver_who_accepts_it(
    world: SmallInstallation,
) -> None:
    made = world.propose()
    price(world, better=Price(3.2, 6.4))
    waits = world.until_decided(made.id)
    assert waits.phase is ProposalPhase.AWAITING_APPROVAL

    ctx = world.context()
    with pytest.raises(InputError, match="Accept it with the approval"):
        decisions.approve_proposal(ctx, BEN, made.id, "fine")
    decisions.approve_proposal(ctx, BEN, made.id, "it answers more", accept_cost=4.0)
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.CANARY
    assert world.rollout().policy.guardrails.cost_per_success == 4.0
    changed = replace(world.get(made.id), accepted_cost=None)
    with (
        pytest.raises(InputError, match="a cost is accepted once"),
        world.store.write() as tx,
    ):
        Proposals(tx).save(changed)


def test_a_cost_is_accepted_once(world: SmallInstallation) -> None:
    world.policy = approved()
    made = world.decided(**accepting(2.0))
    with pytest.raises(Conflict, match="cost cannot change"):
        decisions.approve_proposal(world.context(), CARL, made.id, "more", accept_cost=4.0)
    decisions.approve_proposal(world.context(), CARL, made.id)
    assert world.get(made.id).accepted_cost == made.accepted_cost


def test_without_a_price_tokens_are_guarded_in_the_place_of_money(
    world: SmallInstallation,
) -> None:
    world.policy = watching(POLICY, output_tokens=False)
    price(world, better=None)
    made = world.decided()
    assert world.rollout().policy.guardrails.output_tokens == 1.5
    text = load_comparison(world.context(), made.id).cost.text
    assert text.startswith(
        "The price of sim/better is unknown: `swapproof model price sim/better INPUT OUTPUT` "
        "sets it. Instead of the cost, its canary"
    )
    assert "above 1.5 times as many" in text


def test_nothing_times_a_number_cannot_be_accepted(world: SmallInstallation) -> None:
    price(world, base=Price(0.0, 0.0))
    with pytest.raises(
        InputError,
        match="sim/base costs nothing, and sim/better costs money",
    ):
        world.propose(**accepting(9.0))


def test_a_scheduled_candidate_beyond_the_guardrail_waits_for_an_approver(
    world: SmallInstallation,
) -> None:
    price(world, better=Price(3.2, 6.4))
    with world.store.write() as tx:
        source = Providers(tx).all()["sim"].api_base
        now = world.clock.now()
        listed = [DiscoveredModel("sim", name, source, now) for name in ("better", "good")]
        DiscoveredModels(tx).replace("sim", listed)
    weekly = CandidateSchedule(("sim/*",), "0 3 * * 1", 50.0)
    plan = candidates.plan_round(world.context(), world.route(), weekly)
    assert [one.name for one in plan.measured] == ["sim/good"]
    (waits,) = plan.waiting
    assert waits.name == "sim/better"
    assert "`swapproof proposal accept-cost chat sim/better --up-to 4" in waits.remark


def test_no_agent_accepts_a_cost_over_mcp() -> None:
    assert not {"accept_cost", "because"} & set(ProposalBody.model_fields)
