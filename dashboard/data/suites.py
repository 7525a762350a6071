"""Loads what the Suites page shows, and renders it: each suite with the routes that it decides
about, its newest run and how its judge compared with people; and the newest runs of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dashboard.text import labels
from dashboard.text.html import Row, escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.context import Context
from harness.control.operations import queries
from harness.control.operations.queries import SuiteSummary
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import CALIBRATED, EVER, EvalRun, JudgeCalibration, RunState
from harness.domain.formatting import format_score
from harness.domain.pagination import PageRequest
from harness.domain.plain_data import from_plain
from harness.domain.routing.table import RouteSuite

SHOWN_RUNS: Final = 10
# Among so many of the newest runs the newest one of a suite is looked for.
MOST_RUNS: Final = 300
UNDER_WAY: Final = (RunState.QUEUED, RunState.RUNNING)
_STATES: Final = {
    RunState.QUEUED: Label("◷", "queued", Tone.NEUTRAL),
    RunState.RUNNING: Label("◐", "running", Tone.BETTER),
    RunState.DONE: Label("✓", "done", Tone.BETTER),
    RunState.STOPPED: Label("=", "stopped", Tone.NEUTRAL),
    RunState.FAILED: Label("✕", "failed", Tone.WORSE),
    RunState.OVER_BUDGET: Label("?", "over its budget", Tone.UNDECIDED),
}


@dataclass(frozen=True, slots=True)
class SuiteView:
    summary: SuiteSummary
    routes: Mapping[str, RouteSuite]  # by the name of the route that it decides about
    run: EvalRun | None  # the newest
    judge: str  # the model that scores it, empty where code does
    calibration: JudgeCalibration | None = None  # the newest
    calibrated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    run: EvalRun
    target: str
    samples: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class SuitesPage:
    suites: Sequence[SuiteView]
    runs: Sequence[RunView]
    targets: Sequence[str]  # names of the models that a suite can be run on
    now: datetime


def load_suites(ctx: Context) -> SuitesPage:
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


def title(suites: Sequence[SuiteView], runs: Sequence[RunView]) -> str:
    """Writes the page's first line: what does not load, else what runs, else what there is."""
    broken = [view.summary.title for view in suites if view.summary.error]
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        return f"{strong(', '.join(broken[:3]))} {verb} not load"
    if not suites:
        return "There is no suite yet"
    count = labels.plural(len(suites), "suite")
    under_way = [view for view in runs if view.run.state in UNDER_WAY]
    if under_way:
        verb = "is" if len(under_way) == 1 else "are"
        load = f"all {count} load" if len(suites) > 1 else f"{count}, it loads"
        return f"{labels.plural(len(under_way), 'run')} {verb} under way; {load}"
    return f"{count}, all load; nothing runs now" if len(suites) > 1 else f"{count}, it loads"


def suite_cells(view: SuiteView, now: datetime) -> Row:
    summary, items = view.summary, view.summary.items
    name = f'<br><span class="note">{escape(summary.name)}</span>'
    return {
        "Suite": strong(summary.title) + (name if summary.name != summary.title else ""),
        "Items": escape(f"{items:,}") if items is not None else _broken(summary.error),
        "Scored by": _scorer(view, now),
        "Decides about": _routes(view),
        "Newest run": _run(view.run, now),
    }


def _broken(error: str) -> str:
    return f"{state(Label('✕', 'does not load', Tone.WORSE))}<br>{escape(error)}"


def _scorer(view: SuiteView, now: datetime) -> str:
    scorer = (view.summary.scorer or "").partition("@")[0]
    if not view.judge:
        return escape(scorer)
    return f"{escape(scorer)}, judge {escape(view.judge)}<br>{_calibration(view, now)}"


def _calibration(view: SuiteView, now: datetime) -> str:
    found, at = view.calibration, view.calibrated_at
    if found is None or at is None:
        words = "not compared with people yet: run it once, with judge.references set"
        return f'<span class="undecided">? {escape(words)}</span>'
    agreement = f"κ {format_score(found.kappa)}, " if found.kappa is not None else ""
    words = (
        f"{agreement}on {labels.plural(found.references, 'reference')}, {labels.age(at, now)}"
    )
    return f'<span class="note">{escape(words)}</span>'


def _routes(view: SuiteView) -> str:
    if not view.routes:
        return '<span class="note">no route</span>'
    named = [f"{name} ({labels.ROLES[suite.role]})" for name, suite in view.routes.items()]
    return escape(labels.few(named, 2))


def _run(run: EvalRun | None, now: datetime) -> str:
    if run is None:
        return '<span class="note">none</span>'
    when = f'<br><span class="note">{escape(labels.age(run.created_at, now))}</span>'
    return state(_STATES[run.state]) + when


def run_cells(view: RunView, titles: Mapping[str, str], now: datetime) -> Row:
    """Renders a run. titles: of the suites, by name."""
    run = view.run
    wanted = run.wanted * run.epochs
    message = f'<br><span class="note">{escape(run.message)}</span>' if run.message else ""
    age = escape(labels.age(run.created_at, now))
    return {
        "Run": f'{strong(run.id)}<br><span class="note">{age}</span>',
        "Suite": escape(titles.get(run.suite, run.suite)),
        "Model": escape(view.target),
        "State": state(_STATES[run.state]) + message,
        "Samples": escape(f"{view.samples:,} of {wanted:,}"),
        "Cost": escape(_question_cost(view)),
    }


def _question_cost(view: RunView) -> str:
    # Answers of unknown price add nothing: 0 may stand for them.
    known = view.cost_usd or not view.samples
    return labels.usd(view.cost_usd) if known else "no known cost"
