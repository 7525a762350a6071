"""The queue of eval runs: the order in which workers take them (`list_queue`), and why a run
waits.

Runs that an open proposal needs come first, then the oldest. A run is on hold while its
provider is unavailable, or while the monthly cap does not pay for it. The module also
supervises eval workers, and queues and ends eval runs. It neither calls a model nor judges an
answer: `harness.app.eval_workers` runs the suites, and `evaluation` decides.
"""

import math
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.evals import spending
from harness.evals.month_spending import month_of
from harness.evals.records import Drift, Spending
from harness.frame.errors import (
    IllegalTransition,
    InputError,
    StoreUnavailable,
)
from harness.frame.formatting import format_quantity
from harness.frame.idempotency import NoteCreated, note_nothing
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import short_hash
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import (
    RUNNABLE_STATES,
    EvalRun,
    RunBudget,
    RunState,
    describe_waits,
    manual_order_seed,
)
from harness.proposals import evaluation
from harness.proposals.context import ProposalsContext
from harness.providers.records import Targets
from harness.providers.registry import named_models
from harness.routing.control import data_class_checks
from harness.routing.proposal import (
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
)
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns, Suites

# If more runs wait, the queue omits the oldest until it is shorter.
MAX_WAITING: Final = 10_000


@dataclass(frozen=True)
class QueuedRun:
    """A run that has not ended, with its place in the queue and the reason of its wait.

    A run with a position is ready for a worker. For a run without a position, `leased`,
    `unpaid` or `away` gives the reason.
    """

    run: EvalRun
    needed_by: Sequence[str] = ()  # open proposals that wait for it, by id
    leased: bool = False  # a worker processes it
    unpaid: str = ""  # why the monthly cap blocks its calls now
    away: str = ""  # the unavailable provider that it waits for, as text
    position: int = 0  # among waiting runs, from 1; 0 if no worker can take it
    overtaken: bool = False  # newer runs come first, because proposals need them

    @property
    def text(self) -> str:
        """The run's place in the queue or the reason of its wait, as a phrase for people."""
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


def list_needed_runs(proposals: Iterable[Proposal]) -> frozenset[str]:
    """Returns the ids of the runs for which the given proposals wait.

    Only a proposal in its evals needs runs: not during the pause after InfraError, and not
    while it waits for the verdicts of its selection.
    """
    return frozenset(
        run
        for proposal in proposals
        if proposal.phase is ProposalPhase.EVALUATING
        and proposal.retry_at is None
        and not proposal.waits_for_rivals
        for run in evaluation.list_run_ids(proposal)
    )


def load_queue(ctx: ProposalsContext) -> Mapping[str, QueuedRun]:
    """Loads the queue as it is now, by run id."""
    with ctx.store.read() as tx:
        return {queued.run.id: queued for queued in list_queue(tx, ctx.clock.now())}


def list_queue(tx: Transaction, now: datetime) -> Sequence[QueuedRun]:
    """Lists the runs that have not ended: first the waiting runs, in the order in which workers
    take them, then runs on hold and runs that a worker processes.

    Runs that a proposal needs precede all others, because a person waits for its verdict.
    Within both groups the oldest comes first.
    """
    runs = EvalRuns(tx).list(states=RUNNABLE_STATES, limit=MAX_WAITING)
    proposals = Proposals(tx).open()
    needed = {
        run: tuple(proposal.id for proposal in proposals if run in list_needed_runs([proposal]))
        for run in list_needed_runs(proposals)
    }
    unpaid = _find_unpaid_runs(tx, runs, now)
    away_runs = {run.id for run in runs if run.is_waiting(now)}
    not_ready = {run.id for run in runs if run.is_leased(now)} | unpaid.keys() | away_runs
    waiting = [run for run in reversed(runs) if run.id not in not_ready]
    needed_first = [run for run in waiting if run.id in needed]
    others = [run for run in waiting if run.id not in needed]
    queue = [
        QueuedRun(
            run,
            needed.get(run.id, ()),
            away=describe_waits([run], now),
            position=place,
            overtaken=run.id not in needed
            and any(earlier.created_at > run.created_at for earlier in needed_first),
        )
        for place, run in enumerate((*needed_first, *others), start=1)
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
        if run.id in not_ready
    ]


def _find_unpaid_runs(
    tx: Transaction,
    runs: Iterable[EvalRun],
    now: datetime,
) -> Mapping[str, str]:
    """Maps each run that the monthly cap blocks to the reason. Empty without a cap."""
    month = Spending(tx).month(month_of(now))
    if month.cap_usd is None:
        return {}
    judges = {suite.digest: suite.judge for suite in Suites(tx).all()}
    obstacles = {
        run.id: spending.find_money_obstacle(tx, month, run, judges.get(run.suite_digest, ""))
        for run in runs
    }
    return {run: text for run, text in obstacles.items() if text}


MAX_FAILURES = 5

# If a signal killed the worker, the run is rarely the cause, so it may fail more often.
MAX_KILLS = 20

NO_BUDGET = RunBudget()

