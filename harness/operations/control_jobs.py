"""The control process's periodic jobs; `harness.app.control_schedule` sets their times.

The reconcile loop drives open proposals, bakes and eval workers. Its state is in the store.
With `control.queue: procrastinate` it fills the job queue. Proposals take turns: the proposal
with the fewest running runs comes next. A run whose host died is queued again.

A job does not decide about swaps: it calls `harness.canary` and `harness.proposals`. A failed
step does not stop the other steps.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from harness.canary import operations, shadows
from harness.canary.operations import ProposalCanaries
from harness.evals import spending
from harness.evals.ports import QueuedJob, RunQueue
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import StoreUnavailable, SwapproofError
from harness.frame.idempotency import KEEP as IDEMPOTENT_REQUESTS_KEPT
from harness.frame.idempotency import IdempotentRequests
from harness.frame.people.access import SYSTEM
from harness.frame.people.records import DashboardSessions
from harness.gate.online.rollout import name_first_callers
from harness.gate.run import RUNNABLE_STATES, EvalRun
from harness.operations import deleted_pairs, integrity
from harness.operations.context import Context
from harness.operations.records import Captures, JobTimes
from harness.proposals import break_glass, eval_queue
from harness.proposals.driver import drive_proposal
from harness.proposals.eval_queue import QueuedRun, list_queue
from harness.providers.records import Targets
from harness.providers.registry import credentials
from harness.routing.records.exposures import Exposures
from harness.routing.records.failovers import Failovers
from harness.routing.records.interventions import BreakGlasses, Shadows
from harness.routing.records.kept_pieces import KeptPieces
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.router_reports import RouterReports
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns

log = structlog.get_logger("swapproof.reconcile")


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The log lines of one turn: its actions and its failures."""

    did: tuple[str, ...]
    failed: tuple[str, ...]
    is_idle: bool = False  # there was no work


def reconcile(ctx: Context) -> ReconcileResult:
    """Runs one turn over every open proposal, bake and worker. Does nothing on a restored
    database until a person has accepted it. Raises StoreUnavailable.
    """
    did: list[str] = []
    failed: list[str] = []

    def run_step(name: str, step: Callable[[], list[str]]) -> None:
        try:
            did.extend(step())
        except SwapproofError as error:
            # Retryable errors, such as conflicts with another writer, end this turn. The next
            # turn decides again.
            if error.retryable:
                raise
            failed.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - a failed step must not stop the rest
            failed.append(f"{name}: {type(error).__name__}: {error}")

    # Comes first, because its alert must open before a broken log stops the next steps.
    run_step("the audit log", partial(integrity.check_audit_log, ctx))
    try:
        with ctx.store.read() as tx:
            if integrity.is_unaccepted(tx):
                reason = "this database was restored from a backup, which a person must accept"
                return ReconcileResult((), (f"nothing advances: {reason}",))
    except Exception as error:
        if isinstance(error, SwapproofError) and error.retryable:
            raise
        # An unreadable alert must not keep a canary from ending.
        failed.append(f"the alert of a restored database cannot be read: {error}")
    run_step("the monthly cap", partial(spending.run_once, ctx))
    # Before the proposals, because a break-glass changes the base of its route's proposal.
    run_step("break-glass", partial(break_glass.run_once, ctx))
    with ctx.store.read() as tx:
        proposals = Proposals(tx).open()
    for proposal in proposals:
        run_step(proposal.id, partial(drive_proposal, ctx, ProposalCanaries(), proposal))
    # After the proposals, because a promotion of this turn starts a bake.
    with ctx.store.read() as tx:
        baking = Rollouts(tx).baking()
    for rollout in baking:
        run_step(rollout.proposal, partial(operations.drive, ctx, rollout))
    did.extend(
        eval_queue.run_once(ctx) if ctx.run_queue is None else share_queue(ctx, ctx.run_queue)
    )
    did.extend(shadows.end_finished(ctx))
    is_idle = not (did or failed or proposals or baking or _is_busy(ctx))
    return ReconcileResult(tuple(did), tuple(failed), is_idle)


def _is_busy(ctx: Context) -> bool:
    """Tells whether work may continue without a commit, so that the loop must not rest."""
    if not ctx.audit_reading.is_whole or (ctx.workers is not None and ctx.workers.alive()):
        return True
    with ctx.store.read() as tx:
        runs = EvalRuns(tx).list(states=RUNNABLE_STATES, limit=1)
        return bool(runs or Shadows(tx).live() or BreakGlasses(tx).open())


def run_once(ctx: Context) -> ReconcileResult:
    """Runs one turn, and logs it. Raises as `reconcile`."""
    turn = reconcile(ctx)
    for line in turn.did:
        log.info("reconciled", did=line)
    for line in turn.failed:
        log.warning("reconcile_failed", reason=line)
    return turn


# The greatest number of runs of one provider in the job queue. A provider without a worker host
# must not fill the queue, and each new place in the queue writes a row.
QUEUED_PER_PROVIDER: Final = 100


