from dataclasses import replace

import pytest

from harness.frame.errors import Conflict, InputError
from harness.frame.signing.audit_log import AuditLog
from harness.gate.policy import ChangeReferenceRule, Policy
from harness.interfaces.api.proposals import ProposalBody
from harness.interfaces.cli.proposals.submission import create_proposal
from harness.proposals import decisions
from harness.proposals.report.answer_examples import describe_report
from harness.proposals.report.content import gather_report
from harness.proposals.report.markdown import render_markdown
from harness.routing.proposal import PROPOSAL_TEXTS, Proposal, ProposalPhase
from harness.routing.records import proposals
from harness.routing.records.proposals import Approvals
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import POLICY, approved
from tests.support.store.raw_rows import (
    APPROVAL,
    MIDDLE,
    PROPOSAL,
    REFUSED,
    prepared,
    proven,
)
from tests.support.store.raw_rows import POLICY as RAW_POLICY

pytestmark = pytest.mark.req("G2", "F5")


def asking(policy: Policy) -> Policy:
    return replace(policy, change_reference=ChangeReferenceRule.REQUIRED)


def events(world: SmallInstallation, proposal: Proposal) -> dict[str, object]:
    with world.store.read() as tx:
        found = AuditLog(tx).for_subject(
            f"proposal {proposal.id}", since=proposal.created_at, limit=50
        )
    return {event.action: event.details.get("change") for event in found}


def test_each_text_of_a_proposal_is_a_column_an_option_and_a_field() -> None:
    options = {option.name for option in create_proposal.params}
    names = set(PROPOSAL_TEXTS)
    assert names <= {*proposals.PROPOSAL.table.c.keys()} & options & {
        *ProposalBody.model_fields
    }


def test_where_nobody_approves_the_proposer_names_the_change_request(
    world: SmallInstallation,
) -> None:
    world.policy = asking(POLICY)
    with pytest.raises(InputError, match="requires a change request, and this proposal"):
        world.propose()
    for nonsense in ("two words", "CHG1\n", "-CHG1", "C" * 65):
        with pytest.raises(InputError, match="not a reference of a change request"):
            world.propose(change_reference=f"{nonsense}!")

    made = world.decided(change_reference=" CHG0012345 ")
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.CANARY
    assert world.get(made.id).change_reference == "CHG0012345"
    assert events(world, made)["proposal.create"] == "CHG0012345"


def test_an_approver_names_the_change_request_that_the_proposer_did_not(
    world: SmallInstallation,
) -> None:
    world.policy = asking(approved())
    made = world.decided()
    ctx = world.context()
    with pytest.raises(InputError, match="approve … --change CHG0012345"):
        decisions.approve_proposal(ctx, BEN, made.id, "fine")
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.AWAITING_APPROVAL

    decisions.approve_proposal(ctx, BEN, made.id, "fine", change_reference="CHG7")
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.CANARY
    with world.store.read() as tx:
        (approval,) = Approvals(tx).for_proposal(made.id)
    assert approval.change_reference == "CHG7"
    assert events(world, made)["proposal.approve"] == "CHG7"
    text = render_markdown(describe_report(gather_report(ctx, made.id)))
    assert "**Change request:** `CHG7`" in text


def test_a_swap_is_approved_under_the_change_request_that_it_was_proposed_under(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    made = world.decided(change_reference="CHG1")
    with pytest.raises(Conflict, match="proposed under change CHG1, not CHG2"):
        decisions.approve_proposal(world.context(), BEN, made.id, change_reference="CHG2")
    decisions.approve_proposal(world.context(), BEN, made.id)
    with world.store.read() as tx:
        (approval,) = Approvals(tx).for_proposal(made.id)
    assert approval.change_reference == "CHG1"


@pytest.mark.both_databases
def test_the_database_takes_no_approval_and_no_evidence_without_the_change_request(
    database_url: str,
) -> None:
    policy = RAW_POLICY.replace("{", '{"change_reference":"required",', 1)
    on_b = {
        "id": "p_b",
        "route": "b",
        "policy": policy,
        "phase": "awaiting_approval",
    }
    verdict = {
        "id": "v_b",
        "proposal": "p_b",
        "outcome": "passed",
        "route": "b",
    }
    targets = {"incumbent": "t_old", "candidate": "t_new"}
    approval = APPROVAL | {
        "id": "a_b",
        "proposal": "p_b",
        "verdict": "v_b",
    }
    with prepared(database_url) as db:
        db.insert("proposal", PROPOSAL | on_b)
        db.insert("verdict", MIDDLE | targets | verdict)
        with pytest.raises(REFUSED, match="change_missing"):
            db.insert("approval", approval)
        with pytest.raises(REFUSED, match="change_differs"):
            db.insert("approval", approval | {"change_reference": "CHG9"})
        with pytest.raises(REFUSED, match="change_missing"):
            db.insert("evidence", proven("e_b2", "b", "t_new", "v_b"))

        rename = "UPDATE proposal SET version = version + 1, change_reference = 'CHG{}'"
        of_b = "WHERE id = 'p_b'"
        db.run(f"{rename.format(1)}, approver = 'ben' {of_b}")
        with pytest.raises(REFUSED, match="registered"):
            db.run(f"{rename.format(2)} {of_b}")
        with pytest.raises(REFUSED, match="change_missing"):
            db.insert("approval", approval)
        db.insert("approval", approval | {"change_reference": "CHG1"})
        db.insert("evidence", proven("e_b2", "b", "t_new", "v_b"))
