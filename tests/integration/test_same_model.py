"""Two models were asked and one answered: NOT MEASURED until an approver confirms it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.proof import check_proof, export_proof
from harness.app.store.proof_rows import build_proven
from harness.frame.errors import (
    Conflict,
    IllegalTransition,
    InputError,
    NotAllowed,
)
from harness.frame.signing.audit_log import AuditLog
from harness.gate.pins import ServedModel
from harness.gate.verdict import InfraError
from harness.proposals import decisions, recomputation
from harness.proposals.report.comparison import load_comparison
from harness.proposals.report.content import list_pins
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.verdicts import Verdicts
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.site.signing_keys import KEYRING

pytestmark = pytest.mark.req("F3", "F6")


@pytest.fixture
def one_model(world: SmallInstallation) -> SmallInstallation:
    world.served = lambda _target, _item: ServedModel("base-2026")
    return world


def verdict_of(world: SmallInstallation, proposal: Proposal) -> object:
    with world.store.read() as tx:
        return Verdicts(tx).get(proposal.verdict or "")


def test_a_proposal_waits_while_one_model_serves_both_arms(
    one_model: SmallInstallation,
) -> None:
    made = one_model.decided()

    found = verdict_of(one_model, made)
    assert isinstance(found, InfraError)
    assert "base and better were asked, but both were served by base-2026" in found.reason
    assert made.phase is ProposalPhase.EVALUATING

    one_model.clock.advance(3600)
    one_model.run_once(turns=3)
    assert one_model.get(made.id).verdict == made.verdict, "no further attempt is made"

    one_model.clock.advance(timedelta(days=1).total_seconds())
    one_model.run_once(turns=2)
    ended = one_model.get(made.id)
    assert ended.phase is ProposalPhase.REJECTED
    assert "no approver confirmed it in time" in ended.closed_because


def test_an_approver_confirms_the_same_model_and_the_stored_scores_decide(
    one_model: SmallInstallation,
) -> None:
    made = one_model.decided()
    ctx = one_model.context()
    runs = made.runs

    with pytest.raises(NotAllowed):
        decisions.confirm_same_model(ctx, ANN, made.id, "a new key")
    with pytest.raises(InputError):
        decisions.confirm_same_model(ctx, BEN, made.id, " ")
    confirmed = decisions.confirm_same_model(ctx, BEN, made.id, "a new key")
    assert confirmed.same_model is not None
    assert confirmed.same_model.text.endswith("may be served by the same: a new key")
    with pytest.raises(Conflict):
        decisions.confirm_same_model(ctx, BEN, made.id, "again")

    one_model.run_once(turns=3)
    decided = one_model.get(made.id)
    assert decided.phase is ProposalPhase.CANARY
    assert decided.runs == runs, "no question is asked again"
    with pytest.raises(IllegalTransition):
        decisions.confirm_same_model(ctx, BEN, made.id, "late")
    with one_model.store.read() as tx:
        event = AuditLog(tx).for_subject(
            f"proposal {made.id}",
            since=made.created_at,
            limit=10,
            actions=["proposal.confirm_same_model"],
        )
    assert [one.details["reason"] for one in event] == ["a new key"]


def test_the_confirmation_is_part_of_the_proof_and_of_its_recomputation(
    one_model: SmallInstallation,
) -> None:
    made = one_model.decided()
    ctx = one_model.context()
    decisions.confirm_same_model(ctx, BEN, made.id, "a new key")
    one_model.run_once(turns=3)
    decided = one_model.get(made.id)

    with one_model.store.read() as tx:
        proof = Verdicts(tx).get(decided.verdict or "")
        assert recomputation.recompute_stored(ctx, tx, proof, decided).agrees
    replayed = recomputation.replay_verdict(ctx, decided.id)
    assert replayed.agrees
    assert replayed.stored_sha256 == replayed.again_sha256

    compared = load_comparison(ctx, decided.id)
    assert dict(list_pins(compared.suites[0]))["candidate served"] == "base-2026"
    exported = export_proof(ctx, decided.id)
    findings = check_proof(build_proven(exported, KEYRING))
    assert findings.holds
    assert any("may be served by the same: a new key" in line for line in findings.shown)


def test_a_verdict_that_claims_a_confirmation_without_one_differs(
    one_model: SmallInstallation,
) -> None:
    made = one_model.decided()
    ctx = one_model.context()
    decisions.confirm_same_model(ctx, BEN, made.id, "a new key")
    one_model.run_once(turns=3)
    decided = one_model.get(made.id)
    with one_model.store.read() as tx:
        proof = Verdicts(tx).get(decided.verdict or "")
        unconfirmed = replace(decided, same_model=None)
        found = recomputation.recompute_stored(ctx, tx, proof, unconfirmed)
    assert "no approver confirmed" in found.text
