"""Feeds the eval runs that wait to the job queue that the workers of all hosts share
(`control.queue: procrastinate`), a part of the reconcile loop. Proposals take turns: the one
with the fewest runs at work comes next. A run whose host died is queued again.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Final

from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.control.evals.eval_queue import QueuedRun, list_queue
from harness.domain.errors import StoreUnavailable, SwapgateError
from harness.domain.evals.run import EvalRun
from harness.ports import QueuedJob, RunQueue

# Of one provider: a provider that no host serves must not fill the queue, and each move of the
# queue writes a row.
MOST_AHEAD: Final = 100


def run_once(ctx: Context, queue: RunQueue) -> list[str]:
    """Takes back what dead hosts had, and queues what waits. Returns what it did, in words."""
    did = [_take_back(ctx, run) for run in queue.take_back_dead()]
    with ctx.store.read() as tx:
        waiting = fair_order(list_queue(tx, ctx.clock.now()))
        targets = tx.routing.targets()
    ahead: Counter[str] = Counter()
    jobs: list[QueuedJob] = []
    for run in waiting:
        target = targets.get(run.target)
        provider = target.provider if target is not None else ""
        ahead[provider] += 1
        if ahead[provider] > MOST_AHEAD:
            continue
        refusal = _refusal(ctx, run)
        if refusal:
            did.append(refusal)
            continue
        jobs.append(QueuedJob(run.id, provider, priority=-len(jobs)))
    return did + [f"{run}: queued for the workers" for run in queue.replace(jobs)]


def fair_order(queue: Sequence[QueuedRun]) -> list[EvalRun]:
    """Orders the runs that wait: what proposals wait for first, in turns between them; then the
    rest, in the queue's order.
    """
    at_work = Counter(_proposal(queued) for queued in queue if queued.leased)
    shares: dict[str, deque[QueuedRun]] = defaultdict(deque)
    others = []
    for queued in queue:
        if queued.position and queued.needed_by:
            shares[_proposal(queued)].append(queued)
        elif queued.position:
            others.append(queued.run)
    turns = [
        (at_work[proposal], waiting[0].position, proposal)
        for proposal, waiting in shares.items()
    ]
    heapq.heapify(turns)
    ordered = []
    while turns:
        count, _, proposal = heapq.heappop(turns)
        ordered.append(shares[proposal].popleft().run)
        if shares[proposal]:
            heapq.heappush(turns, (count + 1, shares[proposal][0].position, proposal))
    return ordered + others


def _proposal(queued: QueuedRun) -> str:
    """A run that several proposals wait for counts for the oldest."""
    return queued.needed_by[0] if queued.needed_by else ""


def _refusal(ctx: Context, run: EvalRun) -> str:
    """Fails a run whose target may not see its suite's data; empty where it may."""
    try:
        worker_supervision.check_cleared(ctx, run)
    except StoreUnavailable:
        raise
    except SwapgateError as error:
        with ctx.store.write() as tx:
            return worker_supervision.fail_run(tx, run.id, f"no worker may take it: {error}")
    return ""


def _take_back(ctx: Context, run: str) -> str:
    """A host that was only cut off loses its lease: it stores nothing more of this run."""
    with ctx.store.write() as tx:
        owner = tx.runs.get(run).lease_owner
        if not owner or run not in tx.runs.release(owner):
            return f"{run}: its worker host is gone"
        because = "its worker host is gone: no heartbeat"
        return worker_supervision.fail_run(tx, run, because, most=worker_supervision.MAX_KILLS)
