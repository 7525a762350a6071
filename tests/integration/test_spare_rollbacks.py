"""A model that was rolled back from a route is no proven spare until a newer verdict."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.canary import operations
from harness.frame.errors import ProofRefused
from harness.gate.online.rollout import RolloutSignal
from harness.proposals import fallback_chain
from harness.proposals.candidates import spares
from harness.proposals.fallback_chain import FallbackRequest
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.route_settings import FailoverOrder
from harness.routing.spare import SpareProof
from tests.integration.test_spares import ADA, add_fallbacks, set_failover, shown, tried
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import CANARY, POLICY

pytestmark = pytest.mark.req("F12", "H6")
BETTER = Target.from_name("sim/better").id


def judge(world: SmallInstallation) -> SpareProof:
    with world.store.read() as tx:
        return spares.judge_target(world.context(), tx, world.route(), BETTER)


def publish(world: SmallInstallation) -> None:
    spares.run_once(world.context())


def promote(world: SmallInstallation, name: str = "sim/better", *, bake_s: float) -> None:
    world.policy = replace(POLICY, canary=replace(CANARY, bake_s=bake_s))
    proposal = world.propose(name)
    world.until_decided(proposal.id)
    operations.operate(world.context(), BEN, "chat", RolloutSignal.PROMOTE, reason="a demo")
    assert world.get(proposal.id).phase is ProposalPhase.PROMOTED
    assert world.rollout().baking is bool(bake_s)


def roll_back(world: SmallInstallation, to_version: int | None = None) -> None:
    operations.roll_back(
        world.context(), BEN, "chat", to_version=to_version, reason="too chatty"
    )


def harm_the_canary(world: SmallInstallation) -> None:
    world.in_canary()
    world.feed(failing=True, blocks=20)
    world.run_once()


def abort_the_canary(world: SmallInstallation) -> None:
    world.in_canary()
    publish(world)
    assert judge(world).proven  # a canary without harm withdraws nothing
    assert tried(world)[0] == "better"
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, reason="too chatty")


def harm_the_bake(world: SmallInstallation) -> None:
    promote(world, bake_s=3600.0)
    world.feed(failing=True, blocks=20)
    world.run_once()


def roll_back_the_bake(world: SmallInstallation) -> None:
    promote(world, bake_s=3600.0)
    roll_back(world)


def roll_back_after_the_bake(world: SmallInstallation) -> None:
    promote(world, bake_s=0.0)
    roll_back(world)


KINDS = [
    (harm_the_canary, "was rolled back: "),
    (abort_the_canary, "was aborted by ben: too chatty"),
    (harm_the_bake, "was rolled back: "),
    (roll_back_the_bake, "had its promotion rolled back by ben: too chatty"),
    (roll_back_after_the_bake, "had its promotion rolled back by ben: too chatty"),
]


@pytest.mark.both_databases
@pytest.mark.parametrize(("take_back", "words"), KINDS)
def test_each_kind_of_rollback_withdraws_the_proof_until_a_newer_verdict(
    world: SmallInstallation, take_back: Callable[[SmallInstallation], None], words: str
) -> None:
    before = world.route().incumbent
    add_fallbacks(world, "sim/equal", "sim/better")
    set_failover(world, FailoverOrder.PROVEN_FIRST)

    take_back(world)

    assert world.route().incumbent == before
    assert not world.route().settings.proven  # before the next turn of the job
    proof = judge(world)
    assert not proven_now(world)
    assert f"it {words}" in proof.why
    publish(world)
    assert tried(world)[0] == "equal"
    world.clock.advance(60)
    world.policy = POLICY
    again = world.propose()
    world.until_decided(again.id)
    assert judge(world).proven
    assert judge(world).verdict != proof.verdict


def proven_now(world: SmallInstallation) -> bool:
    spare = shown(world).get("sim/better")
    return spare is not None and spare.proven


@pytest.mark.both_databases
def test_a_model_rolled_back_after_its_bake_enters_no_chain_and_a_person_may_take_it_back(
    world: SmallInstallation,
) -> None:
    promote(world, bake_s=0.0)
    promoted = world.route().version
    roll_back(world)

    with pytest.raises(ProofRefused, match="sim/better has no evidence on route 'chat'"):
        fallback_chain.add_fallback(
            world.context(), ADA, "chat", FallbackRequest("sim/better"), reason="is it proven?"
        )
    roll_back(world, to_version=promoted)
    assert world.serving() == "better"


def test_a_model_that_a_better_one_replaced_keeps_its_proof(world: SmallInstallation) -> None:
    """The former model of a route was not rolled back, so it may return and take over."""
    promote(world, "sim/good", bake_s=0.0)
    good = world.route()
    world.clock.advance(60)
    promote(world, "sim/better", bake_s=0.0)
    with world.store.read() as tx:
        assert routes.find_rollback(tx, "chat", good.incumbent) is None

    roll_back(world)

    assert world.route().incumbent == good.incumbent
