"""`swapproof proposal` lists, shows and decides proposals."""

from collections.abc import Mapping

import click

from harness.canary.status import list_canaries
from harness.frame.errors import InputError
from harness.frame.pagination import INVALID_ROWS_HINT, PageRequest
from harness.gate.verdict import Verdict
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    OPTIONAL_REASON,
    PAGE,
    WATCH,
    FiniteRange,
    LazyCommand,
    LazyCommandGroup,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import add_commands
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, watch
from harness.interfaces.cli.proposals import comparison
from harness.interfaces.cli.proposals.verdict_wait import load_progress
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import approvals, decisions, review
from harness.proposals.eval_queue import load_queue
from harness.proposals.operations import PROPOSALS
from harness.proposals.report.comparison import MOST_TEXTS, load_comparison
from harness.proposals.review import ProposalReview

CREATE = LazyCommand(
    "harness.interfaces.cli.proposals.submission:create_proposal",
    "Propose CANDIDATE for ROUTE: evals on both models, the gate, then a 1 % canary.",
)
REPORT = LazyCommand(
    "harness.interfaces.cli.proposals.proof:proposal_report",
    "Write the report of a comparison.",
)


@click.command(cls=LazyCommandGroup, lazy={"create": CREATE, "report": REPORT})
def proposal() -> None:
    """Proposals: requests to swap a route's model."""


add_commands(proposal, PROPOSALS)


@command(proposal, "list", example="swapproof proposal list --open")
def list_proposals(
    session: Session,
    *,
    route: str | None = opt("Only this route."),
    open_only: bool = opt("Only open proposals.", "--open"),
    decided_only: bool = opt("Only proposals that have ended.", "--decided"),
    page_request: PageRequest = PAGE,
) -> None:
    """List the proposals, newest first."""
    if open_only and decided_only:
        raise InputError(
            "give one of --open and --decided; without them, the list has all proposals"
        )
    context = session.context
    proposals = queries.list_proposals(
        context,
        page_request,
        route=route,
        open_only=open_only,
        decided_only=decided_only,
    )
    names = queries.load_target_names(context, {row.candidate for row in proposals})
    verdicts = context.store.lists.verdicts({row.verdict for row in proposals if row.verdict})
    output.listing(
        proposals,
        lambda row: {
            "ID": row.id,
            "ROUTE": row.route,
            "CANDIDATE": names.get(row.candidate, row.candidate),
            "PHASE": row.phase_text,
            "VERDICT": _describe_verdict(row.verdict, verdicts),
            "PROPOSER": row.proposer,
            "CREATED (UTC)": timestamp(row.created_at),
        },
        empty="no proposals: `swapproof proposal create ROUTE CANDIDATE` creates one",
    )


def _describe_verdict(verdict: str | None, verdicts_by_id: Mapping[str, Verdict]) -> str | None:
    if verdict is None:
        return None
    return verdicts_by_id[verdict].words if verdict in verdicts_by_id else INVALID_ROWS_HINT


@command(proposal, example="swapproof proposal show p_3f9c2a61b7e04d58")
def show(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    is_watching: bool = WATCH,
) -> None:
    """Show a proposal: verdict, figures by suite, reason and canary."""
    context = session.context
    if is_watching:
        watch(
            session,
            Watched(
                load=lambda: load_progress(context, proposal_id),
                draw=lambda _: _print(session, proposal_id),
                lines=lambda pair: {"": pair[1].describe()},
                document=lambda pair: {
                    "proposal": pair[0],
                    "progress": pair[1],
                },
                ended=lambda pair: not pair[0].open,
            ),
        )
    else:
        _print(session, proposal_id)


def _print(session: Session, proposal_id: str) -> None:
    context = session.context
    proposal_comparison = load_comparison(context, proposal_id, most_texts=MOST_TEXTS)
    rollout = proposal_comparison.proposal.rollout
    canaries = (
        list_canaries(context, route=proposal_comparison.proposal.route) if rollout else ()
    )
    canary = next((status for status in canaries if status.rollout.id == rollout), None)
    proposal_review = review.review_proposal(context, proposal_id)
    approval_rows = approvals.list_approvals(context, proposal_id)
    if session.json:
        document = {"approvals": approval_rows, "review": _build_review_json(proposal_review)}
        output.document({**comparison.as_json(proposal_comparison, canary), **document})
        return
    comparison.print_comparison(proposal_comparison, canary)
    if proposal_comparison.proposal.selection:
        route = proposal_comparison.proposal.route
        output.note(f"`swapproof route candidates {route}` shows the candidates side by side")
    if waits := proposal_comparison.proposal.waits:
        output.note(f"the proposal {waits}")
    _print_queue(context, proposal_id)
    _print_review(proposal_review)
    for row in approval_rows:
        reason = f": {row.reason}" if row.reason else ""
        output.note("; ".join((f"approved by {row.name}{reason}", *row.remarks)))


def _print_queue(ctx: Context, proposal_id: str) -> None:
    for queued_run in load_queue(ctx).values():
        if queued_run.position and not queued_run.away and proposal_id in queued_run.needed_by:
            output.note(f"{queued_run.run.suite}, {queued_run.run.id}: {queued_run.text}")


def _build_review_json(proposal_review: ProposalReview) -> object:
    shown = output.pick(proposal_review, "widened", "risk", "changes", "unlisted")
    never_measured = proposal_review.never_measured
    return {**shown, **({"never_measured": never_measured} if never_measured else {})}


def _print_review(proposal_review: ProposalReview) -> None:
    click.echo()
    click.echo(proposal_review.risk.text)
    if proposal_review.unlisted:
        click.echo(proposal_review.unlisted)
    if proposal_review.never_measured:
        click.echo(proposal_review.never_measured)
    for line in proposal_review.widened:
        click.echo(f"widened: {line}")
    if proposal_review.changes:
        rows = [
            [timestamp(change.at), change.by, change.what, change.text]
            for change in proposal_review.changes
        ]
        output.table(["CHANGED (UTC)", "BY", "WHAT", "HOW"], rows, empty="")


@command(
    proposal,
    example='swapproof proposal approve p_3f9c2a61b7e04d58 --reason "the slices agree"',
)
def approve(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
    change: str = opt(
        "Change request in your own system. [default: the proposal's]",
        metavar="REFERENCE",
        default="",
    ),
    accept_cost: float | None = opt(
        "Accepted cost, as a multiple of the incumbent's cost.",
        type=FiniteRange(min=1),
        metavar="TIMES",
    ),
) -> None:
    """Approve a passed proposal, so that its canary opens.

    The proposer cannot approve it. Nor can a person whose key was created within 30 days by
    the person who created the proposer's key, unless that was the operator. The policy's
    `self_approval` allows both.
    """
    proposal_review = review.review_proposal(session.context, proposal_id)
    if proposal_review.unlisted:
        output.note(proposal_review.unlisted)
    if proposal_review.never_measured:
        output.note(proposal_review.never_measured)
    for line in proposal_review.widened:
        output.note(f"widened: {line}")
    approved_proposal = session.decide(
        decisions.approve_proposal,
        proposal_id,
        reason,
        change_reference=change,
        accept_cost=accept_cost,
    )
    approver = approved_proposal.approver
    text = f"{approved_proposal.id} is approved by {approver}: its canary opens next"
    output.answer(approved_proposal, text)
    for approval in approvals.list_approvals(session.context, approved_proposal.id):
        for remark in approval.remarks:
            output.note(remark)
