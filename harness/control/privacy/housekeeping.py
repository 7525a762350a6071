"""Holds the control process's periodic jobs: deletion of old alerts and failovers and of
expired captures and keys, and evals of incumbents by schedule. `MonitoredJob` wraps a job: when
it fails, it raises an alert until it has gone well again; `RestingJob` leaves runs out while
nothing can have changed. `harness.app.control_schedule` says when each runs.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.control.operations import alerts
from harness.control.providers import credentials
from harness.domain.errors import StoreUnavailable
from harness.domain.evals.run import EvalRun
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.idempotent_request import KEEP as IDEMPOTENT_REQUESTS_KEPT

# What time alone brings about is noticed that much later.
REST_S: Final = 5.0


class RestingJob:
    """Leaves out the runs of a job after one that found nothing to do, until anything was
    committed to the database, by whomever, and for REST_S at most.

    job: returns whether it found nothing to do.
    """

    def __init__(self, job: Callable[[Context], bool]) -> None:
        self._job = job
        self._mark = ""  # of the database, before the last run; empty while there is no rest
        self._again_at = 0.0  # by the monotonic clock

    def __call__(self, ctx: Context) -> None:
        now, mark = ctx.clock.monotonic(), ctx.store.change_mark()
        if mark == self._mark and now < self._again_at:
            return
        self._mark = ""
        if self._job(ctx):
            self._mark, self._again_at = mark, now + REST_S


class MonitoredJob:
    """Runs a job where this process leads, with an alert under the job's name while it fails.
    Calling it raises what the job raises.
    """

    def __init__(
        self,
        name: str,
        job: Callable[[Context], object],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self._job = job
        self._leads = leads
        # A process before this one may have left its alert open.
        self._is_well = False

    def __call__(self, ctx: Context) -> None:
        if not self._leads():
            self._is_well = False
            return
        try:
            self._job(ctx)
        except Exception as error:
            self._is_well = False
            # Without a database there is nowhere to write it; the log has it. A process that
            # was stopped meanwhile leaves the job to the process that leads now.
            with suppress(StoreUnavailable):
                if self._leads():
                    self._raise_alert(ctx, error)
            raise
        if not self._is_well:
            with ctx.store.write() as tx:
                alerts.resolve_alert(ctx, tx, AlertKind.JOB_FAILED, self._name)
            self._is_well = True

    def _raise_alert(self, ctx: Context, error: Exception) -> None:
        with ctx.store.write() as tx:
            alerts.raise_alert(
                ctx,
                tx,
                AlertKind.JOB_FAILED,
                self._name,
                subject=f"job {self._name}",
                title=f"the control process's job {self._name!r} failed",
                text=f"{type(error).__name__}: {error}",
            )


# Before the name of the suite whose incumbents a job evaluates by the configuration's cron.
SUITE_JOB: Final = "evals of "


def end_alerts_of_removed_jobs(ctx: Context, suites: Collection[str]) -> None:
    """Ends the alerts about scheduled evals that the configuration has no more: they run no
    more, so that no run without an error ends them. suites: whose evals are scheduled.
    """
    known = {f"{AlertKind.JOB_FAILED.value}:{SUITE_JOB}{suite}" for suite in suites}
    begin = f"{AlertKind.JOB_FAILED.value}:{SUITE_JOB}"
    with ctx.store.read() as tx:
        removed = [
            record.key
            for record in tx.alerts.unsettled()
            if record.open and record.key.startswith(begin) and record.key not in known
        ]
    for key in removed:
        with ctx.store.write() as tx:
            alerts.resolve_alert(ctx, tx, AlertKind.JOB_FAILED, key.partition(":")[2])


# Longer than any session lasts; that there was one is in the audit log.
SIGN_INS_KEPT = timedelta(days=30)
# Longer than a spool lies on a router's disk.
BATCHES_KEPT = timedelta(days=90)
_RUNS_AT_A_TIME = 10


def purge_expired(
    ctx: Context, *, alerts_days: float, failovers_days: float, traffic_days: float
) -> None:
    """Delete alerts that ended, failovers and traffic at these ages, and captured requests at
    their own end. Keys of providers that expired are taken away, and what canaries that have
    ended knew of their callers' keys.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        tx.alerts.forget(now - timedelta(days=alerts_days))
        tx.failovers.forget(now - timedelta(days=failovers_days))
        tx.observations.forget_traffic(now - timedelta(days=traffic_days))
        tx.dashboard_sessions.forget(now - SIGN_INS_KEPT)
        tx.idempotent_requests.forget(now - IDEMPOTENT_REQUESTS_KEPT)
        expired = tx.captures.forget(now)
        live = (*tx.rollouts.live(), *tx.rollouts.baking())
        tx.observations.forget_keys({rollout.id for rollout in live})
        tx.observations.forget_batches_before(now - BATCHES_KEPT)
    if expired:
        ctx.store.drop_deleted()
    credentials.expire_credentials(ctx)


def blank_old_texts(ctx: Context, keep: Mapping[str, timedelta]) -> int:
    """Blank questions and answers of runs that are older than their suite keeps them; of how
    many runs. What was measured stays, and holds. keep: by suite.
    """
    count = 0
    for suite, time in keep.items():
        before = ctx.clock.now() - time
        while True:
            with ctx.store.write() as tx:
                blanked = tx.runs.blank_texts(suite, before, limit=_RUNS_AT_A_TIME)
            count += blanked
            if blanked < _RUNS_AT_A_TIME:
                break
    if count:
        ctx.store.drop_deleted()
    return count


def evaluate_incumbents(ctx: Context, *, suite: str) -> list[EvalRun]:
    """Queue a run of the suite on each incumbent of the routes that use it, once for each
    minute, whichever control processes ask for it; and not where one is queued or running.
    """
    slot = f"{ctx.clock.now():%Y-%m-%dT%H:%MZ}"
    with ctx.store.read() as tx:
        routes = tx.routing.table().routes.values()
    targets = {
        route.incumbent
        for route in routes
        if any(run.suite == suite for run in route.settings.suites)
    }
    queued = (
        worker_supervision.queue_run(ctx, SYSTEM, suite, target, slot=slot)
        for target in sorted(targets)
    )
    return [run for run in queued if run is not None]
