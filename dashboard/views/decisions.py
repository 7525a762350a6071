"""Lists proposals, and has the dialogs that approve, reject, cancel or retry a proposal.

Compare and Proposals both use it. Who may decide is checked by the use cases; the buttons only
explain it beforehand.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, Opener, dialog
from dashboard.markup import escape, strong
from dashboard.operation_dialogs import operation_opener
from dashboard.views.samples import ComparisonView, load_comparison_view
from harness.evals import proof_validity
from harness.evals.proof_validity import ProofState, ProofValidity
from harness.frame.errors import SignatureInvalid
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.gate.verdict import BaseVerdict, Verdict, VerdictBasis
from harness.gate.verdict_sentences import describe_claim
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import approvals, decisions, evaluation, review
from harness.proposals.candidates import cost_ratio
from harness.proposals.operations import CANCEL_PROPOSAL, RETRY_PROPOSAL
from harness.proposals.report import findings
from harness.proposals.review import ProposalReview
from harness.routing.proposal import Proposal, ProposalPhase, ProposalView
from harness.routing.records.preload import Preload
from harness.routing.reports import monthly_bill

MOST_PROPOSALS: Final = 100


@dataclass(frozen=True)
class ProposalRow:
    """A proposal with what a list shows about it."""

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
    """Lists all open proposals and a page of others, those that await approval first."""
    opened = queries.list_proposals(ctx, PageRequest(MOST_LISTED), open_only=True)
    page = queries.list_proposals(ctx, PageRequest(MOST_PROPOSALS, after))
    found = [*opened, *(proposal for proposal in page if not proposal.open)]
    invalid = [
        *page.invalid,
        *(fault for fault in opened.invalid if fault not in page.invalid),
    ]
    verdicts = ctx.store.lists.verdicts(
        {proposal.verdict for proposal in found if proposal.verdict}
    )
    names = queries.load_target_names(
        ctx, {id_ for p in found for id_ in (p.incumbent, p.candidate)}
    )
    with ctx.store.read() as tx:
        Preload(tx).routes({proposal.route for proposal in opened})
        rows = [
            ProposalRow(
                proposal=proposal,
                incumbent=names.get(proposal.incumbent, proposal.incumbent),
                candidate=names.get(proposal.candidate, proposal.candidate),
                verdict=verdicts.get(proposal.verdict) if proposal.verdict else None,
                cost=proposal.accepted_cost.text if proposal.accepted_cost else "",
            )
            for proposal in found
        ]
        rows = [_with_open(ctx, tx, row) if row.proposal.open else row for row in rows]
    rows.sort(key=lambda row: row.proposal.phase is not ProposalPhase.AWAITING_APPROVAL)
    return Page(rows, page.total, page.next, invalid)


def _with_open(
    ctx: Context,
    tx: Transaction,
    row: ProposalRow,
) -> ProposalRow:
    """Adds an open proposal's facts, without facts that have a bad signature."""
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
            shown = approvals.list_approvals(ctx, proposal.id)
            remarks = [remark for approval in shown for remark in approval.remarks]
    return replace(
        row,
        standing=standing,
        answers=answers,
        cost=cost,
        remarks=remarks,
    )


def awaits_decision(proposal: Proposal) -> bool:
    """Tells whether a person still has to approve or reject the proposal."""
    return proposal.phase is ProposalPhase.AWAITING_APPROVAL and proposal.approver is None


CHANGE_MISSING = "The policy requires a change request: write its reference first."
COST_MISSING = "The candidate's cost would end its canary: accept that cost, and give a reason."
EARLY_PHASES = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)


def openers(
    proposal: Proposal,
    verdict: BaseVerdict | None,
    validity: ProofValidity | None,
    now: datetime,
) -> list[Opener]:
    """Returns the buttons that this proposal allows now, with the obstacles to some of them."""
    actor = current_user.signed_in()
    key = proposal.id
    if awaits_decision(proposal):
        why = why_not_approve(proposal, verdict, validity, actor, now)
        return [
            Opener(
                "Approve",
                ":material/check:",
                lambda: approve(*load(key)),
                f"approve-{key}",
                Role.APPROVER,
                why,
                primary=True,
            ),
            Opener(
                "Reject",
                ":material/close:",
                lambda: reject(*load(key)),
                f"reject-{key}",
                Role.APPROVER,
            ),
        ]
    if proposal.phase not in EARLY_PHASES:
        return []
    own = actor is not None and actor.principal == proposal.proposer_principal
    # Only an approver may cancel another person's proposal.
    role = Role.PROPOSER if own else Role.APPROVER
    shown = []
    if isinstance(proposal, ProposalView) and (proposal.waits or proposal.retry_at):
        retry = operation_opener(RETRY_PROPOSAL, proposal)
        shown.append(replace(retry, key=f"retry-{key}", role=role))
    cancel = operation_opener(CANCEL_PROPOSAL, proposal)
    shown.append(replace(cancel, label="Cancel", key=f"cancel-{key}", role=role))
    return shown


