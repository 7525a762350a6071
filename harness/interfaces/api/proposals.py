"""Endpoints for proposals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, create_model

from harness.evals.proof_validity import ProofValidity
from harness.evals.spending import JudgingCost
from harness.frame.configuration.setting import SHARE_RANGE
from harness.frame.idempotency import NoteCreated
from harness.frame.people.access import Role
from harness.gate.claim_advice import ClaimAdvice
from harness.gate.pins import ServedModels
from harness.gate.run import EvalRun
from harness.gate.suite_plan import MOST_SLICES, Claim, SuitePin, SuitePlan
from harness.gate.verdict import Verdict
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Name,
    PageQuery,
    SpenderParam,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.error_status import extend
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.operations import queries
from harness.proposals import approvals, decisions, review, submission
from harness.proposals.candidates import estimate
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.context import dry_run_context
from harness.proposals.labels.label_operations import LABELS
from harness.proposals.operations import PROPOSALS
from harness.proposals.report import comparison
from harness.proposals.report.comparison import ArmFigures
from harness.proposals.report.findings import (
    FormatFailure,
    find_format_failures,
)
from harness.proposals.report.recorded_runs import FirstDifferences
from harness.proposals.submission import (
    MAX_CANDIDATES,
    ProposalPreview,
    ProposalRequest,
)
from harness.providers.target import Target
from harness.routing.proposal import PROPOSAL_TEXTS, Proposal, ProposalView
from harness.routing.reports.monthly_bill import CostForecast

router = APIRouter()
_TEXT_FIELDS: dict[str, Any] = {
    name: (Name | None, Field(default=None, description=text["help"]))
    for name, text in PROPOSAL_TEXTS.items()
}


Share = Annotated[float, Field(ge=SHARE_RANGE.low, le=SHARE_RANGE.high)]


class _ProposalFields(Body):
    route: Name
    candidate: Name
    reason: Text = ""
    claim: Claim | None = None
    margin: Share | None = None
    descends_from: Name | None = None
    min_saving: Share | None = None
    rivals: Annotated[tuple[Name, ...], Field(max_length=MAX_CANDIDATES - 1)] = ()
    slices: Annotated[tuple[Name, ...], Field(max_length=MOST_SLICES)] = ()

    def to_request(self) -> ProposalRequest:
        return ProposalRequest(**self.arguments())


class ProposalBody(create_model("_", __base__=_ProposalFields, **_TEXT_FIELDS)):  # type: ignore[misc]
    """A swap to propose. candidate: an id or `provider/model`. claim, margin, min_saving: null
    for the policy's values. min_saving is a share of 1, for the claim cheaper_and_not_worse.

    rivals: other candidates for the same swap; the best candidate that passes continues.
    slices: slices of the suite's `split`, tested alone if the whole route does not pass. A
    slice that passes gets a route of its own. Needs an admin.
    """


class AcceptingProposalBody(ProposalBody):
    """A swap to propose. accept_cost: an approver accepts a cost of up to this many times the
    incumbent's, beyond the policy's guardrail. because: why.
    """

    accept_cost: Annotated[float, Field(ge=1)] | None = None
    because: Text = ""


class ApprovalBody(Body):
    """An approval of a proposal. verdict: the id of the verdict that the approver saw;
    Swapproof refuses the approval if the proposal has another verdict now. change_reference:
    the change request, if the proposal names none. accept_cost: the approver accepts a cost of
    up to this many times the incumbent's, for the approval's reason.
    """

    reason: Text = ""
    expected_verdict: Annotated[Name | None, Field(alias="verdict")] = None
    change_reference: Name | None = None
    accept_cost: Annotated[float, Field(ge=1)] | None = None


class ProposalQuery(PageQuery):
    """Selects proposals. open: only open proposals. decided: only proposals with a verdict."""

    route: Name | None = None
    open_only: Annotated[bool, Field(alias="open")] = False
    decided_only: Annotated[bool, Field(alias="decided")] = False


@dataclass(frozen=True, slots=True)
class PlannedProposal(ProposalPreview):
    """A preview of a proposal. advice: by suite, the possible claims with the chance to show
    each; the first claim is recommended. cost_text: the candidate's cost, and its effect on the
    canary, in sentences.
    """

    advice: Mapping[str, ClaimAdvice]
    cost_text: str


@dataclass(frozen=True)
class SuiteComparison:
    """The two runs on one suite; `/evals/{run}/samples` has their samples. pin: the suite's
    pinned content. served: the models that the providers reported.
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
    """The comparison of a proposal's two models. verdict: null while the gate is undecided.
    forecast: the route's cost in US dollars per 30 days. cost: the candidate's cost divided by
    the incumbent's for the same answers. standing: whether the verdict is still valid proof.
    lost_by_form: the format rules that broke in a FORMAT MISMATCH, with remedies. faults:
    reasons why a model's answers may not be evidence, in spite of the verdict. hidden: why
    suites and verdict are left out until people have labelled; empty if they are shown.
    recorded_runs: by suite of agents' runs, when the candidate's calls first differ; no test
    uses it.
    """

    proposal: ProposalView
    incumbent: Target
    candidate: Target
    verdict: Verdict | None
    suites: Sequence[SuiteComparison]
    incumbent_figures: ArmFigures
    candidate_figures: ArmFigures
    forecast: CostForecast
    cost: CostRatio
    standing: ProofValidity | None
    lost_by_form: Sequence[FormatFailure]
    faults: Sequence[str]
    hidden: str
    recorded_runs: Mapping[str, FirstDifferences]


