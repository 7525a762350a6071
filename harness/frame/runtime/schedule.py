"""Runs jobs at intervals on background threads, with APScheduler. A restart forgets all earlier
runs; `harness.operations.cron_jobs` has jobs with a stored time.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    JobExecutionEvent,
)
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from harness.frame.ports import Clock

CLOCK_SETBACK_S = 0.5


@dataclass(frozen=True)
class ScheduledJob:
    """A job, and the seconds between its runs."""

    name: str
    run: Callable[[], object]
    every_s: float


class Schedule:
    """Runs jobs on a background thread pool. A job never overlaps itself, and several missed
    runs become one run.

    APScheduler uses the wall clock. If somebody sets that clock back, jobs would pause until
    the clock reaches its old time. So a thread compares both clocks, and plans all jobs again.

    on_error: called with a job's name and error.
    watch_s: seconds between two comparisons of the clocks.
    """

    def __init__(
        self,
        jobs: list[ScheduledJob],
        *,
        clock: Clock,
        on_error: Callable[[str, BaseException], None],
        watch_s: float = 1.0,
    ) -> None:
        # Missed runs become one run, so a skipped run is not worth a warning each time.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={
                "coalesce": True,
                "max_instances": 1,
                "misfire_grace_time": None,
            },
        )
        self._jobs = jobs
        self._clock = clock
        self._watch_s = watch_s
        self._on_error = on_error
        # Maps a job to the monotonic time of its last success.
        self._succeeded_at: dict[str, float] = {}
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._compare_clocks, daemon=True)
        self._scheduler.add_listener(self._report_failure, EVENT_JOB_ERROR)
        self._scheduler.add_listener(self._note_success, EVENT_JOB_EXECUTED)
        for job in jobs:
            self._scheduler.add_job(
                job.run,
                trigger=_build_trigger(job),
                id=job.name,
                name=job.name,
            )

    def _report_failure(self, event: JobExecutionEvent) -> None:
        self._on_error(event.job_id, event.exception)

    def _note_success(self, event: JobExecutionEvent) -> None:
        self._succeeded_at[event.job_id] = self._clock.monotonic()

    def age_s(self, job: str) -> float | None:
        """Returns the seconds since the job's last success, or since the start; None before the
        start.
        """
        ended_at = self._succeeded_at.get(job)
        return None if ended_at is None else self._clock.monotonic() - ended_at

    def start(self) -> None:
        self._succeeded_at = dict.fromkeys(
            (job.name for job in self._jobs), self._clock.monotonic()
        )
        self._scheduler.start()
        self._watch.start()

    def stop(self) -> None:
        """Waits until the running jobs end."""
        self._ending.set()
        self._scheduler.shutdown(wait=True)
        self._watch.join()

    def _compare_clocks(self) -> None:
        former_lead = self._lead()
        while not self._ending.wait(self._watch_s):
            now = self._lead()
            if now < former_lead - CLOCK_SETBACK_S:
                self._plan_again()
            former_lead = now

    def _lead(self) -> float:
        """Returns the seconds by which the wall clock is ahead of the monotonic clock."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _plan_again(self) -> None:
        for job in self._jobs:
            self._scheduler.reschedule_job(job.name, trigger=_build_trigger(job))


def _build_trigger(job: ScheduledJob) -> IntervalTrigger:
    return IntervalTrigger(seconds=job.every_s, timezone="UTC")
