"""What runs when: APScheduler turns the loop; all state lives in our tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from harness.domain.errors import ConfigError


@dataclass(frozen=True)
class Job:
    """Either every_s or cron (five fields, UTC)."""

    name: str
    run: Callable[[], object]
    every_s: float | None = None
    cron: str | None = None


class Schedule:
    """Jobs on a background thread pool. A job never overlaps itself; a missed one runs once."""

    def __init__(
        self, jobs: list[Job], *, on_error: Callable[[str, BaseException], None]
    ) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._on_error = on_error
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        for job in jobs:
            self._scheduler.add_job(job.run, trigger=_trigger(job), id=job.name, name=job.name)

    def _failed(self, event: JobExecutionEvent) -> None:
        self._on_error(event.job_id, event.exception)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Waits for the jobs that run now."""
        self._scheduler.shutdown(wait=True)

    def next_runs(self) -> Mapping[str, str]:
        """Job name to the time of its next run, ISO 8601."""
        return {
            job.id: job.next_run_time.isoformat() if job.next_run_time else "never"
            for job in self._scheduler.get_jobs()
        }


def _trigger(job: Job) -> IntervalTrigger | CronTrigger:
    if job.every_s is not None:
        return IntervalTrigger(seconds=job.every_s, timezone="UTC")
    try:
        return CronTrigger.from_crontab(job.cron or "", timezone="UTC")
    except ValueError as error:
        raise ConfigError(
            f"{job.name}: {job.cron!r} is not a cron expression: {error}"
        ) from None