@endpoint(router, "POST", "/proposals", status=201)
def create_proposal(caller: SpenderParam, body: AcceptingProposalBody) -> Proposal:
    """Creates a proposal, which registers suites, claim, margin and alpha before the first
    score. 409 on a busy route.

    With `rivals`, each candidate gets a proposal; `/routes/{route}/candidates` shows them all.
    With `slices`, each slice gets a route and a proposal too; `GET /proposals` lists them.
    """

    def create(note: NoteCreated) -> Proposal:
        return submission.create_proposal(caller.ctx, caller.actor, body.to_request(), note)

    return caller.once(body, create, submission.get_proposal)


@endpoint(router, "GET", "/proposals/{proposal}/comparison")
def compare_proposal(caller: CallerParam, proposal: str) -> ProposalComparison:
    report = comparison.load_comparison(caller.ctx, proposal, most_texts=comparison.MOST_TEXTS)
    suites = [
        extend(
            SuiteComparison,
            suite,
            incumbent_samples=len(suite.figures.incumbent),
            candidate_samples=len(suite.figures.candidate),
        )
        for suite in report.suites
    ]
    format_failures = find_format_failures(report)
    return extend(
        ProposalComparison,
        report,
        suites=suites,
        lost_by_form=format_failures,
    )


@endpoint(router, "POST", "/proposals/preview")
def preview_proposal(caller: CallerParam, body: ProposalBody) -> PlannedProposal:
    """Previews a proposal: its looks and alphas, the approvals that it needs, its risk, and the
    claims that its suites can show. Stores nothing.
    """
    caller.actor.require(Role.PROPOSER)
    request = body.to_request()
    preview = submission.preview_proposal(caller.ctx, request, caller.actor)
    if request.slices:
        submission.create_selection(dry_run_context(caller.ctx), caller.actor, request)
    planning = estimate.estimate_proposal(caller.ctx, request)
    advice = {suite.plan.suite: suite.advice for suite in planning}
    return extend(
        PlannedProposal,
        preview,
        advice=advice,
        cost_text=preview.cost.text,
    )


PROPOSAL = "/proposals/{proposal}"
operation(
    router,
    "GET /proposals",
    "list_proposals",
    queries.list_proposals,
    ProposalQuery,
)
operation(router, f"GET {PROPOSAL}", "get_proposal", queries.find_proposal)
operation(
    router,
    f"GET {PROPOSAL}/review",
    "review_proposal",
    review.review_proposal,
)
operation(
    router,
    f"GET {PROPOSAL}/approvals",
    "list_approvals",
    approvals.list_approvals,
)
operation(
    router,
    f"POST {PROPOSAL}/approve",
    "approve_proposal",
    decisions.approve_proposal,
    ApprovalBody,
)
add_endpoints(router, PROPOSALS, LABELS)
