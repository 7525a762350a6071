"""The control process's periodic jobs; `harness.app.control_schedule` sets their times."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import StoreUnavailable
from harness.frame.idempotency import KEEP as IDEMPOTENT_REQUESTS_KEPT
from harness.frame.idempotency import IdempotentRequests
from harness.frame.people.access import SYSTEM
from harness.frame.people.records import DashboardSessions
from harness.gate.run import EvalRun
from harness.operations.records import Captures
from harness.proposals.evaluation import eval_queue
from harness.registry import credentials
from harness.routing.context import Context
from harness.routing.records.observations import Failovers, Observations
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns

# Changes that depend only on time are noticed up to this much later.
REST_S: Final = 5.0


class RestingJob:
    """Skips a job after a run that found no work (it returned True), until the next commit to
    the database, but for at most REST_S.
    """

    def __init__(self, job: Callable[[Context], bool]) -> None:
        self._job = job
        self._mark = ""  # the database's mark before the last run; empty if it must run
        self._again_at = 0.0  # monotonic seconds

    def __call__(self, ctx: Context) -> None:
        now, mark = ctx.clock.monotonic(), ctx.store.change_mark()
        if mark == self._mark and now < self._again_at:
            return
        self._mark = ""
        if self._job(ctx):
            self._mark, self._again_at = mark, now + REST_S


class MonitoredJob:
    """Runs a job if this process leads, with an alert while it fails. Raises its errors."""

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
        with ctx.store.write() as tx:
            alerts.raise_alert(
                tx,
                AlertKind.JOB_FAILED,
                self._name,
                subject=f"job {self._name}",
                title=f"the control process's job {self._name!r} failed",
                text=f"{type(error).__name__}: {error}",
            )


# Prefix of the jobs that evaluate incumbents by a suite's cron; the suite's name follows.
SUITE_JOB: Final = "evals of "


def end_alerts_of_removed_jobs(ctx: Context, suites: Collection[str]) -> None:
    """Ends alerts of removed scheduled evals. suites: the suites with scheduled evals."""
    known = {f"{SUITE_JOB}{suite}" for suite in suites}
    for kind, job in sorted(alerts.list_open(ctx, AlertKind.JOB_FAILED)):
        if job.startswith(SUITE_JOB) and job not in known:
            with ctx.store.write() as tx:
                alerts.resolve_alert(tx, kind, job)


# Longer than a session lasts; the audit log records each session for ever.
SIGN_INS_KEPT = timedelta(days=30)
# Longer than a router keeps its spool.
BATCHES_KEPT = timedelta(days=90)
_RUNS_AT_A_TIME = 10


def purge_expired(
    ctx: Context, *, alerts_days: float, failovers_days: float, traffic_days: float
) -> None:
    """Deletes rows above these ages, and expired captures and keys."""
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        Alerts(tx).forget(now - timedelta(days=alerts_days))
        Failovers(tx).forget(now - timedelta(days=failovers_days))
        Observations(tx).forget_traffic(now - timedelta(days=traffic_days))
        DashboardSessions(tx).forget(now - SIGN_INS_KEPT)
        IdempotentRequests(tx).forget(now - IDEMPOTENT_REQUESTS_KEPT)
        expired = Captures(tx).forget(now)
        live = (*Rollouts(tx).live(), *Rollouts(tx).baking())
        Observations(tx).forget_keys({rollout.id for rollout in live})
        Observations(tx).forget_batches_before(now - BATCHES_KEPT)
    if expired:
        ctx.store.drop_deleted()
    credentials.expire_credentials(ctx)


def blank_old_texts(ctx: Context, keep: Mapping[str, timedelta]) -> int:
    """Blanks prompts and answers, not scores, and counts the runs. keep: suite to its age."""
    count = 0
    for suite, time in keep.items():
        before = ctx.clock.now() - time
        while True:
            with ctx.store.write() as tx:
                blanked = EvalRuns(tx).blank_texts(suite, before, limit=_RUNS_AT_A_TIME)
            count += blanked
            if blanked < _RUNS_AT_A_TIME:
                break
    if count:
        ctx.store.drop_deleted()
    return count


def evaluate_incumbents(ctx: Context, *, suite: str) -> list[EvalRun]:
    """Queues a run on each incumbent of the suite's routes, unless it has one already."""
    slot = f"{ctx.clock.now():%Y-%m-%dT%H:%MZ}"
    with ctx.store.read() as tx:
        routes = Routing(tx).table().routes.values()
    targets = {
        route.incumbent
        for route in routes
        if any(run.suite == suite for run in route.settings.suites)
    }
    queued = (
        eval_queue.queue_run(ctx, SYSTEM, suite, target, slot=slot)
        for target in sorted(targets)
    )
    return [run for run in queued if run is not None]