# The exit code of a worker that SIGTERM stops before it can handle signals.
TERMINATED_EARLY = -signal.SIGTERM


def run_once(ctx: ProposalsContext) -> list[str]:
    """Collects ended workers and starts needed workers. Returns log lines.

    Starts at most `ctx.eval_workers` at one time, in the order of `list_queue`. Does nothing in
    a process without workers.
    """
    if ctx.workers is None:
        return []
    lines = collect_ended(ctx)
    alive = ctx.workers.alive()
    free = ctx.eval_workers - len(alive)
    for run in _list_waiting_runs(ctx):
        if free <= 0:
            break
        if run.id in alive:
            continue
        failure = start_worker(ctx, run.id)
        lines.append(failure or f"{run.id}: worker started for {run.suite}")
        free -= 1
    return lines


def start_worker(ctx: ProposalsContext, run: str) -> str:
    """Starts a run's worker; returns why it did not start, which counts as a failure.

    Raises StoreUnavailable. Any other error counts as a failure of this run, so that it does
    not stop the other runs.
    """
    assert ctx.workers is not None  # noqa: S101 - only processes with workers start them
    try:
        with ctx.store.read() as tx:
            eval_run = EvalRuns(tx).get(run)
        check_data_class(ctx, eval_run)
        ctx.workers.start(run)
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - for example no free process, or an unknown provider
        with ctx.store.write() as tx:
            return fail_run(tx, run, f"no worker could be started: {error}")
    return ""


def check_data_class(ctx: ProposalsContext, run: EvalRun) -> None:
    """Checks the data class now, even if it was allowed before. Raises as `check_suite`.

    A provider may lose the permission for a class while a run waits.
    """
    with ctx.store.read() as tx:
        targets = Targets(tx).all()
    receivers = [targets[run.target]]
    if answers_of := ctx.suites.answers_of(run.suite):
        # The judge and the incumbent get the contents of a suite of traffic, too.
        receivers += [target for target in targets.values() if target.name == answers_of]
        receivers.append(ctx.judges[run.suite])
    data_class_checks.check_suite(ctx, run.suite, receivers)


def _list_waiting_runs(ctx: ProposalsContext) -> Sequence[EvalRun]:
    with ctx.store.read() as tx:
        queue = list_queue(tx, ctx.clock.now())
    return [queued.run for queued in queue if queued.position]


def collect_ended(ctx: ProposalsContext) -> list[str]:
    """Releases the leases of this process's ended workers, and counts their failures.

    An end with code 0 is no failure. The end of a worker without its run's lease is a failure
    only if the worker died before it took the run. Returns log lines.
    """
    assert ctx.workers is not None  # noqa: S101 - run_once has looked
    lines = []
    for run, owner, code, message in ctx.workers.reap():
        with ctx.store.write() as tx:
            had_run = run in EvalRuns(tx).release(owner)
            if code == 0 or not (had_run or _has_died_early(ctx, tx, run, code)):
                continue
            max_failures = MAX_KILLS if code < 0 else MAX_FAILURES
            reason = f"the worker ended with {code}: {message}"
            lines.append(fail_run(tx, run, reason, max_failures=max_failures))
    return lines


def _has_died_early(
    ctx: ProposalsContext,
    tx: Transaction,
    run: str,
    code: int,
) -> bool:
    """Tells whether the worker ended before it took its run, and the run still waits."""
    eval_run = EvalRuns(tx).get(run)
    is_waiting = eval_run.state in RUNNABLE_STATES and not eval_run.is_leased(ctx.clock.now())
    return is_waiting and code != TERMINATED_EARLY


def fail_run(
    tx: Transaction,
    run: str,
    reason: str,
    *,
    max_failures: int = MAX_FAILURES,
) -> str:
    """Counts a failure, and queues the run again unless it has failed too often.

    Args:
        max_failures: number of failures after which the run stays failed.

    Returns a log line.
    """
    EvalRuns(tx).set_state(run, RunState.FAILED, reason)
    failures = EvalRuns(tx).get(run).failures
    if failures < max_failures:
        EvalRuns(tx).set_state(run, RunState.QUEUED, reason)
    return f"{run}: {reason}, attempt {failures}"