def share_queue(ctx: Context, queue: RunQueue) -> list[str]:
    """Fills the job queue with runs in fair order. Returns log lines.

    At most QUEUED_PER_PROVIDER runs of each provider wait in it. A run whose target may not see
    its data fails instead of waiting.
    """
    did = [_release_lost_run(ctx, run) for run in queue.remove_dead_jobs()]
    with ctx.store.read() as tx:
        waiting = fair_order(list_queue(tx, ctx.clock.now()))
        targets = Targets(tx).all()
    queued_runs: Counter[str] = Counter()
    jobs: list[QueuedJob] = []
    for run in waiting:
        target = targets.get(run.target)
        provider = target.provider if target is not None else ""
        queued_runs[provider] += 1
        if queued_runs[provider] > QUEUED_PER_PROVIDER:
            continue
        refusal = _refuse_run(ctx, run)
        if refusal:
            did.append(refusal)
            continue
        jobs.append(QueuedJob(run.id, provider, priority=-len(jobs)))
    return did + [f"{run}: queued for the workers" for run in queue.replace(jobs)]


def fair_order(queue: Sequence[QueuedRun]) -> list[EvalRun]:
    """Orders the waiting runs: proposals take turns, then runs without a proposal.

    The next turn goes to the proposal with the fewest runs at work and already placed, so a
    large proposal does not delay a small one. Between equal counts, the position in the queue
    decides.
    """
    at_work = Counter(_find_proposal(queued) for queued in queue if queued.leased)
    waiting_by_proposal: dict[str, deque[QueuedRun]] = defaultdict(deque)
    without_proposal = []
    for queued in queue:
        if queued.position and queued.needed_by:
            waiting_by_proposal[_find_proposal(queued)].append(queued)
        elif queued.position:
            without_proposal.append(queued.run)
    next_turns = [
        (at_work[proposal], waiting[0].position, proposal)
        for proposal, waiting in waiting_by_proposal.items()
    ]
    heapq.heapify(next_turns)
    ordered = []
    while next_turns:
        count, _, proposal = heapq.heappop(next_turns)
        ordered.append(waiting_by_proposal[proposal].popleft().run)
        if waiting_by_proposal[proposal]:
            heapq.heappush(
                next_turns, (count + 1, waiting_by_proposal[proposal][0].position, proposal)
            )
    return ordered + without_proposal


def _find_proposal(queued: QueuedRun) -> str:
    return queued.needed_by[0] if queued.needed_by else ""


def _refuse_run(ctx: Context, run: EvalRun) -> str:
    """Fails a run whose target may not see its suite's data. Returns a log line; empty if the
    run may start.
    """
    try:
        eval_queue.check_data_class(ctx, run)
    except StoreUnavailable:
        raise
    except SwapproofError as error:
        with ctx.store.write() as tx:
            return eval_queue.fail_run(tx, run.id, f"no worker may take it: {error}")
    return ""


def _release_lost_run(ctx: Context, run: str) -> str:
    """Releases the run's lease, so that a disconnected host stores no more samples."""
    with ctx.store.write() as tx:
        owner = EvalRuns(tx).get(run).lease_owner
        if not owner or run not in EvalRuns(tx).release(owner):
            return f"{run}: its worker host is gone"
        reason = "its worker host is gone: no heartbeat"
        return eval_queue.fail_run(tx, run, reason, max_failures=eval_queue.MAX_KILLS)


# A resting job may notice a deadline late, by at most this time.
REST_S: Final = 5.0


class RestingJob:
    """Skips a job after it has returned True, which means that it found no work. The job runs
    again after the next commit to the database, or after REST_S.
    """

    def __init__(self, job: Callable[[Context], bool]) -> None:
        self._job = job
        self._mark = ""  # the database's change mark at the last run; empty if the job must run
        self._next_run_at = 0.0  # monotonic seconds

    def __call__(self, ctx: Context) -> None:
        now = ctx.clock.monotonic()
        mark = ctx.store.change_mark()
        if mark == self._mark and now < self._next_run_at:
            return
        self._mark = ""
        if self._job(ctx):
            self._mark = mark
            self._next_run_at = now + REST_S


