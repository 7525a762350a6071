"""The queue of eval runs: the order in which workers take them (`list_queue`), and why a run
waits. Runs that an open proposal needs come first, then the oldest. A queued run may be on hold
while its answers could not decide anything yet.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.evals import spending
from harness.evals.month_spending import month_of
from harness.evals.records.spending import Spending
from harness.frame.formatting import format_quantity
from harness.frame.records.transaction import Transaction
from harness.gate.run import RUNNABLE_STATES, EvalRun, describe_waits
from harness.proposals.evaluation import evaluation
from harness.routing.context import Context
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns, Suites

# Lists the newest first; beyond this number the oldest wait until the queue is shorter.
MOST_WAITING: Final = 10_000


@dataclass(frozen=True)
class QueuedRun:
    run: EvalRun
    needed_by: Sequence[str] = ()  # open proposals that wait for it, by id
    leased: bool = False  # a worker processes it
    unpaid: str = ""  # why the monthly cap blocks its calls now
    away: str = ""  # the unavailable provider that it waits for, as text
    position: int = 0  # among waiting runs, from 1; 0 if no worker can take it
    overtaken: bool = False  # newer runs come first, because proposals need them

    @property
    def text(self) -> str:
        if self.away:
            return self.away
        if self.leased:
            return "a worker processes it"
        if self.unpaid:
            return f"waits: {self.unpaid}"
        if self.position == 1:
            place = "next in line"
        else:
            place = f"waits behind {format_quantity(self.position - 1, 'run')}"
            place += "; runs that proposals need come first" if self.overtaken else ""
        if self.run.failures and self.run.message:
            place += f"; tried {format_quantity(self.run.failures, 'time')}: {self.run.message}"
        return place


def needed_runs(proposals: Iterable[Proposal]) -> frozenset[str]:
    return frozenset(
        run
        for proposal in proposals
        if proposal.phase is ProposalPhase.EVALUATING
        and proposal.retry_at is None
        and not proposal.waits_for_rivals
        for run in evaluation.run_ids(proposal)
    )


def load_queue(ctx: Context) -> Mapping[str, QueuedRun]:
    with ctx.store.read() as tx:
        return {queued.run.id: queued for queued in list_queue(tx, ctx.clock.now())}


def list_queue(tx: Transaction, now: datetime) -> Sequence[QueuedRun]:
    """Lists the runs that have not ended, in the order of workers; runs on hold at the end."""
    runs = EvalRuns(tx).list(states=RUNNABLE_STATES, limit=MOST_WAITING)
    proposals = Proposals(tx).open()
    needed = {run: _list_needing(proposals, run) for run in needed_runs(proposals)}
    unpaid = _unpaid_runs(tx, runs, now)
    away = {run.id for run in runs if run.is_waiting(now)}
    kept = {run.id for run in runs if run.is_leased(now)} | unpaid.keys() | away
    waiting = [run for run in reversed(runs) if run.id not in kept]
    first = [run for run in waiting if run.id in needed]
    others = [run for run in waiting if run.id not in needed]
    queue = [
        QueuedRun(
            run,
            needed.get(run.id, ()),
            away=describe_waits([run], now),
            position=place,
            overtaken=run.id not in needed
            and any(before.created_at > run.created_at for before in first),
        )
        for place, run in enumerate((*first, *others), start=1)
    ]
    return queue + [
        QueuedRun(
            run,
            needed.get(run.id, ()),
            leased=run.is_leased(now),
            unpaid=unpaid.get(run.id, ""),
            away=describe_waits([run], now),
        )
        for run in reversed(runs)
        if run.id in kept
    ]


def _unpaid_runs(tx: Transaction, runs: Iterable[EvalRun], now: datetime) -> Mapping[str, str]:
    month = Spending(tx).month(month_of(now))
    if month.cap_usd is None:
        return {}
    judges = {suite.digest: suite.judge for suite in Suites(tx).all()}
    obstacles = {
        run.id: spending.find_money_obstacle(tx, month, run, judges.get(run.suite_digest, ""))
        for run in runs
    }
    return {run: text for run, text in obstacles.items() if text}


def _list_needing(proposals: Iterable[Proposal], run: str) -> Sequence[str]:
    return tuple(proposal.id for proposal in proposals if run in needed_runs([proposal]))