def why_not_approve(
    proposal: Proposal,
    verdict: BaseVerdict | None,
    validity: ProofValidity | None,
    actor: Actor | None,
    now: datetime,
) -> str:
    """Explains why an approver cannot approve the proposal; empty if the visitor can.

    validity: of the verdict; None if it was not assessed.
    """
    if validity is not None and verdict is not None and not validity.holds:
        expired = f"the verdict expired {labels.age(verdict.expires_at, now)}"
        why = validity.why if validity.proof is ProofState.STALE else expired
        return f"STALE: {why}. Propose again to renew it."
    own = actor is not None and proposal.proposer_principal == actor.principal
    if actor is not None and own and not proposal.self_approval:
        return f"{actor.name} proposed this, so another person must approve it."
    return ""


def load(proposal: str) -> tuple[ComparisonView, ProposalReview]:
    """Loads what the dialogs of a proposal show. Raises NotFound."""
    ctx = page_frame.context()
    return load_comparison_view(ctx, proposal), review.review_proposal(ctx, proposal)


@dialog("Approve the canary", Role.APPROVER, "approval", width="medium")
def approve(
    form: Form,
    view: ComparisonView,
    found: ProposalReview,
) -> None:
    """Asks for the approval, with the facts on which a person should decide.

    The approval names the verdict that the person saw. If the cost would end the canary, the
    person has to accept it.
    """
    proposal = view.comparison.proposal
    verdict = view.comparison.verdict
    new = view.comparison.candidate.name
    old = view.comparison.incumbent.name
    share = labels.weight(proposal.policy.canary.steps[0].weight_bps)
    form.say(
        f"Route {strong(proposal.route)}: {strong(share)} of its traffic goes to {strong(new)}"
        f"; the rest stays with {strong(old)}. Its share rises step by step while no harm "
        "shows, and drops to 0 % as soon as harm shows."
    )
    st.html(markup.facts(_facts(view, found)))
    _changes(found)
    change = proposal.change_reference
    if not change:
        needed = CHANGE_MISSING if proposal.needs_change_reference else ""
        label = "Change request" + ("" if needed else " (optional)")
        change = form.text("change", label, need=needed)
    accepted = None
    cost = view.comparison.cost
    if cost.ends_canary:
        accepted = st.number_input(
            "Accept a cost of up to … times",
            1.0,
            cost_ratio.MOST_ACCEPTED,
            None,
            0.5,
            key=form.key("cost"),
        )
        form.need(
            accepted is not None and cost.is_covered_by(accepted),
            COST_MISSING,
        )
    form.submit(
        "Start the canary",
        f"approved {proposal.id}; the canary opens within seconds.",
        decisions.approve_proposal,
        proposal.id,
        form.reason(),
        expected_verdict=verdict.id if verdict else None,
        change_reference=change,
        accept_cost=accepted,
    )


@dialog("Reject the proposal", Role.APPROVER, "rejection", width="medium")
def reject(
    form: Form,
    view: ComparisonView,
    found: ProposalReview,
) -> None:
    proposal = view.comparison.proposal
    form.say(
        f"Route {strong(proposal.route)} stays with {strong(view.comparison.incumbent.name)}; "
        f"{strong(view.comparison.candidate.name)} gets no traffic. "
        f"{escape(proposal.proposer)} will read the reason."
    )
    st.html(markup.facts(_facts(view, found)))
    done = f"rejected {proposal.id}."
    form.submit("Reject", done, decisions.refuse_proposal, proposal.id, form.reason())


def _facts(view: ComparisonView, found: ProposalReview) -> list[tuple[str, str]]:
    """Lists the facts of a decision: verdict, drawbacks, texts, cost, risk and widened
    rules.
    """
    held = view.comparison
    facts: list[tuple[str, str]] = []
    if held.verdict is not None:
        claim = describe_claim(VerdictBasis.from_verdict(held.verdict), view.titles)
        verdict = markup.state(labels.verdict_label(held.verdict))
        facts.append(("Verdict", f"{verdict}: {escape(claim)}"))
    against = [
        f"{strong(drawback.what)}: {escape(drawback.text)}"
        for drawback in findings.list_drawbacks(held, view.titles)
    ]
    facts.append(
        (
            "Against",
            "<br>".join(against) or escape(findings.describe_absence(held)),
        )
    )
    facts += [(label, escape(value)) for _, label, value in held.proposal.texts]
    forecast = monthly_bill.describe_forecast(held.forecast)
    facts.append(("Cost", escape(f"{held.cost.text} {forecast}")))
    facts.append(("Risk", f"This is the {escape(found.risk.text)}."))
    if found.unlisted:
        facts.append(("Listing", escape(found.unlisted)))
    if found.widened:
        facts.append(("Beyond the rules", "<br>".join(map(escape, found.widened))))
    return facts


def _changes(found: ProposalReview) -> None:
    """Shows the route's other changes in the last 90 days, folded."""
    if not found.changes:
        return
    rows = [
        {
            "Changed (UTC)": f"{change.at:%Y-%m-%d %H:%M}",
            "By": escape(change.by),
            "What": change.what,
            "How": escape(change.text),
        }
        for change in found.changes
    ]
    with st.expander(f"{labels.plural(len(rows), 'change')} on this route in 90 days"):
        st.html(markup.table(rows))