def stop_unneeded_runs(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> None:
    """Stops the runs of a decided proposal that no other open proposal needs.

    Call it after the transaction's first write (a verdict or a proposal), so that no other
    process can change the needed runs meanwhile.
    """
    others = [other for other in Proposals(tx).open() if other.id != proposal.id]
    reason = (
        "the gate had decided and needed no more answers"
        if proposal.verdict
        else "its proposal had ended"
    )
    for run in sorted(evaluation.list_run_ids(proposal) - list_needed_runs(others)):
        if EvalRuns(tx).get(run).state in RUNNABLE_STATES:
            EvalRuns(tx).set_state(run, RunState.STOPPED, reason)
            if ctx.workers is not None:
                ctx.workers.stop(run)


def cancel_run(
    ctx: ProposalsContext,
    actor: Actor,
    run: str,
    reason: str,
) -> EvalRun:
    """Cancel a run that has not ended, and the open proposals that wait for it.

    Raises NotFound, InputError without a reason, IllegalTransition for an ended run, and
    NotAllowed for a drift watch's run, or if another person's proposal waits for the run,
    unless the actor is an approver.
    """
    actor.require(Role.PROPOSER)
    cause = f"cancelled by {actor.name}: {require_reason(reason, 'to cancel a run')}"
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        if EvalRuns(tx).get(run).state not in RUNNABLE_STATES:
            raise IllegalTransition(f"the run {run} has ended already: nothing to cancel")
        if Drift(tx).is_checking(run):
            # A proposer could otherwise choose among the incumbent's days.
            actor.require(Role.APPROVER)
        for proposal in Proposals(tx).open():
            if run in list_needed_runs([proposal]):
                if proposal.proposer_principal != actor.principal:
                    actor.require(Role.APPROVER)
                proposal_reason = f"its run {run} was {cause}"
                saved = Proposals(tx).save(
                    apply_event(proposal, ProposalEvent.CANCELLED, now, proposal_reason)
                )
                stop_unneeded_runs(ctx, tx, saved)
                AuditLog(tx).append(
                    actor,
                    "proposal.cancelled",
                    f"proposal {proposal.id}",
                    {"reason": proposal_reason},
                )
        EvalRuns(tx).set_state(run, RunState.STOPPED, cause)
        AuditLog(tx).append(actor, "eval.cancel", f"run {run}", {"reason": cause})
        ended = EvalRuns(tx).get(run)
    if ctx.workers is not None:
        ctx.workers.stop(run)
    return ended


def has_duplicate(tx: Transaction, run: EvalRun) -> bool:
    """Tells whether a run with this fingerprint and at least as many items has not ended.

    The fingerprint covers suite content, target, item order and epochs.
    """
    return any(
        unfinished.wanted >= run.wanted
        for unfinished in EvalRuns(tx).unfinished(run.fingerprint)
    )


def start_run(
    ctx: ProposalsContext,
    actor: Actor,
    suite: str,
    target: str,
    *,
    items: int | None = None,
    budget: RunBudget = NO_BUDGET,
    note_made: NoteCreated = note_nothing,
) -> EvalRun:
    """Queues an eval run, even if an equal run is queued already.

    Takes the arguments of `queue_run`, and raises the same errors.
    """
    run = queue_run(
        ctx,
        actor,
        suite,
        target,
        items=items,
        budget=budget,
        note_made=note_made,
    )
    assert run is not None  # noqa: S101 - queue_run skips only duplicates of a slot
    return run


def _scheduled_id(
    suite: str,
    target: str,
    slot: str,
) -> str:
    """Builds the id of a scheduled run from suite, target and time.

    Two control processes build the same id, so that they add the run only once.
    """
    return f"run_{short_hash(f'{suite} {target} {slot}').hex()}"


def queue_run(  # noqa: PLR0913 - all parts of a run
    ctx: ProposalsContext,
    actor: Actor,
    suite: str,
    target: str,
    *,
    items: int | None = None,
    budget: RunBudget = NO_BUDGET,
    slot: str = "",
    because: str = "",
    note_made: NoteCreated = note_nothing,
) -> EvalRun | None:
    """Queue one run of a suite on a target, outside any proposal.

    The run has no effect on a route: its item order differs from a proposal's, so no proposal
    shares it. An agent with `auto` starts such runs for targets of its route.

    Args:
        target: an id or a model's name.
        because: shown in the audit log.
        slot: the time of a scheduled run. With a slot, returns None if the slot already has a
            run or an equal run has not ended.

    Raises NotFound for an unknown suite or target.
    """
    actor.require(Role.PROPOSER)
    pin = ctx.suites.pin(suite)
    with ctx.store.write() as tx:
        registered = named_models.register_model(ctx, tx, actor, target)
    target_id = registered.id
    data_class_checks.check_suite(ctx, suite, [registered])
    if items is not None and items < 1:
        raise InputError(f"a run needs at least one item, not {items}")
    for limit in (budget.max_tokens, budget.max_cost_usd):
        if limit is not None and not 0 < limit < math.inf:
            raise InputError(f"a budget must be above 0 and finite, not {limit}")
    now = ctx.clock.now()
    run = EvalRun(
        id=_scheduled_id(suite, target_id, slot) if slot else ctx.chance.token("run_"),
        suite=suite,
        suite_digest=pin.digest,
        target=target_id,
        order_seed=manual_order_seed(pin.digest),
        epochs=1,
        wanted=min(items or pin.items, pin.items),
        state=RunState.QUEUED,
        created_at=now,
        budget=budget,
    )
    with ctx.store.write() as tx:
        if slot and (has_duplicate(tx, run) or not EvalRuns(tx).add_new(run)):
            return None
        note_made(tx, run.id)
        Suites(tx).put(pin, now)
        if not slot:
            EvalRuns(tx).add(run)
        AuditLog(tx).append(
            actor,
            "eval.run",
            f"run {run.id}",
            {
                "suite": suite,
                "target": target_id,
                "items": run.wanted,
                **({"because": because} if because else {}),
            },
        )
    return run
