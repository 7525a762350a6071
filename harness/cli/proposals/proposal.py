"""`swapgate proposal` asks for a swap with its plan, cost and risk (`create`), lists and shows
proposals, and decides about them (`approve`, `reject`, `cancel`). `report` is a module of its
own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import click

from harness.cli.canary import plan_json
from harness.cli.frame import formatting, output, paging
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session, pass_session
from harness.cli.frame.waiting import TIMED_OUT, who_starts_it
from harness.cli.proposals import comparison, verdict_wait
from harness.control.canary import duration_estimate
from harness.control.canary.duration_estimate import RampPlan
from harness.control.canary.status import list_canaries
from harness.control.context import Context
from harness.control.dry_run import dry_run_context
from harness.control.operations import queries
from harness.control.proposals import (
    approvals,
    decisions,
    estimate,
    review,
    route_rules,
    selections,
    submission,
)
from harness.control.proposals.comparison import load_comparison
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.proposals.review import ProposalReview
from harness.control.proposals.selections import SelectionComparison
from harness.control.proposals.submission import ProposalPreview, ProposalRequest
from harness.control.routing import monthly_bill
from harness.control.serialize import to_plain
from harness.domain.evals.cost_forecast import CostForecast
from harness.domain.evals.run import Claim, Verdict
from harness.domain.formatting import (
    format_latency,
    format_percent,
    format_score,
    format_span,
    format_thousand_price,
    format_usd,
)
from harness.domain.pagination import INVALID_ROWS_HINT, PageRequest
from harness.domain.proposals.proposal import Proposal
from harness.gate.text.sentences import share_text, spending_text

REPORT = LazyCommand(
    "harness.cli.proposals.report:proposal_report", "Write a comparison as a document."
)


@click.command(cls=LazyCommandGroup, lazy={"report": REPORT})
def proposal() -> None:
    """Proposals: requests to swap a route's model."""


@proposal.command()
@click.argument("route")
@click.argument("candidates", metavar="CANDIDATE...", nargs=-1, required=True)
@click.option(
    "--claim",
    type=click.Choice([claim.value for claim in Claim]),
    help="What the candidate has to show. [default: as the policy says]",
)
@click.option(
    "--margin",
    type=float,
    metavar="SHARE",
    help="Allowed loss, a share of 1: 0.05 is 5 points. [default: as the policy says]",
)
@click.option(
    "--min-saving",
    type=float,
    metavar="SHARE",
    help="With cheaper_and_not_worse: share of the cost to save. [default: the policy's]",
)
@click.option("--reason", default="", help="Reason; required for the claim non_inferior.")
@click.option("--policy", help="Name of a policy. [default: the route's]")
@click.option(
    "--descends-from",
    metavar="TARGET",
    help="Target after whose results the candidate was tuned; its looks at the suites count.",
)
@click.option(
    "--effect",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Smallest difference that matters to you, for planning. [default: 0.05]",
)
@click.option("--dry-run", is_flag=True, help="Check and plan; store nothing.")
@click.option("--wait", is_flag=True, help="Wait until the gate has decided.")
@click.option(
    "--until",
    type=click.Choice(["verdict", "end"]),
    default="verdict",
    show_default=True,
    help="With --wait: return at the verdict, or when the canary has ended.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    help="With --wait: seconds, then exit code 5. [default: none]",
)
@click.pass_context
def create(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    route: str,
    candidates: Sequence[str],
    claim: str | None,
    margin: float | None,
    min_saving: float | None,
    reason: str,
    policy: str | None,
    descends_from: str | None,
    effect: float | None,
    dry_run: bool,
    wait: bool,
    until: str,
    timeout_s: float | None,
) -> None:
    """Propose CANDIDATE for ROUTE: evals on both models, the gate, then a 1 % canary.

    Several candidates share one run of the incumbent and one alpha; the best of those that pass
    goes on, and the others end.

    Exit code with --wait: 0 passed or promoted, 3 failed or rolled back, 4 not enough
    evidence, 5 timeout, 7 refused, 1 not measured or cancelled. Without: 6 when the route has
    an open proposal.
    """
    session = ctx.ensure_object(Session)
    context = session.context_with_providers
    request = ProposalRequest(
        route,
        candidates[0],
        reason,
        Claim(claim) if claim else None,
        margin,
        policy,
        descends_from,
        min_saving,
        rivals=tuple(candidates[1:]),
    )
    terms = submission.preview_proposal(context, request, session.actor)
    planned = submission.create_selection(dry_run_context(context), session.actor, request)
    outlooks = [
        _load_outlook(context, one, effect, proposal)
        for one, proposal in zip(request.alone, planned, strict=True)
    ]
    ramp = duration_estimate.estimate_for_proposal(context, planned[0])
    if not session.json:
        _print_terms(outlooks, ramp, terms)
    if dry_run:
        _print_dry(session, outlooks, ramp, terms)
        return
    made = submission.create_selection(context, session.actor, request)
    if advice := who_starts_it(session.settings.control):
        output.note(advice)
    if not session.json:
        for proposal in made:
            click.echo(f"{proposal.id} proposed")
        output.note(_next(made[0]))
    code = 0
    if wait:
        ends = [
            verdict_wait.follow_proposal(session, proposal.id, until, timeout_s)
            for proposal in made
        ]
        made = tuple(proposal for proposal, _ in ends)
        # One that goes on is what was asked for.
        code = (
            min(verdict_wait.exit_code(session, proposal) for proposal in made)
            if all(in_time for _, in_time in ends)
            else TIMED_OUT
        )
    if session.json:
        _print_made(made, outlooks, terms)
    elif wait:
        for proposal in made:
            click.echo(comparison.outcome_text(load_comparison(context, proposal.id)))
    ctx.exit(code)


