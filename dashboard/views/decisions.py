"""The buttons and dialogs that approve, reject, cancel or retry a proposal.

Compare and Proposals both use it. The use cases check a person's right to decide; the buttons
only explain it beforehand.
"""

from dataclasses import replace
from datetime import datetime

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, Opener, dialog
from dashboard.markup import escape, rich, strong
from dashboard.operation_dialogs import operation_opener
from dashboard.views.samples import ComparisonView, load_comparison_view
from harness.evals.proof_validity import ProofState, ProofValidity
from harness.frame.people.access import Actor, Role
from harness.gate.verdict import BaseVerdict, VerdictBasis
from harness.gate.verdict_sentences import describe_claim
from harness.proposals import decisions, review
from harness.proposals.candidates import cost_ratio
from harness.proposals.operations import CANCEL_PROPOSAL, RETRY_PROPOSAL
from harness.proposals.report import findings
from harness.proposals.review import ProposalReview
from harness.routing.proposal import Proposal, ProposalPhase, ProposalView
from harness.routing.reports import monthly_bill


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
    """Returns the buttons for a proposal's present phase, some with an obstacle."""
    actor = current_user.signed_in()
    key = proposal.id
    if awaits_decision(proposal):
        obstacle = why_not_approve(proposal, verdict, validity, actor, now)
        return [
            Opener(
                "Approve",
                ":material/check:",
                lambda: approve(*load(key)),
                f"approve-{key}",
                Role.APPROVER,
                obstacle,
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
    is_own = actor is not None and actor.principal == proposal.proposer_principal
    # Only an approver may cancel another person's proposal.
    role = Role.PROPOSER if is_own else Role.APPROVER
    buttons = []
    if isinstance(proposal, ProposalView) and _waits_for_provider(proposal):
        retry = operation_opener(RETRY_PROPOSAL, proposal)
        buttons.append(replace(retry, key=f"retry-{key}", role=role))
    cancel = operation_opener(CANCEL_PROPOSAL, proposal)
    buttons.append(replace(cancel, label="Cancel", key=f"cancel-{key}", role=role))
    return buttons


def _waits_for_provider(proposal: ProposalView) -> bool:
    return bool(proposal.waits or proposal.retry_at) and not proposal.waits_for_labels


def why_not_approve(
    proposal: Proposal,
    verdict: BaseVerdict | None,
    validity: ProofValidity | None,
    actor: Actor | None,
    now: datetime,
) -> str:
    """Explains why the visitor cannot approve the proposal, apart from the role; empty if the
    visitor can.

    Args:
        validity: of the verdict; None if it was not assessed.
    """
    if validity is not None and verdict is not None and not validity.holds:
        expired = f"the verdict expired {labels.age(verdict.expires_at, now)}"
        reason = validity.why if validity.proof is ProofState.STALE else expired
        return f"STALE: {reason}. Propose again to renew it."
    is_own = actor is not None and proposal.proposer_principal == actor.principal
    if actor is not None and is_own and not proposal.self_approval:
        return f"{actor.name} proposed this, so another person must approve it."
    return ""


def load(proposal: str) -> tuple[ComparisonView, ProposalReview]:
    """Loads the data of a proposal's dialogs. Raises NotFound."""
    ctx = page_frame.context()
    return load_comparison_view(ctx, proposal), review.review_proposal(ctx, proposal)


@dialog("Approve the canary", Role.APPROVER, "approval", width="medium")
def approve(
    form: Form,
    view: ComparisonView,
    proposal_review: ProposalReview,
) -> None:
    """Asks for the approval, and shows the facts for the decision.

    The approval names the verdict that the person saw. If the cost would end the canary, the
    person has to accept the cost.
    """
    proposal = view.comparison.proposal
    verdict = view.comparison.verdict
    candidate = view.comparison.candidate.name
    incumbent = view.comparison.incumbent.name
    share = labels.weight(proposal.policy.canary.steps[0].weight_bps)
    form.say(
        f"Route {strong(proposal.route)}: {strong(share)} of its traffic goes to "
        f"{strong(candidate)}; the rest stays with {strong(incumbent)}. Its share rises step "
        "by step while no harm shows, and drops to 0 % as soon as harm shows."
    )
    st.html(markup.facts(_list_facts(view, proposal_review)))
    _show_changes(proposal_review)
    change_request = proposal.change_reference
    if not change_request:
        need = CHANGE_MISSING if proposal.needs_change_reference else ""
        label = "Change request" + ("" if need else " (optional)")
        change_request = form.text("change", label, need=need)
    accepted_cost = None
    cost = view.comparison.cost
    if cost.ends_canary:
        accepted_cost = st.number_input(
            "Accept a cost of up to … times",
            1.0,
            cost_ratio.MOST_ACCEPTED,
            None,
            0.5,
            key=form.key("cost"),
        )
        form.need(
            accepted_cost is not None and cost.is_covered_by(accepted_cost),
            COST_MISSING,
        )
    form.submit(
        "Start the canary",
        f"approved {proposal.id}; the canary opens within seconds.",
        decisions.approve_proposal,
        proposal.id,
        form.reason(),
        expected_verdict=verdict.id if verdict else None,
        change_reference=change_request,
        accept_cost=accepted_cost,
    )


@dialog("Reject the proposal", Role.APPROVER, "rejection", width="medium")
def reject(
    form: Form,
    view: ComparisonView,
    proposal_review: ProposalReview,
) -> None:
    proposal = view.comparison.proposal
    form.say(
        f"Route {strong(proposal.route)} stays with {strong(view.comparison.incumbent.name)}; "
        f"{strong(view.comparison.candidate.name)} gets no traffic. "
        f"{escape(proposal.proposer)} will read the reason."
    )
    st.html(markup.facts(_list_facts(view, proposal_review)))
    done_text = f"rejected {proposal.id}."
    form.submit("Reject", done_text, decisions.refuse_proposal, proposal.id, form.reason())


def _list_facts(view: ComparisonView, proposal_review: ProposalReview) -> list[tuple[str, str]]:
    """Lists the facts of a decision: verdict, drawbacks, texts, cost, risk and widened
    rules.
    """
    comparison = view.comparison
    facts: list[tuple[str, str]] = []
    if comparison.verdict is not None:
        claim = describe_claim(VerdictBasis.from_verdict(comparison.verdict), view.titles)
        verdict = markup.state(labels.verdict_label(comparison.verdict))
        facts.append(("Verdict", f"{verdict}: {escape(claim)}"))
    drawbacks = [
        f"{strong(drawback.what)}: {escape(drawback.text)}"
        for drawback in findings.list_drawbacks(comparison, view.titles)
    ]
    facts.append(
        (
            "Against",
            "<br>".join(drawbacks) or escape(findings.describe_absence(comparison)),
        )
    )
    facts += [(label, escape(value)) for _, label, value in comparison.proposal.texts]
    forecast = monthly_bill.describe_forecast(comparison.forecast)
    facts.append(("Cost", escape(f"{comparison.cost.text} {forecast}")))
    facts.append(("Risk", f"This is the {escape(proposal_review.risk.text)}."))
    if proposal_review.unlisted:
        facts.append(("Listing", escape(proposal_review.unlisted)))
    if proposal_review.never_measured:
        facts.append(("Without a comparison", escape(proposal_review.never_measured)))
    if proposal_review.widened:
        facts.append(("Beyond the rules", "<br>".join(map(escape, proposal_review.widened))))
    return facts


def _show_changes(proposal_review: ProposalReview) -> None:
    """Shows the route's other changes in the last 90 days, in a folded part."""
    if not proposal_review.changes:
        return
    rows = [
        {
            "Changed": rich(labels.date_time(change.at)),
            "By": escape(change.by),
            "What": change.what,
            "How": escape(change.text),
        }
        for change in proposal_review.changes
    ]
    with st.expander(f"{labels.plural(len(rows), 'change')} on this route in 90 days"):
        st.html(markup.table(rows))
