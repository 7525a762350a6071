"""Forecasts what a proposal costs, shows and needs, before a person submits it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.frame.formatting import format_percent, format_usd
from harness.frame.people.access import Actor
from harness.gate.sentences import spending_text
from harness.gate.suite_plan import Claim, SuiteRole
from harness.proposals import submission
from harness.proposals.candidates import estimate
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.context import ProposalsContext, dry_run_context
from harness.proposals.registration.route_risk import FalsePassRisk
from harness.proposals.submission import ProposalRequest
from harness.routing.proposal import Proposal
from harness.routing.reports import monthly_bill
from harness.routing.reports.monthly_bill import CostForecast


@dataclass(frozen=True, slots=True)
class CandidateOutlook:
    """The forecast for one candidate of a request."""

    planned: Proposal  # the proposal that a submission would register now
    candidate: str  # `provider/model`
    unlisted: str  # warning if the provider does not list the candidate
    planning: Sequence[SuiteEstimate]
    bill: CostForecast
    untaken: Sequence[str]  # descriptions of requests that the candidate cannot take
    cost: CostRatio


@dataclass(frozen=True, slots=True)
class ProposalOutlook:
    """The forecast for a request. risk: of a false pass, with all candidates."""

    candidates: tuple[CandidateOutlook, ...]
    risk: FalsePassRisk


def forecast_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    request: ProposalRequest,
    effect: float | None = None,
) -> ProposalOutlook:
    """Checks a request as its submission would, and forecasts it; stores nothing.

    Args:
        effect: the smallest difference that matters to the person, as a share of 1.

    Raises the errors of `submission.create_selection`.
    """
    risk = submission.preview_proposal(ctx, request, actor).risk
    planned = submission.create_selection(dry_run_context(ctx), actor, request)
    return ProposalOutlook(
        tuple(
            _forecast_candidate(ctx, alone, effect, proposal)
            for alone, proposal in zip(
                request.alone, planned[: len(request.candidates)], strict=True
            )
        ),
        risk,
    )


def _forecast_candidate(
    ctx: ProposalsContext,
    request: ProposalRequest,
    effect: float | None,
    planned: Proposal,
) -> CandidateOutlook:
    preview = submission.preview_proposal(ctx, request)
    return CandidateOutlook(
        planned=planned,
        candidate=preview.candidate,
        unlisted=preview.unlisted,
        planning=estimate.estimate_proposal(ctx, request, effect),
        bill=monthly_bill.forecast_from_history(
            ctx, request.route, request.candidate, planned.plans
        ),
        untaken=preview.untaken,
        cost=replace(preview.cost, accepted=planned.accepted_cost),
    )


def describe_estimate(suite_estimate: SuiteEstimate) -> Iterator[str]:
    """Yields sentences about a suite's estimate, the most important first."""
    plan = suite_estimate.plan
    advice = suite_estimate.advice
    if plan.role is SuiteRole.PRIMARY:
        claim = advice.recommended.claim.value if advice.recommended else "no claim"
        yield f"{claim} is recommended: {advice.why}"
    if suite_estimate.judge_usd is None:
        yield "the judge's cost is unknown, because it has judged nothing yet or has no price"
    elif suite_estimate.judge_usd:
        yield f"this includes at most {format_usd(suite_estimate.judge_usd)} for the judge"
    if suite_estimate.warning:
        yield suite_estimate.warning
    yield from suite_estimate.texts
    if plan.claim is Claim.CHEAPER:
        yield _describe_saving(suite_estimate)
    if plan.look > 1:
        yield spending_text(plan.look, plan.alpha, plan.spend)
    if suite_estimate.basis:
        yield suite_estimate.basis


def _describe_saving(suite_estimate: SuiteEstimate) -> str:
    plan = suite_estimate.plan
    if suite_estimate.saving is None:
        return (
            f"it is unknown whether it costs {format_percent(plan.min_saving)} less: a price "
            "is missing or 0"
        )
    is_recorded = suite_estimate.incumbent and not suite_estimate.guessed
    basis = "recorded answers" if is_recorded else "by list prices, answers"
    saving = f"{basis} cost {format_percent(suite_estimate.saving)} less; the claim is "
    if suite_estimate.saving_items is None or suite_estimate.saving_items > plan.n_max:
        more = (
            f", which takes about {suite_estimate.saving_items:,}"
            if suite_estimate.saving_items
            else ""
        )
        return (
            f"{saving}{format_percent(plan.min_saving)}: {plan.n_max} {plan.unit}s cannot show "
            f"it{more}"
        )
    return (
        f"{saving}{format_percent(plan.min_saving)}: about {suite_estimate.saving_items} "
        f"{plan.unit}s show it"
    )
