"""Loads what the Suites page shows: each suite with the routes that it decides about, its
newest run and how its judge compared with people; and the newest runs of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.control.operations import queries
from harness.control.operations.queries import SuiteSummary
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import CALIBRATED, EVER, EvalRun, JudgeCalibration
from harness.domain.pagination import PageRequest
from harness.domain.plain_data import from_plain
from harness.domain.routing.table import RouteSuite

SHOWN_RUNS: Final = 10
# Among so many of the newest runs the newest one of a suite is looked for.
MOST_RUNS: Final = 300


@dataclass(frozen=True, slots=True)
class SuiteView:
    """What the page shows of a suite."""

    summary: SuiteSummary
    routes: Mapping[str, RouteSuite]  # by the name of the route that it decides about
    run: EvalRun | None  # the newest
    judge: str  # the model that scores it, empty where code does
    calibration: JudgeCalibration | None = None  # the newest
    calibrated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """What the page shows of a run."""

    run: EvalRun
    target: str
    samples: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class SuitesPage:
    """Holds all that the page shows."""

    suites: Sequence[SuiteView]
    runs: Sequence[RunView]
    targets: Sequence[str]  # names of the models that a suite can be run on
    now: datetime


def load_suites(ctx: Context) -> SuitesPage:
    """Loads the page, in a few reads."""
    runs = list(ctx.store.lists.runs(PageRequest(MOST_RUNS)))
    newest: dict[str, EvalRun] = {}
    for run in runs:
        newest.setdefault(run.suite, run)
    with ctx.store.read() as tx:
        table, known = tx.routing.table(), tx.routing.targets()
        progress = {run.id: tx.runs.progress(run.id) for run in runs[:SHOWN_RUNS]}
    used: dict[str, dict[str, RouteSuite]] = {}
    for name, route in sorted(table.routes.items()):
        for suite in route.settings.suites:
            used.setdefault(suite.suite, {})[name] = suite
    views = [
        _view(ctx, summary, used.get(summary.name, {}), newest.get(summary.name))
        for summary in queries.list_suites(ctx)
    ]
    shown = [
        RunView(
            run,
            known[run.target].name if run.target in known else run.target,
            progress[run.id][0],
            progress[run.id][1],
        )
        for run in runs[:SHOWN_RUNS]
    ]
    return SuitesPage(views, shown, sorted(t.name for t in known.values()), ctx.clock.now())


def _view(
    ctx: Context, summary: SuiteSummary, routes: Mapping[str, RouteSuite], run: EvalRun | None
) -> SuiteView:
    judge = ctx.judges.get(summary.name)
    view = SuiteView(summary, routes, run, judge.name if judge else "")
    if judge is None or summary.error:
        return view
    try:
        subject = ctx.suites.pin(summary.name).judge_subject
    except SwapgateError:
        return view
    with ctx.store.read() as tx:
        events = tx.audit.for_subject(subject, since=EVER, limit=8)
    for event in events:
        if event.action == CALIBRATED:
            found = from_plain(JudgeCalibration, event.details)
            return SuiteView(summary, routes, run, judge.name, found, event.at)
    return view
