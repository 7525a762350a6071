import datetime as dt
import threading
import time
from dataclasses import replace

import pytest

from harness.domain.errors import ConfigError
from harness.runtime.schedule import Schedule, ScheduledJob

PATIENCE_S = 30.0
LONG_S = 100 * PATIENCE_S


class SettableClock:
    """The machine's clock, as far as this process sees it, with somebody's hand on it."""

    def __init__(self) -> None:
        self.set_by = dt.timedelta()
        self.slept_s = 0.0

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.set_by  # noqa: TID251 - set by hand here

    def monotonic(self) -> float:
        return time.monotonic() + self.slept_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    clock = SettableClock()

    class SetDatetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "SetDatetime":
            now = clock.now().astimezone(tz)
            return cls.combine(now.date(), now.timetz())

    for place in ("schedulers.base", "triggers.interval"):
        monkeypatch.setattr(f"apscheduler.{place}.datetime", SetDatetime)
    return clock


def failed(job: str, error: BaseException) -> None:
    raise AssertionError(f"{job} failed: {error}")


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_the_loop_turns_on_when_the_clock_is_set(clock: SettableClock, jump_s: float) -> None:
    ran = threading.Semaphore(0)
    job = ScheduledJob("loop", ran.release, every_s=0.05)
    schedule = Schedule([job], clock=clock, on_error=failed, watch_s=0.05)
    schedule.start()
    try:
        assert ran.acquire(timeout=PATIENCE_S)
        clock.set_by = dt.timedelta(seconds=jump_s)
        clock.slept_s = LONG_S
        # More than could have been under way when the clock was set.
        assert all(ran.acquire(timeout=PATIENCE_S) for _ in range(20))
        age_s = schedule.age_s("loop")
        assert age_s is not None
        assert age_s < LONG_S
    finally:
        schedule.stop()


def test_a_job_that_fails_is_told_and_runs_again_and_its_age_grows(
    clock: SettableClock,
) -> None:
    semaphore = threading.Semaphore(0)

    def fails() -> None:
        raise OSError("no")

    schedule = Schedule(
        [ScheduledJob("loop", fails, every_s=0.05)],
        clock=clock,
        on_error=lambda _job, _error: semaphore.release(),
    )
    schedule.start()
    try:
        assert all(semaphore.acquire(timeout=PATIENCE_S) for _ in range(3))
        clock.slept_s = LONG_S
        assert all(semaphore.acquire(timeout=PATIENCE_S) for _ in range(2))
        age_s = schedule.age_s("loop")
        assert age_s is not None
        assert age_s >= LONG_S
    finally:
        schedule.stop()


def test_a_wrong_cron_expression_is_refused(clock: SettableClock) -> None:
    def nothing() -> None: ...

    job = ScheduledJob("nightly", nothing, cron="0 3 * * *")
    with pytest.raises(ConfigError, match="every tuesday"):
        Schedule([replace(job, cron="every tuesday")], clock=clock, on_error=failed)
