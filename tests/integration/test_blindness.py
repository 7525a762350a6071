"""The evidence of a judge is hidden from everybody until people have labelled."""

from dataclasses import replace

import pytest

from harness.frame.people.access import Actor, Role
from harness.gate.policy import TrafficProof
from harness.proposals.labels import label_pairs
from harness.proposals.labels.blindness import find_blind_suites, load_blindness
from harness.routing.proposal import Proposal
from tests.integration.test_labelling import label_all
from tests.integration.test_traffic_verdicts import draw_of, use, wins
from tests.support.control.control_plane import POLICY, SmallInstallation

pytestmark = pytest.mark.req("F2", "F13")


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    world = plain_world
    world.script = wins
    use(world, draw_of(world))
    return world


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def blind_suites(world: SmallInstallation, proposal: Proposal) -> frozenset[str]:
    with world.store.read() as tx:
        return find_blind_suites(tx, world.get(proposal.id))


def test_a_judged_suite_is_hidden_until_the_labels_end(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = world.until_decided(world.propose("sim/good").id)
    assert blind_suites(world, proposal) == {"traffic"}
    with world.store.read() as tx:
        hidden = load_blindness(tx)
    for target in (proposal.incumbent, proposal.candidate):
        assert "hidden until people have labelled: `swapgate label chat`" in hidden.why(
            target, "traffic"
        )
        assert hidden.why(target, "traffic[team = billing]")
        assert hidden.why(target, "colours") == ""

    started = label_pairs.start_labelling(world.context(), ada, proposal.id)
    assert blind_suites(world, proposal) == {"traffic"}

    assert label_all(world, ada, started.id, "candidate").ended
    assert blind_suites(world, proposal) == frozenset()
    with world.store.read() as tx:
        assert load_blindness(tx).why(proposal.candidate, "traffic") == ""


def test_a_policy_that_asks_the_judge_alone_hides_nothing(world: SmallInstallation) -> None:
    world.policy = replace(POLICY, proof=TrafficProof.JUDGE)

    assert blind_suites(world, world.propose("sim/good")) == frozenset()


def test_a_proposal_without_a_judge_hides_nothing(plain_world: SmallInstallation) -> None:
    assert blind_suites(plain_world, plain_world.propose()) == frozenset()