@dataclass(frozen=True)
class _Outlook:
    """What one candidate's comparison would take, and its bill."""

    planned: Proposal
    candidate: str
    planning: Sequence[SuiteEstimate]
    bill: CostForecast


def _load_outlook(
    ctx: Context, request: ProposalRequest, effect: float | None, planned: Proposal
) -> _Outlook:
    planning = estimate.estimate_proposal(ctx, request, effect)
    bill = monthly_bill.forecast_from_history(
        ctx, request.route, request.candidate, planned.plans
    )
    return _Outlook(planned, request.candidate, planning, bill)


def _print_terms(outlooks: Sequence[_Outlook], ramp: RampPlan, terms: ProposalPreview) -> None:
    for outlook in outlooks:
        if len(outlooks) > 1:
            click.echo(f"{outlook.candidate}:")
        _print_planning(outlook.planning)
        for line in route_rules.describe_widening(outlook.planned.widened):
            output.note(f"waits for another person's approval: {line}")
        output.note(
            "\n".join(
                part
                for part in (
                    monthly_bill.describe_forecast(outlook.bill),
                    monthly_bill.describe_basis(outlook.bill),
                )
                if part
            )
        )
    if len(outlooks) > 1:
        output.note(share_text(len(outlooks)))
    output.note(terms.risk.text)
    output.note(f"the canary: {ramp.words}")
    for option in ramp.options:
        output.note(f"option: {option}")


def _print_made(
    made: Sequence[Proposal], outlooks: Sequence[_Outlook], terms: ProposalPreview
) -> None:
    several = [
        {
            "proposal": to_plain(proposal),
            "planning": _planning_json(outlook.planning),
            "forecast": to_plain(outlook.bill),
        }
        for proposal, outlook in zip(made, outlooks, strict=True)
    ]
    risk = {"risk": to_plain(terms.risk)}
    if len(made) == 1:
        output.document({**several[0], **risk})
    else:
        output.document({"selection": made[0].selection, "candidates": several, **risk})


def _print_dry(
    session: Session, outlooks: Sequence[_Outlook], ramp: RampPlan, terms: ProposalPreview
) -> None:
    if not session.json:
        output.note("nothing was stored: leave --dry-run out to propose it")
        return
    several = [
        {
            "proposal": None,
            "planning": _planning_json(outlook.planning),
            "forecast": to_plain(outlook.bill),
            "plans": to_plain(outlook.planned.plans),
            "widened": to_plain(outlook.planned.widened),
        }
        for outlook in outlooks
    ]
    common = {"canary": plan_json(ramp), "risk": to_plain(terms.risk)}
    if len(several) == 1:
        output.document({**several[0], **common})
    else:
        output.document({"selection": None, "candidates": several, **common})


