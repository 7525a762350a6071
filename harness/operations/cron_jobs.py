"""Runs jobs at the times of cron expressions, and makes up for a time that fell into a restart.

The last time of each job is stored. So a process that starts, or that begins to lead, runs a
job once if its newest time passed while no process led. The job's earlier times are lost.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from harness.frame.cron import check_cron, newest_time
from harness.frame.errors import InputError
from harness.operations.context import Context
from harness.operations.control_jobs import MonitoredJob
from harness.operations.records import JobTime, JobTimes

log = structlog.get_logger("swapgate.schedule")

# A job that begins later than this after its time was made up.
LATE: Final = timedelta(minutes=1)
# Runs at a time of its schedule, and gets this time and the cause, which people read.
DueJob = Callable[[Context, datetime, str], object]


class CronJob:
    """Runs a job if this process leads and a time of the expression has come.

    A faulty expression opens the job's alert, and stops only this job.
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
        self._is_fault_told = False

    def __call__(self, ctx: Context) -> None:
        if self._is_fault_told or not self._leads():
            return
        self._due = self._find_due(ctx)
        if self._due is not None or self._is_fault_told:
            self._monitored(ctx)

    def _find_due(self, ctx: Context) -> datetime | None:
        """Returns the newest time if the job has not run for it; None otherwise.

        An expression that is new or changed counts from now.
        """
        now = ctx.clock.now()
        try:
            due = newest_time(self._cron, now)
        except InputError:
            self._is_fault_told = True
            return None
        with ctx.store.read() as tx:
            stored = JobTimes(tx).find(self._name)
        if stored is None or stored.cron != self._cron:
            self._store(ctx, now)
            return None
        return due if due > stored.at else None

    def _run(self, ctx: Context) -> None:
        """Runs the job for its due time. A job that fails waits for its next time."""
        due = self._due
        if due is None:
            check_cron(self._cron)  # raises the fault, for the alert
            return
        late = ctx.clock.now() - due
        because = "schedule"
        if late > LATE:
            because = f"schedule, late: due {due:%Y-%m-%d %H:%M} UTC, when no process ran it"
            log.warning("job_made_up", job=self._name, due=due.isoformat(), late=str(late))
        try:
            self._job(ctx, due, because)
        finally:
            self._store(ctx, due)

    def _store(self, ctx: Context, at: datetime) -> None:
        with ctx.store.write() as tx:
            JobTimes(tx).put(JobTime(self._name, self._cron, at))
