"""A stored verdict is decided again: to the same bytes, or the forgery is named."""

import pytest
import sqlalchemy as sa

from harness.control.evals import recomputation
from harness.control.evals.recomputation import OtherTerms
from harness.domain.errors import InputError, NotFound, SignatureInvalid
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import Failed, Inconclusive, Passed
from tests.support.control.control_plane import SmallInstallation
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5")


@pytest.mark.parametrize("candidate", ["better", "worse", "equal"])
def test_a_verdict_comes_out_the_same_to_the_byte(
    world: SmallInstallation, candidate: str
) -> None:
    proposal = world.until_decided(world.propose(f"sim/{candidate}").id)

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


@pytest.mark.parametrize(
    ("candidate", "terms", "expected"),
    [
        ("better", OtherTerms(), Passed),
        ("better", OtherTerms(alpha=1e-9), Inconclusive),
        ("equal", OtherTerms(claim=Claim.NON_INFERIOR, margin=0.9), Passed),
        ("worse", OtherTerms(claim=Claim.NON_INFERIOR, margin=0.02), Failed),
    ],
)
def test_other_terms_are_answered_from_the_same_samples_and_leave_no_trace(
    world: SmallInstallation, candidate: str, terms: OtherTerms, expected: type
) -> None:
    proposal = world.until_decided(world.propose(f"sim/{candidate}").id)
    ctx = world.context()
    with world.store.read() as tx:
        before = tx.verdicts.list(), tx.audit.tail(1)

    verdict = recomputation.what_if(ctx, proposal.id, terms)

    assert type(verdict) is expected
    with world.store.read() as tx:
        assert (tx.verdicts.list(), tx.audit.tail(1)) == before


def test_registered_terms_give_the_registered_verdict_and_impossible_ones_are_refused(
    world: SmallInstallation,
) -> None:
    ctx, proposal = world.context(), world.until_decided(world.propose("sim/better").id)

    again = recomputation.what_if(ctx, proposal.id, OtherTerms())

    assert again == recomputation.replay_verdict(ctx, proposal.id).stored
    for terms in (OtherTerms(margin=0.0), OtherTerms(alpha=1.0)):
        with pytest.raises(InputError):
            recomputation.what_if(ctx, proposal.id, terms)


def test_a_score_that_was_changed_behind_our_back_is_named(world: SmallInstallation) -> None:
    proposal = world.until_decided(world.propose("sim/worse").id)
    changed = proposal.runs["colours"].candidate
    with owned(world.store) as db:
        forged = "UPDATE sample SET strict = 1.0 - strict WHERE run = :run AND position = 0"
        db.execute(sa.text(forged), {"run": changed})

    with pytest.raises(SignatureInvalid, match=f"row sample {changed}"):
        recomputation.replay_verdict(world.context(), proposal.id)