def _print_planning(planning: Sequence[SuiteEstimate]) -> None:
    output.table(
        [
            *("SUITE", "ROLE", "CLAIM", "ALLOWED LOSS", "ITEMS", "SEES FROM"),
            *("COSTS AT MOST", "TAKES ABOUT", "CHEAPEST DESIGN"),
        ],
        [_planning_row(suite_estimate) for suite_estimate in planning],
        empty="no suites",
    )
    for suite_estimate in planning:
        suite, plan = suite_estimate.plan.suite, suite_estimate.plan
        if suite_estimate.judge_usd != 0:
            output.note(
                (
                    f"{suite}: of that, the judge costs "
                    f"{format_usd(suite_estimate.judge_usd)} at most"
                )
                if suite_estimate.judge_usd is not None
                else f"{suite}: what its judge costs is unknown: it has judged nothing yet, or "
                "has no price"
            )
        if suite_estimate.warning:
            output.note(f"{suite}: {suite_estimate.warning}")
        for text in suite_estimate.slice_texts:
            output.note(f"{suite}: {text}")
        if suite_estimate.plan.claim is Claim.CHEAPER:
            output.note(f"{suite}: {_saving(suite_estimate)}")
        if plan.look > 1:
            output.note(f"{suite}: {spending_text(plan.look, plan.alpha, plan.spend)}")
        if suite_estimate.estimated:
            output.note(
                f"{suite}: the candidate has no answers yet; its cost is the incumbent's "
                "tokens at the candidate's price"
            )


def _saving(suite_estimate: SuiteEstimate) -> str:
    plan = suite_estimate.plan
    if suite_estimate.saving is None:
        return (
            f"whether it costs {format_percent(plan.min_saving)} less is open: no "
            "recorded answers"
        )
    found = f"recorded answers cost {format_percent(suite_estimate.saving)} less; claimed are "
    if suite_estimate.saving_items is None or suite_estimate.saving_items > plan.n_max:
        more = (
            f", and that takes about {suite_estimate.saving_items:,}"
            if suite_estimate.saving_items
            else ""
        )
        return (
            f"{found}{format_percent(plan.min_saving)}: {plan.n_max} {plan.unit}s will not "
            f"show it{more}"
        )
    return (
        f"{found}{format_percent(plan.min_saving)}: about {suite_estimate.saving_items} "
        f"{plan.unit}s show it"
    )


def _planning_row(suite_estimate: SuiteEstimate) -> list[object]:
    plan, best = suite_estimate.plan, suite_estimate.cheapest
    effect = format_score(suite_estimate.effect, None)
    cheapest = (
        f"{effect} points: {best.items} {plan.unit}s"
        + (f" x {best.epochs} epochs" if best.epochs > 1 else "")
        + (f", {format_usd(best.cost_usd)}" if best.cost_usd is not None else "")
        if best
        else f"{effect} points: not with this suite"
    )
    return [
        plan.suite,
        plan.role.value,
        plan.claim.value.replace("_", "-"),
        f"{format_score(plan.margin, None)} points",
        plan.n_max_text,
        f"{format_score(suite_estimate.mde)} points",
        format_usd(suite_estimate.cost_usd),
        "unknown"
        if suite_estimate.duration_s is None
        else format_span(suite_estimate.duration_s),
        cheapest,
    ]


def _planning_json(planning: Sequence[SuiteEstimate]) -> object:
    return [
        {
            "suite": suite_estimate.plan.suite,
            "figures": _figures(suite_estimate),
        }
        for suite_estimate in planning
    ]


def _figures(suite_estimate: SuiteEstimate) -> dict[str, object]:
    return {
        field.name: to_plain(getattr(suite_estimate, field.name))
        for field in fields(suite_estimate)[1:]
    }


def _next(made: Proposal) -> str:
    return (
        "next: the suites run on both models; a candidate that passes gets its canary, or "
        f"waits for approval. `swapgate proposal show {made.id}` says where it is"
    )


@proposal.command("list")
@click.option("--route", help="Only this route's.")
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@paging.page_options
@pass_session
def list_proposals(
    session: Session, *, route: str | None, open_only: bool, page_request: PageRequest
) -> None:
    """List the proposals, the newest first."""
    context = session.context
    proposals = queries.list_proposals(context, page_request, route=route, open_only=open_only)
    names = queries.load_target_names(context, {row.candidate for row in proposals})
    verdicts = queries.load_verdicts(context, {row.verdict for row in proposals if row.verdict})
    paging.note_page(proposals)
    if session.json:
        output.document(proposals.items)
        return
    output.table(
        ["ID", "ROUTE", "CANDIDATE", "PHASE", "VERDICT", "PROPOSER", "CREATED (UTC)"],
        [
            [
                row.id,
                row.route,
                names.get(row.candidate, row.candidate),
                row.phase.value.replace("_", " "),
                _verdict_words(row.verdict, verdicts),
                row.proposer,
                formatting.timestamp(row.created_at),
            ]
            for row in proposals
        ],
        empty="no proposals: `swapgate proposal create ROUTE CANDIDATE` makes one",
    )


def _verdict_words(verdict: str | None, known: Mapping[str, Verdict]) -> str | None:
    if verdict is None:
        return None
    return known[verdict].words if verdict in known else INVALID_ROWS_HINT


