import pytest
import sqlalchemy as sa

from harness.control.evals import recomputation
from harness.domain.errors import NotFound, SignatureInvalid
from tests.support.control.control_plane import SmallInstallation
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5")


@pytest.mark.parametrize("candidate", ["better", "worse", "equal"])
def test_a_verdict_comes_out_the_same_to_the_byte(
    world: SmallInstallation, candidate: str
) -> None:
    proposal = world.decided(f"sim/{candidate}")

    verdict = recomputation.replay_verdict(world.context(), proposal.id)

    assert verdict.agrees, verdict.differences
    assert verdict.stored_sha256 == verdict.again_sha256
    assert verdict.stored.id == proposal.verdict
    assert recomputation.replay_verdict(world.context(), verdict.stored.id) == verdict
    assert verdict.items["colours"] > 0


def test_an_open_proposal_has_nothing_to_replay(world: SmallInstallation) -> None:
    proposal = world.propose()

    with pytest.raises(NotFound, match="has no verdict yet"):
        recomputation.replay_verdict(world.context(), proposal.id)
    with pytest.raises(NotFound):
        recomputation.replay_verdict(world.context(), "v_nobody")


def test_a_score_that_was_changed_behind_our_back_is_named(world: SmallInstallation) -> None:
    proposal = world.decided("sim/worse")
    changed = proposal.runs["colours"].candidate
    with owned(world.store) as db:
        forged = "UPDATE sample SET strict = 1.0 - strict WHERE run = :run AND position = 0"
        db.execute(sa.text(forged), {"run": changed})

    with pytest.raises(SignatureInvalid, match=f"row sample {changed}"):
        recomputation.replay_verdict(world.context(), proposal.id)
