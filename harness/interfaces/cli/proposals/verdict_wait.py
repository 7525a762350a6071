"""Waits until proposals have a verdict or end, and returns an exit code."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from harness.evals.spending import sum_cost_so_far
from harness.frame.formatting import format_bps
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout
from harness.gate.verdict import Verdict
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import TIMED_OUT, Progress, follow
from harness.operations.context import Context
from harness.proposals import evaluation, proposal_waits
from harness.proposals.eval_queue import list_queue
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.verdicts import Verdicts

UNDECIDED: Final = frozenset({ProposalPhase.PROPOSED, ProposalPhase.EVALUATING})
EXIT_CODES_BY_PHASE: Final = {
    ProposalPhase.AWAITING_APPROVAL: 0,
    ProposalPhase.CANARY: 0,
    ProposalPhase.PROMOTED: 0,
    ProposalPhase.ROLLED_BACK: 3,
    ProposalPhase.CANCELLED: 1,
}
# The exit codes of rejected proposals. A rejected proposal with the verdict `passed` was
# refused, expired or superseded.
EXIT_CODES_BY_VERDICT: Final = {
    "passed": 7,
    "failed": 3,
    "harness_mismatch": 3,
    "inconclusive": 4,
    "infra_error": 1,
    "": 6,
}


def follow_candidates(
    session: Session,
    proposals: Sequence[Proposal],
    until: str,
    timeout_s: float | None,
) -> tuple[tuple[Proposal, ...], int]:
    """Waits for all proposals. Returns their last states and the exit code."""
    clock = session.installation.clock
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    results = []
    for proposal in proposals:
        left_s = None if deadline is None else max(0.0, deadline - clock.monotonic())
        results.append(_follow_proposal(session, proposal.id, until, left_s))
    final_proposals = tuple(proposal for proposal, _ in results)
    if not all(in_time for _, in_time in results):
        return final_proposals, TIMED_OUT
    # The lowest code, because the command succeeds if any candidate does.
    return final_proposals, min(
        find_exit_code(session, proposal) for proposal in final_proposals
    )


def _follow_proposal(
    session: Session,
    proposal_id: str,
    until: str,
    timeout_s: float | None,
) -> tuple[Proposal, bool]:
    (proposal, _), in_time = follow(
        session,
        lambda: load_progress(session.context, proposal_id),
        ended=lambda progress: (
            progress[0].phase not in UNDECIDED if until == "verdict" else not progress[0].open
        ),
        describe=lambda pair: pair[1],
        timeout_s=timeout_s,
    )
    return proposal, in_time


def load_progress(ctx: Context, proposal_id: str) -> tuple[Proposal, Progress]:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        proposal = Proposals(tx).get(proposal_id)
        stage = f"{proposal.id}: {proposal.phase_text}"
        if proposal.phase is ProposalPhase.EVALUATING and proposal.runs:
            return proposal, _measure_progress(tx, proposal, stage, now)
        if proposal.phase is ProposalPhase.CANARY and proposal.rollout:
            return proposal, Progress(
                f"{stage}{_describe_canary(Rollouts(tx).get(proposal.rollout))}"
            )
    return proposal, Progress(stage)


def _measure_progress(
    tx: Transaction,
    proposal: Proposal,
    stage: str,
    now: datetime,
) -> Progress:
    done, wanted = evaluation.count_answers(tx, proposal)
    cost = sum_cost_so_far(tx, evaluation.list_run_ids(proposal))
    return Progress(
        stage,
        done,
        wanted,
        at_most=True,
        cost_usd=cost,
        note=_describe_wait(tx, proposal, now),
    )


def _describe_wait(
    tx: Transaction,
    proposal: Proposal,
    now: datetime,
) -> str:
    if waits := proposal_waits.describe_proposal_waits(tx, proposal):
        return waits
    queued_runs = [queued for queued in list_queue(tx, now) if proposal.id in queued.needed_by]
    if any(queued.leased for queued in queued_runs):
        return ""
    first_waiting = next((queued for queued in queued_runs if queued.position > 1), None)
    return (
        first_waiting.text
        if first_waiting is not None and first_waiting is queued_runs[0]
        else ""
    )


def _describe_canary(rollout: Rollout) -> str:
    return f" at {format_bps(rollout.current.weight_bps)}, {rollout.state.value}"


def find_exit_code(session: Session, proposal: Proposal) -> int:
    if proposal.phase is not ProposalPhase.REJECTED:
        return EXIT_CODES_BY_PHASE[proposal.phase]
    verdict: Verdict | None = None
    if proposal.verdict is not None:
        with session.context.store.read() as tx:
            verdict = Verdicts(tx).get(proposal.verdict)
    return EXIT_CODES_BY_VERDICT[verdict.outcome if verdict else ""]
