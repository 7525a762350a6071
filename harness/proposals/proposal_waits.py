"""Tells why an open proposal waits, for interfaces and for the driver."""

from collections.abc import Callable
from contextlib import suppress

from harness.evals.users_turn import describe_users_turn, find_users_turn
from harness.frame.errors import SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.offline.served_arms import describe_unconfirmed
from harness.gate.offline.verdicts import read_same_model
from harness.gate.run import describe_waits
from harness.gate.verdict import Verdict
from harness.proposals import evaluation
from harness.proposals.labels import label_verdicts
from harness.proposals.labels.blindness import describe_label_command
from harness.routing.proposal import Proposal, ProposalPhase, ProposalView
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route


def build_view(
    tx: Transaction,
    proposal: Proposal,
    find_route: Callable[[str], Route | None],
) -> ProposalView:
    """Builds the view of a proposal. find_route is called only if the proposal is promoted."""
    waits = describe_proposal_waits(tx, proposal)
    is_labelled = bool(waits) and proposal.retry_at is None
    return ProposalView.from_proposal(
        proposal,
        find_route,
        waits,
        waits_for_labels=is_labelled and label_verdicts.find_wait(tx, proposal) is not None,
    )


def describe_proposal_waits(tx: Transaction, proposal: Proposal) -> str:
    """Describes why a comparison waits: for people's labels, for providers, for users'
    requests, or for an approver. Empty if it does not wait, or if a row is forged.
    """
    if proposal.phase is not ProposalPhase.EVALUATING:
        return ""
    with suppress(SignatureInvalid):
        if proposal.retry_at is None:
            if label_verdicts.find_wait(tx, proposal):
                return f"waits for people's labels: {describe_label_command(proposal)}"
            runs = evaluation.load_runs(tx, proposal).values()
            users = find_users_turn(tx, runs, tx.now())
            return describe_waits(runs, tx.now()) or describe_users_turn(users)
        if (unconfirmed := find_unconfirmed(tx, proposal)) is not None:
            same = read_same_model(unconfirmed.inputs)
            return f"waits for an approver: {describe_unconfirmed(same)}" if same else ""
    return ""


def find_unconfirmed(tx: Transaction, proposal: Proposal) -> Verdict | None:
    """Finds the verdict of a proposal that waits for `decisions.confirm_same_model`."""
    if proposal.same_model is not None or proposal.verdict is None:
        return None
    verdict = Verdicts(tx).get(proposal.verdict)
    return verdict if read_same_model(verdict.inputs) is not None else None
