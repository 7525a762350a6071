"""Endpoints for proposals: list, preview, create, compare both models, what an approver should
know, approve, reject, cancel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import BodyFactory, CallerParam, endpoint
from harness.api.frame.json_answers import extend, json_answer
from harness.api.frame.request_fields import (
    NO_REASON,
    ApprovalBody,
    OverruleBody,
    ProposalBody,
    ProposalQuery,
    ReasonBody,
)
from harness.control.evals.proof_validity import ProofValidity
from harness.control.evals.run_costs import JudgingCost, Savings
from harness.control.operations import queries
from harness.control.proposals import (
    comparison,
    decisions,
    estimate,
    review,
    selections,
    submission,
)
from harness.control.proposals.comparison import ArmFigures
from harness.control.proposals.decisions import ApprovalView
from harness.control.proposals.format_failures import FormatFailure, find_format_failures
from harness.control.proposals.review import ProposalReview
from harness.control.proposals.selections import SelectionComparison
from harness.control.proposals.submission import ProposalPreview
from harness.control.shadow.stage import ShadowStage
from harness.domain.evals.cost_forecast import CostForecast
from harness.domain.evals.pins import ServedModels
from harness.domain.evals.run import EvalRun
from harness.domain.evals.suite_plan import SuitePin, SuitePlan
from harness.domain.evals.verdict import Verdict
from harness.domain.operations.access import Role
from harness.domain.pagination import Page
from harness.domain.proposals.proposal import Proposal, ProposalView
from harness.domain.routing.target import Target
from harness.gate.planning.claim_advice import ClaimAdvice

router = APIRouter()
AS_STORED = ApprovalBody()


@dataclass(frozen=True, slots=True)
class PlannedProposal(ProposalPreview):
    """What a proposal would measure, cost and need. advice: by suite, which claims may be made
    there, how often each would be shown, and which one is recommended: the first.
    """

    advice: Mapping[str, ClaimAdvice]


@dataclass(frozen=True)
class SuiteComparison:
    """One suite's two runs. Their samples: `/evals/{run}/samples`. pin: what they rest on.
    served: what the providers said that they served.
    """

    plan: SuitePlan
    incumbent_run: EvalRun
    candidate_run: EvalRun
    incumbent_samples: int
    candidate_samples: int
    judging: JudgingCost
    pin: SuitePin
    served: ServedModels


@dataclass(frozen=True)
class ProposalComparison:
    """Compares both models of a proposal. verdict: null while the gate is open. forecast: of
    the route's bill, in US dollars per 30 days. savings: null where the gate did not decide
    early. standing: whether the verdict is proof still. shadow: the one that comes before the
    canary. lost_by_form: of a FORMAT MISMATCH, what broke and what mends it. faults: why
    answers of a model may be no evidence, whatever the gate makes of them.
    """

    proposal: ProposalView
    incumbent: Target
    candidate: Target
    verdict: Verdict | None
    suites: Sequence[SuiteComparison]
    incumbent_figures: ArmFigures
    candidate_figures: ArmFigures
    forecast: CostForecast
    savings: Savings | None
    standing: ProofValidity | None
    lost_by_form: Sequence[FormatFailure]
    faults: Sequence[str]
    shadow: ShadowStage | None


@endpoint(router, "GET", "/proposals")
def list_proposals(
    who: CallerParam, piece: Annotated[ProposalQuery, Query()]
) -> Page[ProposalView]:
    """Lists the proposals, newest first: all, or with `open=true` those that go on, with
    `decided=true` those that the gate has decided on. `serves` of a promoted one: whether its
    candidate serves the route now.
    """
    return queries.list_proposals(
        who.ctx,
        piece.page,
        route=piece.route,
        open_only=piece.open,
        decided_only=piece.decided,
    )


@endpoint(router, "POST", "/proposals", status=201)
def create_proposal(who: BodyFactory, body: ProposalBody) -> Proposal:
    """Register suites, claim, margin and alpha before the first score. 409 on a busy route.

    With `rivals` each candidate gets a proposal; `/proposals/{proposal}/selection` has all.
    """
    return submission.create_proposal(who.ctx, who.actor, body.to_request())


@endpoint(router, "GET", "/proposals/{proposal}")
def get_proposal(who: CallerParam, proposal: str) -> ProposalView:
    """Answers a proposal; `serves` of a promoted one: whether its candidate serves now."""
    return queries.find_proposal(who.ctx, proposal)


@endpoint(router, "GET", "/proposals/{proposal}/comparison")
def compare_proposal(who: CallerParam, proposal: str) -> ProposalComparison:
    found = comparison.load_comparison(who.ctx, proposal, most_texts=comparison.MOST_TEXTS)
    suites = [
        extend(
            SuiteComparison,
            side,
            incumbent_samples=len(side.figures.incumbent),
            candidate_samples=len(side.figures.candidate),
        )
        for side in found.suites
    ]
    lost = find_format_failures(found)
    return extend(ProposalComparison, found, suites=suites, lost_by_form=lost)


@endpoint(router, "GET", "/proposals/{proposal}/selection")
def compare_selection(who: CallerParam, proposal: str) -> SelectionComparison:
    """Compares all candidates that were proposed together with this one, and itself."""
    return selections.load_selection(who.ctx, proposal)


@endpoint(router, "GET", "/proposals/{proposal}/review")
def review_proposal(who: CallerParam, proposal: str) -> ProposalReview:
    """What an approver should know: what needs an approval, the route's risk, what changed."""
    return review.review_proposal(who.ctx, proposal)


@endpoint(router, "POST", "/proposals/preview")
def preview_proposal(who: CallerParam, body: ProposalBody) -> PlannedProposal:
    """What a proposal would register: its looks and alphas, what needs an approval, the risk;
    and which claim its suites can show.

    Stores nothing.
    """
    who.actor.require(Role.PROPOSER)
    request = body.to_request()
    preview = submission.preview_proposal(who.ctx, request, who.actor)
    planning = estimate.estimate_proposal(who.ctx, request)
    advice = {suite.plan.suite: suite.advice for suite in planning}
    return extend(PlannedProposal, preview, advice=advice)


@endpoint(router, "POST", "/proposals/{proposal}/approve")
def approve_proposal(
    who: CallerParam, proposal: str, body: ApprovalBody = AS_STORED
) -> Proposal:
    """Approves a proposal; its proposer may not. 409 when `verdict` is not the stored one."""
    return decisions.approve_proposal(
        who.ctx,
        who.actor,
        proposal,
        body.reason,
        expected_verdict=body.verdict,
        change_reference=body.change_reference or "",
    )


@endpoint(router, "GET", "/proposals/{proposal}/approvals")
def list_approvals(who: CallerParam, proposal: str) -> Page[ApprovalView]:
    """Lists who approved a proposal, oldest first, and what is to be known of their keys."""
    return json_answer(decisions.list_approvals(who.ctx, proposal))


@endpoint(router, "POST", "/proposals/{proposal}/reject")
def reject_proposal(who: CallerParam, proposal: str, body: OverruleBody) -> Proposal:
    """Needs a reason; the proposer will read it."""
    return decisions.refuse_proposal(who.ctx, who.actor, proposal, body.reason)


@endpoint(router, "POST", "/proposals/{proposal}/cancel")
def cancel_proposal(who: CallerParam, proposal: str, body: ReasonBody = NO_REASON) -> Proposal:
    """Take an open proposal back before its canary."""
    return decisions.cancel_proposal(who.ctx, who.actor, proposal, body.reason)
