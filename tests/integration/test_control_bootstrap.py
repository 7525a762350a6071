import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.app import secret_files
from harness.app.configuration.model import Settings
from harness.app.database import upgrade_database
from harness.app.eval_workers.run import open_with_workers
from harness.app.installation import CONFIG_VARIABLE, load_settings
from harness.frame.errors import ConfigError, InputError, NotFound
from harness.frame.people.access import SYSTEM, Role
from harness.frame.runtime.schedule import Schedule, ScheduledJob
from harness.gate.run import RunState
from harness.operations import keys
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.records.runs import EvalRuns
from tests.support.control.control_plane import SmallInstallation
from tests.support.store.records import PLAIN_RUN

PROCESSES = 8


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv(secret_files.SECRET_VARIABLE, raising=False)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return replace(load_settings(), home=tmp_path / "home")


def test_of_processes_that_start_at_once_one_makes_the_secret(settings: Settings) -> None:
    start = threading.Barrier(PROCESSES)

    def begin(_: int) -> bytes:
        start.wait()
        return secret_files.installation_secret(settings, create=True)

    with ThreadPoolExecutor(PROCESSES) as processes:
        secrets = set(processes.map(begin, range(PROCESSES)))

    assert len(secrets) == 1
    assert len(secrets.pop()) > 40
    assert (settings.home / secret_files.SECRET_FILE).stat().st_mode & 0o777 == 0o600


def test_an_empty_secret_is_never_used(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / secret_files.SECRET_FILE).touch()
    with pytest.raises(ConfigError, match="is empty"):
        secret_files.installation_secret(settings, create=True)


def test_a_missing_secret_is_not_made_by_the_way(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="swapproof init"):
        secret_files.installation_secret(settings)


def test_a_worker_of_a_provider_that_is_gone_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swapproof.yaml").write_text("home: here\n", encoding="utf-8")
    installation = open_with_workers(create_secret=True)
    upgrade_database(installation.settings)
    target = Target("gone", "model")
    run = replace(PLAIN_RUN, target=target.id, state=RunState.QUEUED)
    with installation.store.write() as tx:
        Targets(tx).add(target)
        EvalRuns(tx).add(run)
    assert installation.workers is not None
    with pytest.raises(NotFound, match="provider 'gone' no longer exists"):
        installation.workers.start(run.id)
    installation.close()


def test_no_key_speaks_in_the_name_of_the_system(world: SmallInstallation) -> None:
    ctx = world.context()
    with pytest.raises(InputError, match="audit log"):
        keys.create_key(
            ctx,
            SYSTEM,
            SYSTEM.name,
            secret=b"s",
            role=Role.APPROVER,
        )


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
    schedule = Schedule(
        [job],
        clock=clock,
        on_error=failed,
        watch_s=0.05,
    )
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
