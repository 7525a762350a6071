"""Jobs with a cron expression run at their times, and once for a time in a restart (F7)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from dashboard.views import suites
from harness.app import seed
from harness.app.configuration.configuration import load_settings
from harness.app.doctor import checks
from harness.frame import package_data
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import InputError
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.operations.cron_jobs import CronJob
from harness.operations.records import JobTimes
from harness.providers.target import Target
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.records.runs import EvalRuns
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.settings import RouteSeed
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F7")

NIGHTLY = "0 3 * * *"
DEFAULTS = package_data.path("config/default.yaml")


class Noted:
    """A job that notes its times."""

    def __init__(self) -> None:
        self.runs: list[tuple[datetime, str]] = []

    def __call__(self, _ctx: Context, due: datetime, because: str) -> None:
        self.runs.append((due, because))


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    return SmallInstallation(tmp_path)


def at(world: SmallInstallation, hour: int, minute: int = 0, *, days: int = 0) -> datetime:
    """Moves the clock to that time, `days` after today."""
    now = world.clock.now()
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    then = midnight + timedelta(days=days, hours=hour, minutes=minute)
    world.clock.advance((then - now).total_seconds())
    return then


def test_a_job_runs_once_at_each_of_its_times(world: SmallInstallation) -> None:
    ctx, noted = world.context(), Noted()
    job = CronJob("evals of a", noted, NIGHTLY)
    at(world, 2, days=1)
    job(ctx)
    assert noted.runs == []
    due = at(world, 3)
    for _ in range(3):
        job(ctx)

    assert noted.runs == [(due, "schedule")]


def test_a_time_that_fell_into_a_restart_is_made_up_for_once(world: SmallInstallation) -> None:
    ctx = world.context()
    at(world, 2, days=1)
    CronJob("evals of a", Noted(), NIGHTLY)(ctx)
    at(world, 9, days=3)  # three times passed meanwhile
    restarted = Noted()
    for _ in range(2):
        CronJob("evals of a", restarted, NIGHTLY)(ctx)

    ((due, because),) = restarted.runs
    assert due == world.clock.now() - timedelta(hours=6)
    assert because.startswith(f"schedule, late: due {due:%Y-%m-%d} 03:00 UTC")


def test_a_run_that_was_made_up_for_says_so_on_its_page(world: SmallInstallation) -> None:
    world.set_up()
    ctx = world.context()
    every = partial(control_jobs.evaluate_incumbents, suite="colours")
    at(world, 2, days=1)
    CronJob("evals of colours", every, NIGHTLY)(ctx)
    at(world, 3, 30)
    CronJob("evals of colours", every, NIGHTLY)(ctx)

    with ctx.store.read() as tx:
        (run,) = EvalRuns(tx).list()
        because = suites.find_cause(tx, run.id)
    cells = suites.run_cells(suites.RunView(run, "a", 0, 0.0, because), {}, world.clock.now())
    assert "schedule, late: due" in cells["Run"]


def test_a_process_that_begins_to_lead_makes_up_for_its_predecessor(
    world: SmallInstallation,
) -> None:
    ctx, noted = world.context(), Noted()
    at(world, 2, days=1)
    CronJob("evals of a", Noted(), NIGHTLY)(ctx)
    leads = [False]
    heir = CronJob("evals of a", noted, NIGHTLY, lambda: leads[0])
    at(world, 3)
    heir(ctx)
    assert noted.runs == []
    leads[0] = True
    at(world, 3, 10)
    heir(ctx)

    assert len(noted.runs) == 1


def test_a_changed_expression_counts_from_the_change(world: SmallInstallation) -> None:
    ctx, noted = world.context(), Noted()
    at(world, 2, days=1)
    CronJob("evals of a", noted, NIGHTLY)(ctx)
    at(world, 9)
    CronJob("evals of a", noted, "0 4 * * *")(ctx)
    assert noted.runs == []


def test_a_failed_job_waits_for_its_next_time(world: SmallInstallation) -> None:
    def fails(_ctx: Context, _due: datetime, _because: str) -> None:
        raise InputError("the suite is broken")

    ctx = world.context()
    job = CronJob("evals of a", fails, NIGHTLY)
    at(world, 2, days=1)
    job(ctx)
    due = at(world, 3)
    with pytest.raises(InputError, match="broken"):
        job(ctx)
    job(ctx)

    with ctx.store.read() as tx:
        stored = JobTimes(tx).find("evals of a")
    assert stored is not None
    assert stored.at == due
    assert alerts.list_open(ctx, AlertKind.JOB_FAILED)


def test_a_faulty_stored_expression_stops_its_job_alone(world: SmallInstallation) -> None:
    ctx, noted = world.context(), Noted()
    job = CronJob("evals of a", noted, "0 3 * * MON#1")
    with pytest.raises(InputError, match="not a cron expression"):
        job(ctx)
    job(ctx)  # says it once

    assert noted.runs == []
    ((_, name),) = alerts.list_open(ctx, AlertKind.JOB_FAILED)
    assert name == "evals of a"


def test_a_new_route_with_a_faulty_schedule_serves_without_candidates(
    world: SmallInstallation,
) -> None:
    world.set_up()
    ctx = world.context()
    faulty = CandidateSchedule(("sim/*",), "0 3 31 2 *", 5.0)
    found = RouteSettings(suites=(RouteSuite("colours"),), candidates=faulty)
    route = RouteSeed("new", Target("sim", "base"), settings=found)
    settings = replace(load_settings(None, {}, defaults=DEFAULTS), routes={"new": route})

    added = seed.apply_seed(ctx, settings)

    assert any("route new, without candidates" in line for line in added)
    assert world.route("new").settings.candidates is None


def test_doctor_names_each_suite_that_changed_since_it_was_accepted(
    world: SmallInstallation,
) -> None:
    world.set_up()
    settings = load_settings(None, {}, defaults=DEFAULTS)
    assert list(checks._check_changed_suites(settings, world.context())) == []
    colours = world.suites["colours"]
    world.suites["colours"] = replace(colours, scorer_options={"ignore_case": True})

    (finding,) = checks._check_changed_suites(settings, world.context())

    assert finding.found.startswith("suite colours changed since it was accepted: ")
    assert "exact" in finding.found