@proposal.command()
@click.argument("proposal_id", metavar="ID")
@pass_session
def show(session: Session, proposal_id: str) -> None:
    """Show a proposal: verdict, figures by suite, reason, canary."""
    context = session.context
    proposal_review = load_comparison(context, proposal_id)
    rollout = proposal_review.proposal.rollout
    live = list_canaries(context, route=proposal_review.proposal.route) if rollout else ()
    ours = next((canary for canary in live if canary.rollout.id == rollout), None)
    seen = review.review_proposal(context, proposal_id)
    stood_up = approvals.list_approvals(context, proposal_id)
    if session.json:
        document = {
            **comparison.as_json(proposal_review, ours),
            "approvals": to_plain(stood_up),
        }
        if proposal_review.proposal.selection:
            beside = selections.load_selection(context, proposal_id)
            document["selection"] = to_plain(beside)
        output.document({**document, "review": _review_json(seen)})
        return
    comparison.print_comparison(proposal_review, ours)
    if proposal_review.proposal.selection:
        _print_selection(selections.load_selection(context, proposal_id))
    _print_review(seen)
    for row in stood_up:
        words = f": {row.reason}" if row.reason else ""
        output.note("; ".join((f"approved by {row.name}{words}", *row.remarks)))


def _print_selection(beside: SelectionComparison) -> None:
    click.echo()
    output.table(
        ["CANDIDATE", "PROPOSAL", "VERDICT", "DELTA (95 % INTERVAL)", *_FIGURES],
        [
            [
                candidate.target.name,
                candidate.proposal.id,
                candidate.standing,
                "; ".join(candidate.differences),
                f"{candidate.answered:,} of {candidate.planned:,}",
                format_thousand_price(candidate.figures.cost_usd_per_1000),
                format_latency(candidate.figures.p95_s),
                candidate.proposal.phase.value.replace("_", " "),
            ]
            for candidate in beside.candidates
        ],
        empty="",
    )
    click.echo(share_text(len(beside.candidates)))


_FIGURES = ("ANSWERS", "COST OF 1,000", "P95", "PHASE")


def _review_json(proposal_review: ProposalReview) -> object:
    return {
        "widened": to_plain(proposal_review.widened),
        "risk": to_plain(proposal_review.risk),
        "changes": to_plain(proposal_review.changes),
    }


def _print_review(proposal_review: ProposalReview) -> None:
    """What an approver should know."""
    click.echo()
    click.echo(proposal_review.risk.text)
    for line in proposal_review.widened:
        click.echo(f"widened: {line}")
    if proposal_review.changes:
        rows = [
            [formatting.timestamp(change.at), change.by, change.what, change.text]
            for change in proposal_review.changes
        ]
        output.table(["CHANGED (UTC)", "BY", "WHAT", "HOW"], rows, empty="")


@proposal.command()
@click.argument("proposal_id", metavar="ID")
@click.option("--reason", default="", help="Reason, recorded in the audit log.")
@pass_session
def approve(session: Session, proposal_id: str, reason: str) -> None:
    """Let a passed proposal into its canary. The proposer cannot.

    `swapgate proposal show` says what it widens and what changed on its route in 90 days.
    """
    for line in review.review_proposal(session.context, proposal_id).widened:
        output.note(f"widened: {line}")
    made = decisions.approve_proposal(session.context, session.actor, proposal_id, reason)
    _answer(session, made, f"{made.id} is approved by {made.approver}: its canary opens next")
    for approval in approvals.list_approvals(session.context, made.id):
        for remark in approval.remarks:
            output.note(remark)


@proposal.command()
@click.argument("proposal_id", metavar="ID")
@click.option("--reason", required=True, help="Reason, shown to the proposer.")
@pass_session
def reject(session: Session, proposal_id: str, reason: str) -> None:
    """End a proposal that waits for approval."""
    made = decisions.refuse_proposal(session.context, session.actor, proposal_id, reason)
    _answer(session, made, f"{made.id} is rejected")


@proposal.command()
@click.argument("proposal_id", metavar="ID")
@click.option("--reason", default="", help="Reason, recorded in the audit log.")
@pass_session
def cancel(session: Session, proposal_id: str, reason: str) -> None:
    """Take an open proposal back, before its canary."""
    made = decisions.cancel_proposal(session.context, session.actor, proposal_id, reason)
    _answer(session, made, f"{made.id} is cancelled")


def _answer(session: Session, made: Proposal, words: str) -> None:
    if session.json:
        output.document(made)
    else:
        click.echo(words)
