"""`swapgate proposal` lists, shows and decides proposals."""

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
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, watch
from harness.interfaces.cli.proposals import comparison
from harness.interfaces.cli.proposals.verdict_wait import load_progress
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import decisions
from harness.proposals.candidates import cost_ratio
from harness.proposals.decisions import ProposalReview
from harness.proposals.eval_queue import load_queue
from harness.proposals.report.comparison import MOST_TEXTS, load_comparison

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


@command(proposal, "list")
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
            "VERDICT": _verdict_words(row.verdict, verdicts),
            "PROPOSER": row.proposer,
            "CREATED (UTC)": timestamp(row.created_at),
        },
        empty="no proposals: `swapgate proposal create ROUTE CANDIDATE` creates one",
    )


def _verdict_words(verdict: str | None, known: Mapping[str, Verdict]) -> str | None:
    if verdict is None:
        return None
    return known[verdict].words if verdict in known else INVALID_ROWS_HINT


@command(proposal)
def show(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    watched: bool = WATCH,
) -> None:
    """Show a proposal: verdict, figures by suite, reason and canary."""
    context = session.context
    if watched:
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
    proposal_review = load_comparison(context, proposal_id, most_texts=MOST_TEXTS)
    rollout = proposal_review.proposal.rollout
    live = list_canaries(context, route=proposal_review.proposal.route) if rollout else ()
    canary = next((status for status in live if status.rollout.id == rollout), None)
    review = decisions.review_proposal(context, proposal_id)
    approvals = decisions.list_approvals(context, proposal_id)
    if session.json:
        document = {"approvals": approvals, "review": _review_json(review)}
        output.document({**comparison.as_json(proposal_review, canary), **document})
        return
    comparison.print_comparison(proposal_review, canary)
    if proposal_review.proposal.selection:
        route = proposal_review.proposal.route
        output.note(f"`swapgate route candidates {route}` shows the candidates side by side")
    if waits := proposal_review.proposal.waits:
        output.note(f"it {waits}")
    _print_queue(context, proposal_id)
    _print_review(review)
    for row in approvals:
        words = f": {row.reason}" if row.reason else ""
        output.note("; ".join((f"approved by {row.name}{words}", *row.remarks)))


def _print_queue(ctx: Context, proposal_id: str) -> None:
    for queued in load_queue(ctx).values():
        if queued.position and not queued.away and proposal_id in queued.needed_by:
            output.note(f"{queued.run.suite}, {queued.run.id}: {queued.text}")


def _review_json(proposal_review: ProposalReview) -> object:
    return output.pick(proposal_review, "widened", "risk", "changes", "unlisted")


def _print_review(proposal_review: ProposalReview) -> None:
    click.echo()
    click.echo(proposal_review.risk.text)
    if proposal_review.unlisted:
        click.echo(proposal_review.unlisted)
    for line in proposal_review.widened:
        click.echo(f"widened: {line}")
    if proposal_review.changes:
        rows = [
            [timestamp(change.at), change.by, change.what, change.text]
            for change in proposal_review.changes
        ]
        output.table(["CHANGED (UTC)", "BY", "WHAT", "HOW"], rows, empty="")


@command(proposal)
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

    The proposer cannot, except with the policy's `self_approval`.
    """
    found = decisions.review_proposal(session.context, proposal_id)
    if found.unlisted:
        output.note(found.unlisted)
    for line in found.widened:
        output.note(f"widened: {line}")
    approved = session.decide(
        decisions.approve_proposal,
        proposal_id,
        reason,
        change_reference=change,
        accept_cost=accept_cost,
    )
    text = f"{approved.id} is approved by {approved.approver}: its canary opens next"
    output.answer(approved, text)
    for approval in decisions.list_approvals(session.context, approved.id):
        for remark in approval.remarks:
            output.note(remark)


@command(proposal)
def accept_cost(
    session: Session,
    route: str,
    candidate: str,
    *,
    up_to: float = opt(
        "Accepted cost, as a multiple of the incumbent's cost.",
        type=FiniteRange(min=1),
        metavar="TIMES",
        required=True,
    ),
    because: str = opt("Reason, which every view of the proposal shows.", required=True),
) -> None:
    """Accept the cost of CANDIDATE on ROUTE, for its next proposal. Needs an approver."""
    accepted = session.decide(
        cost_ratio.accept_cost_of,
        route,
        candidate,
        ratio=up_to,
        because=because,
    )
    output.answer(accepted, f"{accepted.text}. Now propose {candidate} for {route}")


@command(proposal)
def reject(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    reason: str = opt("Reason, shown to the proposer."),
) -> None:
    """Reject a proposal that waits for approval."""
    rejected = session.decide(decisions.refuse_proposal, proposal_id, reason)
    output.answer(rejected, f"{rejected.id} is rejected")


@command(proposal)
def retry(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
) -> None:
    """Retry at once a proposal that waits for a provider; its maximum wait begins again."""
    retried = session.decide(decisions.retry_proposal, proposal_id, reason)
    output.answer(retried, f"{retried.id} asks the provider again")


@command(proposal)
def confirm_same_model(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    reason: str = opt("Reason, which every view of the proposal shows.", required=True),
) -> None:
    """Confirm that both models may be served by the same, before the verdict.

    Needs an approver. Swapgate then decides by the answers that it has.
    """
    confirmed = session.decide(decisions.confirm_same_model, proposal_id, reason)
    text = confirmed.same_model.text if confirmed.same_model else ""
    output.answer(confirmed, f"{confirmed.id} continues: {text}")


@command(proposal)
def cancel(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    reason: str = OPTIONAL_REASON,
) -> None:
    """Cancel an open proposal before its canary."""
    cancelled = session.decide(decisions.cancel_proposal, proposal_id, reason)
    output.answer(cancelled, f"{cancelled.id} is cancelled")
