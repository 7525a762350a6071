"""Reads the proposals with the facts that a list of them shows: names, verdict, cost, and the
progress of open proposals.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from harness.evals import proof_validity
from harness.evals.proof_validity import ProofValidity
from harness.frame.errors import SignatureInvalid
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.records.transaction import Transaction
from harness.gate.verdict import Verdict
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import approvals, evaluation
from harness.proposals.candidates import cost_ratio
from harness.proposals.labels.blindness import hide_evidence
from harness.routing.proposal import ProposalPhase, ProposalView
from harness.routing.records.preload import Preload

MOST_PROPOSALS: Final = 100


@dataclass(frozen=True)
class ProposalRow:
    """A proposal with the facts that a list shows."""

    proposal: ProposalView
    incumbent: str
    candidate: str
    verdict: Verdict | None
    standing: ProofValidity | None = None  # the verdict's, while the proposal awaits approval
    remarks: Sequence[str] = ()  # about the keys of an approval
    # During the evaluation: the number of stored answers, and its maximum.
    answers: tuple[int, int] | None = None
    cost: str = ""  # an open proposal's cost ratio; a closed proposal's accepted cost


def list_rows(ctx: Context, after: str | None = None) -> Page[ProposalRow]:
    """Lists all open proposals and a page of others. Proposals awaiting approval come first."""
    open_page = queries.list_proposals(ctx, PageRequest(MOST_LISTED), open_only=True)
    page = queries.list_proposals(ctx, PageRequest(MOST_PROPOSALS, after))
    proposals = [*open_page, *(proposal for proposal in page if not proposal.open)]
    invalid = [
        *page.invalid,
        *(fault for fault in open_page.invalid if fault not in page.invalid),
    ]
    verdicts = ctx.store.lists.verdicts(
        {proposal.verdict for proposal in proposals if proposal.verdict}
    )
    names = queries.load_target_names(
        ctx,
        {
            target
            for proposal in proposals
            for target in (proposal.incumbent, proposal.candidate)
        },
    )
    with ctx.store.read() as tx:
        Preload(tx).routes({proposal.route for proposal in open_page})
        shown_verdicts = {
            proposal.id: hide_evidence(tx, proposal)[0].verdict for proposal in proposals
        }
        rows = [
            ProposalRow(
                proposal=proposal,
                incumbent=names.get(proposal.incumbent, proposal.incumbent),
                candidate=names.get(proposal.candidate, proposal.candidate),
                verdict=verdicts.get(shown_verdicts[proposal.id] or ""),
                cost=proposal.accepted_cost.text if proposal.accepted_cost else "",
            )
            for proposal in proposals
        ]
        rows = [_add_open_facts(ctx, tx, row) if row.proposal.open else row for row in rows]
    rows.sort(key=lambda row: row.proposal.phase is not ProposalPhase.AWAITING_APPROVAL)
    return Page(rows, page.total, page.next, invalid)


def _add_open_facts(
    ctx: Context,
    tx: Transaction,
    row: ProposalRow,
) -> ProposalRow:
    """Adds an open proposal's facts, but omits facts with an invalid signature."""
    proposal = row.proposal
    standing = None
    answers = None
    cost = ""
    remarks: Sequence[str] = ()
    if row.verdict is not None and proposal.phase is ProposalPhase.AWAITING_APPROVAL:
        with suppress(SignatureInvalid):
            standing = proof_validity.assess_proof(ctx, tx, row.verdict)
    if proposal.phase is ProposalPhase.EVALUATING and proposal.runs:
        with suppress(SignatureInvalid):
            answers = evaluation.count_answers(tx, proposal)
    with suppress(SignatureInvalid):
        cost = cost_ratio.load_ratio(ctx, tx, proposal).text
    if proposal.approver is not None:
        with suppress(SignatureInvalid):
            listed = approvals.list_approvals(ctx, proposal.id)
            remarks = [remark for approval in listed for remark in approval.remarks]
    return replace(
        row,
        standing=standing,
        answers=answers,
        cost=cost,
        remarks=remarks,
    )
