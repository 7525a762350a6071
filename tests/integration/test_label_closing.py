"""An approver closes a labelling that cannot end, and the next labelling knows the judge."""

import pytest

from harness.frame.errors import Conflict, NotAllowed
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.proposals.labels import label_pairs
from harness.proposals.labels.blindness import find_blind_suites
from harness.proposals.labels.label_closing import CLOSED, close_labelling
from harness.proposals.labels.labelling import LabelChoice
from harness.routing.proposal import ProposalPhase
from tests.integration.test_blindness import answered, win
from tests.integration.test_traffic_verdicts import draw_of, use
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN

pytestmark = pytest.mark.req("F2", "F13")


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    plain_world.script = win
    use(plain_world, draw_of(plain_world))
    return plain_world


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def label_in_turns(world: SmallInstallation, actor: Actor, labelling: str, count: int) -> None:
    """Labels so that neither model wins: A, B, A, B."""
    for number in range(count):
        shown = label_pairs.show_next_pair(world.context(), actor, labelling).pair
        assert shown is not None
        choice = LabelChoice.A if number % 2 else LabelChoice.B
        label_pairs.give_label(world.context(), actor, labelling, shown.number, choice)


def test_an_approver_closes_a_labelling_and_its_proposal_does_not_pass(
    world: SmallInstallation, ada: Actor
) -> None:
    ctx = world.context()
    world.person("eve", Role.PROPOSER)
    proposal = answered(world)
    started = label_pairs.start_labelling(ctx, ada, proposal.id, people=["ada", "eve"])
    label_in_turns(world, ada, started.id, 6)
    with pytest.raises(NotAllowed):
        close_labelling(ctx, ada, started.id, "eve has left")

    closed = close_labelling(ctx, BEN, started.id, "eve has left")

    assert not closed.passed
    assert "ben closed its labelling after 6 labels" in closed.closed
    assert "missing labels count against the candidate: eve has left" in closed.closed
    ended = world.get(proposal.id)
    assert ended.phase is ProposalPhase.CANCELLED
    with world.store.read() as tx:
        assert find_blind_suites(tx, ended) == frozenset()
        (event,) = AuditLog(tx).for_subject(
            started.id, since=started.created_at, limit=2, actions=[CLOSED]
        )
    assert event.details["given"] == {"ada": 6}
    assert event.details["missing"] == closed.missing
    assert event.details["reason"] == "eve has left"
    with pytest.raises(Conflict, match="has ended"):
        close_labelling(ctx, BEN, started.id, "again")


def test_a_labelling_that_decides_nothing_is_not_closed(
    plain_world: SmallInstallation,
) -> None:
    proposal = plain_world.decided()
    ada = plain_world.person("ada", Role.PROPOSER)
    started = label_pairs.start_labelling(plain_world.context(), ada, proposal.id)

    with pytest.raises(Conflict, match="decide nothing"):
        close_labelling(plain_world.context(), BEN, started.id, "no need")
    assert plain_world.get(proposal.id).open


def test_the_next_proposal_gets_a_labelling_of_its_own_and_knows_the_judge(
    world: SmallInstallation, ada: Actor
) -> None:
    ctx = world.context()
    first = label_pairs.start_labelling(ctx, ada, answered(world).id)
    label_in_turns(world, ada, first.id, 32)
    going_on = label_pairs.load_progress(ctx, first.id)
    assert "from 30 labels of this labelling" in going_on.forecast
    close_labelling(ctx, BEN, first.id, "the draw was wrong")
    assert label_pairs.find_labelling(ctx, "chat") == first.id

    second = answered(world, "sim/equal")

    assert label_pairs.find_labelling(ctx, "chat") == ""
    assert label_pairs.find_labelling(ctx, first.id) == first.id
    planned = label_pairs.plan_labelling(ctx, ada, second.id)
    assert f"from 32 labels of labelling {first.id}" in planned.forecast
    assert [one.id for one in label_pairs.list_labellings(ctx)] == [first.id]
