"""`swapgate proposal` asks for a swap with its plan, cost and risk (`create`), lists and shows
proposals, and decides about them (`approve`, `reject`, `cancel`). `report` is a module of its
own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields

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
from harness.control.dry_run import dry_run_context
from harness.control.operations import queries
from harness.control.proposals import (
    approvals,
    decisions,
    estimate,
    review,
    route_rules,
    submission,
)
from harness.control.proposals.comparison import load_comparison
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.proposals.review import ProposalReview
from harness.control.proposals.submission import ProposalPreview
from harness.control.routing import monthly_bill
from harness.control.serialize import to_plain
from harness.domain.evals.cost_forecast import CostForecast
from harness.domain.evals.run import Claim, Verdict
from harness.domain.formatting import format_percent, format_score, format_span, format_usd
from harness.domain.pagination import INVALID_ROWS_HINT, PageRequest
from harness.domain.proposals.proposal import Proposal
from harness.gate.text.sentences import spending_text

REPORT = LazyCommand(
    "harness.cli.proposals.report:proposal_report", "Write a comparison as a document."
)


@click.command(cls=LazyCommandGroup, lazy={"report": REPORT})
def proposal() -> None:
    """Proposals: requests to swap a route's model."""


@proposal.command()
@click.argument("route")
@click.argument("candidate")
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
    candidate: str,
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

    Exit code with --wait: 0 passed or promoted, 3 failed or rolled back, 4 not enough
    evidence, 5 timeout, 7 refused, 1 not measured or cancelled. Without: 6 when the route has
    an open proposal.
    """
    session = ctx.ensure_object(Session)
    context = session.context_with_providers
    request = submission.ProposalRequest(
        route,
        candidate,
        reason,
        Claim(claim) if claim else None,
        margin,
        policy,
        descends_from,
        min_saving,
    )
    terms = submission.preview_proposal(context, request, session.actor)
    planned = submission.create_proposal(dry_run_context(context), session.actor, request)
    planning = estimate.estimate_proposal(context, request, effect)
    bill = monthly_bill.forecast_from_history(context, route, candidate, terms.plans)
    ramp = duration_estimate.estimate_for_proposal(context, planned)
    if not session.json:
        _print_planning(planning)
        output.note(terms.risk.text)
        for line in route_rules.describe_widening(terms.widened):
            output.note(f"waits for another person's approval: {line}")
        output.note(
            "\n".join(
                part
                for part in (
                    monthly_bill.describe_forecast(bill),
                    monthly_bill.describe_basis(bill),
                )
                if part
            )
        )
        output.note(f"the canary: {ramp.words}")
        for option in ramp.options:
            output.note(f"option: {option}")
    if dry_run:
        _print_dry(session, planned, planning, bill, ramp, terms)
        return
    made = submission.create_proposal(context, session.actor, request)
    if advice := who_starts_it(session.settings.control):
        output.note(advice)
    if not session.json:
        click.echo(f"{made.id} proposed")
        output.note(_next(made))
    code = 0
    if wait:
        made, in_time = verdict_wait.follow_proposal(session, made.id, until, timeout_s)
        code = verdict_wait.exit_code(session, made) if in_time else TIMED_OUT
    if session.json:
        output.document(
            {
                "proposal": to_plain(made),
                "planning": _planning_json(planning),
                "forecast": to_plain(bill),
                "risk": to_plain(terms.risk),
            }
        )
    elif wait:
        click.echo(comparison.outcome_text(load_comparison(context, made.id)))
    ctx.exit(code)


def _print_dry(
    session: Session,
    planned: Proposal,
    planning: Sequence[SuiteEstimate],
    bill: CostForecast,
    ramp: RampPlan,
    terms: ProposalPreview,
) -> None:
    if session.json:
        output.document(
            {
                "proposal": None,
                "planning": _planning_json(planning),
                "forecast": to_plain(bill),
                "plans": to_plain(planned.plans),
                "canary": plan_json(ramp),
                "risk": to_plain(terms.risk),
                "widened": to_plain(terms.widened),
            }
        )
    else:
        output.note("nothing was stored: leave --dry-run out to propose it")


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
        output.document({**document, "review": _review_json(seen)})
        return
    comparison.print_comparison(proposal_review, ours)
    _print_review(seen)
    for row in stood_up:
        words = f": {row.reason}" if row.reason else ""
        output.note("; ".join((f"approved by {row.name}{words}", *row.remarks)))


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