class MonitoredJob:
    """Runs a job if this process leads. Opens an alert if it fails, and raises its error."""

    def __init__(
        self,
        name: str,
        job: Callable[[Context], object],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self._job = job
        self._leads = leads
        # An earlier process may have left its alert open.
        self._is_well = False

    def __call__(self, ctx: Context) -> None:
        if not self._leads():
            self._is_well = False
            return
        try:
            self._job(ctx)
        except Exception as error:
            self._is_well = False
            # Without a database, only the log has the error. A process that was stopped
            # meanwhile leaves the alert to the process that leads now.
            with suppress(StoreUnavailable):
                if self._leads():
                    self._raise_alert(ctx, error)
            raise
        if not self._is_well:
            with ctx.store.write() as tx:
                alerts.resolve_alert(tx, AlertKind.JOB_FAILED, self._name)
            self._is_well = True

    def _raise_alert(self, ctx: Context, error: Exception) -> None:
        """Opens the alert with the error's class and text."""
        with ctx.store.write() as tx:
            alerts.raise_alert(
                tx,
                AlertKind.JOB_FAILED,
                self._name,
                subject=f"job {self._name}",
                title=f"the control process's job {self._name!r} failed",
                text=f"{type(error).__name__}: {error}",
            )


# The names of jobs that evaluate incumbents on a suite's schedule: this prefix and the suite.
SUITE_JOB: Final = "evals of "


def forget_removed_jobs(ctx: Context, suites: Collection[str]) -> None:
    """Deletes the times, and ends the alerts, of removed scheduled evals.

    Args:
        suites: the suites with scheduled evals.
    """
    scheduled_jobs = {f"{SUITE_JOB}{suite}" for suite in suites}
    with ctx.store.read() as tx:
        removed = [time.job for time in JobTimes(tx).all() if time.job not in scheduled_jobs]
    for job in removed:
        with ctx.store.write() as tx:
            JobTimes(tx).forget(job)
    for kind, job in sorted(alerts.list_open(ctx, AlertKind.JOB_FAILED)):
        if job.startswith(SUITE_JOB) and job not in scheduled_jobs:
            with ctx.store.write() as tx:
                alerts.resolve_alert(tx, kind, job)


# Longer than a session lasts; the audit log records each session for ever.
SIGN_INS_KEPT_FOR = timedelta(days=30)
# Longer than a router keeps its spool and the files of its workers.
SPOOLS_KEPT_FOR = timedelta(days=90)
_RUNS_PER_WRITE = 10


def purge_expired(
    ctx: Context,
    *,
    alerts_days: float,
    exposures_days: float,
    failovers_days: float,
    traffic_days: float,
) -> None:
    """Deletes rows above these ages, and expired captures, kept answers and keys.

    Args:
        exposures_days: since the end of their canary.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        Alerts(tx).forget(now - timedelta(days=alerts_days))
        Failovers(tx).forget(now - timedelta(days=failovers_days))
        Observations(tx).forget_traffic(now - timedelta(days=traffic_days))
        Observations(tx).forget_callers(now - timedelta(days=traffic_days))
        RouterReports(tx).forget_ended(now)
        DashboardSessions(tx).forget(now - SIGN_INS_KEPT_FOR)
        IdempotentRequests(tx).forget(now - IDEMPOTENT_REQUESTS_KEPT)
        expired_captures = Captures(tx).forget(now)
        deleted_pairs.count_deleted(tx, expired_captures)
        expired = len(expired_captures) + KeptPieces(tx).forget(now)
        live = (*Rollouts(tx).live(), *Rollouts(tx).baking())
        ledgers = {rollout.id for rollout in live}
        Observations(tx).forget_keys(ledgers | set(map(name_first_callers, ledgers)))
        Observations(tx).forget_batches_before(now - SPOOLS_KEPT_FOR)
        Exposures(tx).forget_files_before(now - SPOOLS_KEPT_FOR)
    if expired:
        ctx.store.drop_deleted()
    _forget_exposures(ctx, now - timedelta(days=exposures_days))
    credentials.expire_credentials(ctx)


def _forget_exposures(ctx: Context, before: datetime) -> None:
    """Deletes the exposures of canaries that ended before a time, in short transactions."""
    with ctx.store.read() as tx:
        outdated = Exposures(tx).outdated(before)
    for rollout in outdated:
        has_more = True
        while has_more:
            with ctx.store.write() as tx:
                has_more = Exposures(tx).forget(rollout)


def blank_old_texts(ctx: Context, keep: Mapping[str, timedelta]) -> int:
    """Blanks the prompts and answers of old runs, but not their scores. Returns the number of
    runs.

    Args:
        keep: maps a suite to the age from which its texts are blanked.
    """
    count = 0
    for suite, age in keep.items():
        cutoff = ctx.clock.now() - age
        while True:
            with ctx.store.write() as tx:
                blanked = EvalRuns(tx).blank_texts(suite, cutoff, limit=_RUNS_PER_WRITE)
            count += blanked
            if blanked < _RUNS_PER_WRITE:
                break
    if count:
        ctx.store.drop_deleted()
    return count


def evaluate_incumbents(
    ctx: Context, due: datetime, reason: str, *, suite: str
) -> list[EvalRun]:
    """Queues a run on each incumbent of the suite's routes, unless it has one already.

    Args:
        due: the time of the suite's schedule.
        reason: shown in the audit log.
    """
    slot = f"{due:%Y-%m-%dT%H:%MZ}"
    with ctx.store.read() as tx:
        routes = Routing(tx).table().routes.values()
    targets = {
        route.incumbent
        for route in routes
        if any(run.suite == suite for run in route.settings.suites)
    }
    queued = (
        eval_queue.queue_run(ctx, SYSTEM, suite, target, slot=slot, because=reason)
        for target in sorted(targets)
    )
    return [run for run in queued if run is not None]
