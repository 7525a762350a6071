"""Runs jobs at the times of cron expressions, and runs a job late if a restart missed its time.

The database stores each job's last time. If a job's time passed while no process led, the next
leader runs the job once, for the newest of these times.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from harness.frame.cron import check_cron, latest_time
from harness.frame.errors import InputError
from harness.operations.context import Context
from harness.operations.control_jobs import MonitoredJob
from harness.operations.records import JobTime, JobTimes

log = structlog.get_logger("swapproof.schedule")

# A job that begins later than this after its time counts as late.
LATE_AFTER: Final = timedelta(minutes=1)
# Takes the context, the scheduled time, and the cause of the run as people read it.
DueJob = Callable[[Context, datetime, str], object]


class CronJob:
    """Runs a job if this process leads and the expression's next time has come.

    An invalid expression opens the job's alert, and stops only this job.
    """

    def __init__(
        self,
        name: str,
        job: DueJob,
        cron: str,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self._job = job
        self._cron = cron
        self._leads = leads
        self._monitored = MonitoredJob(name, self._run, leads)
        self._due: datetime | None = None
        self._is_cron_invalid = False

    def __call__(self, ctx: Context) -> None:
        if self._is_cron_invalid or not self._leads():
            return
        self._due = self._find_due(ctx)
        if self._due is not None or self._is_cron_invalid:
            self._monitored(ctx)

    def _find_due(self, ctx: Context) -> datetime | None:
        """Returns the expression's newest time; None if the job has already run for it.

        A new or changed expression has no due time yet: its times count from now.
        """
        now = ctx.clock.now()
        try:
            due = latest_time(self._cron, now)
        except InputError:
            self._is_cron_invalid = True
            return None
        with ctx.store.read() as tx:
            last_time = JobTimes(tx).find(self._name)
        if last_time is None or last_time.cron != self._cron:
            self._store(ctx, now)
            return None
        return due if due > last_time.at else None

    def _run(self, ctx: Context) -> None:
        """Runs the job for its due time. A failed job runs again at its next time."""
        due = self._due
        if due is None:
            check_cron(self._cron)  # raises InputError, which opens the alert
            return
        delay = ctx.clock.now() - due
        cause = "schedule"
        if delay > LATE_AFTER:
            cause = f"schedule, late: due {due:%Y-%m-%d %H:%M} UTC, but no control process ran"
            log.warning("job_made_up", job=self._name, due=due.isoformat(), late=str(delay))
        try:
            self._job(ctx, due, cause)
        finally:
            self._store(ctx, due)

    def _store(self, ctx: Context, at: datetime) -> None:
        with ctx.store.write() as tx:
            JobTimes(tx).put(JobTime(self._name, self._cron, at))
