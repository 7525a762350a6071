"""The Suites page answers: do my suites load, which evals run, and which models did they
measure?

The leaderboard of a route is computed in `harness.proposals`; the page draws it. The dialogs
are in `suite_dialogs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import pandas as pd
import streamlit as st

from dashboard import labels, markup, page_frame, plots
from dashboard.dialog_forms import Opener, show_openers
from dashboard.labels import Label, Tone
from dashboard.markup import Row, escape, faint, noted, rich, state, strong
from dashboard.operation_dialogs import operation_opener
from dashboard.resource_page import ResourceList, ResourcePage, Search
from dashboard.views import suite_dialogs as dialogs
from harness.frame.errors import SwapproofError
from harness.frame.formatting import (
    DASH,
    format_latency,
    format_points,
    format_points_interval,
    format_range,
    format_score,
    format_usd,
)
from harness.frame.pagination import PageRequest
from harness.frame.plain_data import from_plain
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import (
    CALIBRATED,
    EVER,
    EvalRun,
    JudgeCalibration,
    RunState,
    describe_waits,
)
from harness.operations import queries
from harness.operations.context import Context
from harness.operations.queries import SuiteSummary
from harness.proposals.candidates import leaderboard
from harness.proposals.candidates.leaderboard import (
    Leaderboard,
    LeaderboardRow,
    Standing,
)
from harness.proposals.operations import CANCEL_RUN
from harness.providers.records import Targets
from harness.routing.records.runs import EvalRuns
from harness.routing.route_settings import RouteSuite

# With more suites than these, the page has a search.
MOST_ROWS: Final = 20
SHOWN_RUNS: Final = 10
# The page looks for a suite's newest run among this many runs.
MOST_RUNS: Final = 300
UNFINISHED: Final = (RunState.QUEUED, RunState.RUNNING)
STATE_LABELS: Final = {
    RunState.QUEUED: Label("◷", "queued", Tone.NEUTRAL),
    RunState.RUNNING: Label("◐", "running", Tone.BETTER),
    RunState.DONE: Label("✓", "done", Tone.BETTER),
    RunState.STOPPED: Label("=", "stopped", Tone.NEUTRAL),
    RunState.FAILED: Label("✕", "failed", Tone.WORSE),
    RunState.OVER_BUDGET: Label("?", "over its budget", Tone.UNDECIDED),
}


@dataclass(frozen=True, slots=True)
class SuiteView:
    """A suite with the routes that use it and its newest run."""

    summary: SuiteSummary
    routes: Mapping[str, RouteSuite]  # by the name of a route that uses the suite
    run: EvalRun | None  # the newest run
    judge: str  # the model that scores the answers; empty if code scores them
    # The newest comparison of the judge with people, and its time.
    calibration: tuple[JudgeCalibration, datetime] | None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its progress. cost_usd: the known cost, so 0 may mean unknown."""

    run: EvalRun
    target: str
    samples: int
    cost_usd: float
    because: str = ""  # a scheduled run's cause, which names a missed time if there is one


def _load_suites(ctx: Context, runs: Sequence[EvalRun]) -> Sequence[SuiteView]:
    """Loads all suites.

    Args:
        runs: the newest first.
    """
    newest = {run.suite: run for run in reversed(runs)}
    routes_by_suite: dict[str, dict[str, RouteSuite]] = {}
    for route in sorted(ctx.store.lists.routes(), key=lambda route: route.name):
        for route_suite in route.settings.suites:
            routes_by_suite.setdefault(route_suite.suite, {})[route.name] = route_suite
    return [
        SuiteView(
            summary,
            routes_by_suite.get(summary.name, {}),
            newest.get(summary.name),
            judge.name if judge else "",
            _find_calibration(ctx, summary) if judge else None,
        )
        for summary in queries.list_suites(ctx)
        for judge in [ctx.judges.get(summary.name)]
    ]


def _find_calibration(
    ctx: Context, summary: SuiteSummary
) -> tuple[JudgeCalibration, datetime] | None:
    """Finds the judge's newest comparison with people in the audit log; None without one."""
    if summary.error:
        return None
    try:
        subject = ctx.suites.pin(summary.name).judge_subject
    except SwapproofError:
        return None
    with ctx.store.read() as tx:
        events = AuditLog(tx).for_subject(subject, since=EVER, limit=8)
    return next(
        (
            (from_plain(JudgeCalibration, event.details), event.at)
            for event in events
            if event.action == CALIBRATED
        ),
        None,
    )


def find_cause(tx: Transaction, run: str) -> str:
    """Finds why a scheduled run began; empty for other runs."""
    events = AuditLog(tx).for_subject(f"run {run}", since=EVER, limit=1, actions=["eval.run"])
    return str(events[0].details.get("because", "")) if events else ""


@dataclass(frozen=True, slots=True)
class SuitesView:
    """The page's data. suites: broken suites come first, then suites of routes."""

    suites: Sequence[SuiteView]
    runs: Sequence[RunView]  # the newest runs
    models: Sequence[str]  # the names of all targets
    captured: int  # number of kept requests
    now: datetime

    @property
    def under_way(self) -> Sequence[RunView]:
        return [view for view in self.runs if view.run.state in UNFINISHED]


def load(ctx: Context, _: None) -> SuitesView:
    """Loads the suites, the newest runs with their progress, and the captures' number."""
    runs = list(ctx.store.lists.runs(PageRequest(MOST_RUNS)))
    suites = _load_suites(ctx, runs)
    with ctx.store.read() as tx:
        names = {target_id: target.name for target_id, target in Targets(tx).all().items()}
        run_views = [
            RunView(
                run,
                names.get(run.target, run.target),
                *EvalRuns(tx).progress(run.id)[:2],
                find_cause(tx, run.id),
            )
            for run in runs[:SHOWN_RUNS]
        ]
    return SuitesView(
        suites=sorted(suites, key=lambda view: (not view.summary.error, not view.routes)),
        runs=run_views,
        models=sorted(names.values()),
        captured=queries.list_captures(ctx, PageRequest(1)).total or 0,
        now=ctx.clock.now(),
    )


def _list_actions(view: SuitesView) -> Sequence[Opener]:
    items_by_suite = {
        suite.summary.name: suite.summary.items or 0
        for suite in view.suites
        if not suite.summary.error
    }
    obstacle = "" if items_by_suite else "There is no suite to run."
    return [
        dialogs.run_suite.opener(items_by_suite, view.models, missing=obstacle),
        dialogs.add_suite.opener(),
    ]


def _list_cancel_openers(view: SuitesView) -> Sequence[Opener]:
    """Returns a button for each run that is under way."""
    return [
        replace(
            operation_opener(CANCEL_RUN, run_view.run),
            label=f"Cancel {run_view.run.suite} of {run_view.target} …",
        )
        for run_view in view.under_way
    ]


def _explain_no_captures(_: SuitesView) -> None:
    """Shows, once, advice to a person who chose to label captures of a route without any."""
    if route := st.session_state.pop("nothing-captured", None):
        advice = "Set the share of requests to capture in a route's settings, on Routes."
        st.html(markup.banner(f"No request of {route} is captured.", advice))


def _show_captures(view: SuitesView) -> None:
    count = labels.plural(view.captured, "request")
    count_note = (
        f"{count} of callers, redacted; `swapproof capture list` shows how long they stay."
    )
    missing = "No request is kept. `swapproof route settings ROUTE --capture 1%` starts it."
    st.html(markup.section("Captured requests", count_note if view.captured else missing))
    missing = "" if view.captured else "No request is captured yet."
    show_openers(
        [
            dialogs.label_captures.opener(missing=missing),
            dialogs.delete_user.opener(),
        ]
    )


def _write_headline(suites: Sequence[SuiteView], running: int) -> str:
    broken = [view.summary.title for view in suites if view.summary.error]
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        return f"{strong(', '.join(broken[:3]))} {verb} not load"
    if not suites:
        return "There is no suite yet"
    count = labels.plural(len(suites), "suite")
    has_several = len(suites) > 1
    if running:
        verb = "is" if running == 1 else "are"
        load_text = f"all {count} load" if has_several else f"{count}, it loads"
        return f"{labels.plural(running, 'run')} {verb} under way; {load_text}"
    return f"{count}, all load; no run is under way" if has_several else f"{count}, it loads"


def _build_suite_row(page: SuitesView, view: SuiteView) -> Row:
    """Builds a suite's row. A suite that does not load has the reason in place of its items."""
    now = page.now
    summary = view.summary
    routes = [f"{name} ({suite.role.value})" for name, suite in view.routes.items()]
    items = f"{summary.items:,}" if summary.items is not None else ""
    broken = f"{state(Label('✕', 'does not load', Tone.WORSE))}<br>{escape(summary.error)}"
    scorer = escape((summary.scorer or "").partition("@")[0])
    if view.judge:
        scorer += f", judge {escape(view.judge)}<br>{_render_calibration(view, now)}"
    run = view.run
    return {
        "Suite": noted(
            strong(summary.title),
            summary.name if summary.name != summary.title else "",
        ),
        "Items": items or broken,
        "Scored by": scorer,
        "Decides about": escape(labels.few(routes, 2)) if routes else faint("no route"),
        "Newest run": faint("none")
        if run is None
        else noted(state(STATE_LABELS[run.state]), labels.age(run.created_at, now)),
    }


def _render_calibration(view: SuiteView, now: datetime) -> str:
    """Renders the judge's agreement with people, as Cohen's kappa."""
    if view.calibration is None:
        words = "not compared with people yet: set judge.references and run the suite once"
        return f'<span class="undecided">? {escape(words)}</span>'
    calibration, compared_at = view.calibration
    agreement = (
        f"κ {format_score(calibration.kappa)}, " if calibration.kappa is not None else ""
    )
    references = labels.plural(calibration.references, "reference")
    return faint(f"{agreement}on {references}, {labels.age(compared_at, now)}")


def run_cells(
    view: RunView,
    titles: Mapping[str, str],
    now: datetime,
) -> Row:
    run = view.run
    # Answers of unknown price add nothing, so 0 may mean unknown.
    is_known = view.cost_usd or not view.samples
    return {
        "Run": noted(
            strong(run.id),
            ", ".join(filter(None, (labels.age(run.created_at, now), view.because))),
        ),
        "Suite": escape(titles.get(run.suite, run.suite)),
        "Model": escape(view.target),
        "State": noted(
            state(STATE_LABELS[run.state]),
            describe_waits([run], now) or run.message,
        ),
        "Samples": escape(f"{view.samples:,} of {run.wanted * run.epochs:,}"),
        "Cost": escape(labels.usd(view.cost_usd) if is_known else "no known cost"),
    }


STANDINGS: Final = {
    Standing.INCUMBENT: (Label("●", "serves now", Tone.NEUTRAL), "circle"),
    Standing.BETTER: (Label("✓", "better", Tone.BETTER), "triangle-up"),
    Standing.NOT_WORSE: (
        Label("≥", "not worse", Tone.BETTER),
        "triangle-right",
    ),
    Standing.OPEN: (Label("?", "not decided", Tone.UNDECIDED), "diamond"),
    Standing.HOPELESS: (
        Label("✕", "can no longer pass", Tone.WORSE),
        "square",
    ),
    Standing.WORSE: (Label("✕", "worse", Tone.WORSE), "triangle-down"),
    Standing.EARLIER: (
        Label("=", "measured against another model", Tone.NEUTRAL),
        "triangle-left",
    ),
    Standing.MEASURED_NOW: (
        Label("◐", "being measured", Tone.NEUTRAL),
        "wedge",
    ),
    Standing.HIDDEN: (
        Label("◐", "hidden until people have labelled", Tone.NEUTRAL),
        "stroke",
    ),
    Standing.NOT_MEASURED: (
        Label("?", "not measured", Tone.UNDECIDED),
        "cross",
    ),
}
# A chart of a single point would compare nothing.
FEWEST_POINTS: Final = 2


def _show_models(view: SuitesView) -> None:
    """Shows the models that were measured on a route's suites, by score and price."""
    routes = sorted({name for suite in view.suites for name in suite.routes})
    if not routes:
        return
    st.html(markup.section("Models", "All models that were measured on a route's suites."))
    named_route = st.query_params.get("route")
    index = routes.index(named_route) if named_route in routes else 0
    route = st.selectbox(
        "Route",
        routes,
        index=index,
        key="models-route",
    )
    try:
        board = leaderboard.load_leaderboard(page_frame.context(), route)
    except SwapproofError as error:
        st.html(markup.note(str(error)))
        return
    if board.ending:
        st.html(markup.note(board.ending))
    if board.rows:
        frame = points(board.rows)
        if len(frame) >= FEWEST_POINTS:
            chart = plots.quality_against_cost(frame, STANDINGS.values(), page_frame.palette())
            st.altair_chart(chart, theme=None, width="stretch")
            if unpriced := [row.name for row in board.rows if row.usd_per_1000 is None]:
                names = ", ".join(unpriced)
                st.html(
                    markup.note(f"Not in the chart, because no cost was recorded: {names}.")
                )
        st.html(markup.table([row_cells(row, route) for row in board.rows], stacked=True))
    else:
        st.html(markup.note("No candidate was measured yet on these suites' current versions."))
    for line in next_lines(board):
        st.html(markup.note(line))


def points(rows: Sequence[LeaderboardRow]) -> pd.DataFrame:
    """Builds one row for each model with a score and a price: points of 100, US dollars."""
    return pd.DataFrame(
        [
            {
                "name": row.name,
                "score": row.score * 100,
                "low": None if row.score_low is None else row.score_low * 100,
                "high": None if row.score_high is None else row.score_high * 100,
                "usd": row.usd_per_1000,
                "standing": STANDINGS[row.standing][0].words,
                "line": row.is_cheapest_so_good,
            }
            for row in rows
            if row.score is not None and row.usd_per_1000 is not None
        ]
    )


def row_cells(row: LeaderboardRow, route: str) -> Row:
    """Builds a model's row on the leaderboard, with a link that proposes it."""
    interval = (
        None
        if row.score_low is None or row.score_high is None
        else format_range((row.score_low, row.score_high), format_score)
    )
    score = DASH if row.score is None else format_score(row.score)
    delta_interval = format_points_interval(row.delta_low, row.delta_high)
    date_text = labels.day(row.measured_at) if row.measured_at else ""
    look_text = f", look {row.look}" if row.look > 1 else ""
    efficiency_note = (
        "no other model is both better and cheaper" if row.is_cheapest_so_good else ""
    )
    remark = "; ".join(filter(None, (efficiency_note, row.ending)))
    propose_link = (
        ""
        if row.standing is Standing.INCUMBENT
        else markup.link(
            "proposals",
            "Propose",
            route=route,
            candidate=row.name,
        )
    )
    return {
        "Model": noted(strong(row.name), remark),
        "Standing": markup.state(STANDINGS[row.standing][0]),
        "Score": noted(escape(score), interval),
        "Difference": faint(DASH)
        if row.delta is None
        else noted(escape(format_points(row.delta)), delta_interval),
        "1,000 answers": escape(format_usd(row.usd_per_1000)),
        "Median": escape(format_latency(row.p50_s, DASH)),
        "Measured": noted(escape(date_text or DASH), f"{row.items:,} items{look_text}"),
        "Swap": propose_link,
    }


def next_lines(board: Leaderboard) -> Sequence[str]:
    """Describes the next round of scheduled candidates, its waiting candidates and its
    obstacles.
    """
    if not board.schedule:
        command = f"`swapproof route settings {board.route} --candidates …`"
        return [f"No schedule measures candidates for this route. {command} sets one."]
    plan = board.next_round
    start_text = labels.date_time(board.next_round_at) if board.next_round_at else "never"
    if board.obstacle:
        start_text = f"once the route is free ({board.obstacle})"
    names = ", ".join(candidate.name for candidate in plan.measured)
    cost = f", about {format_usd(plan.cost_usd)}" if names else ""
    lines = [f"Next round {start_text}: {names or 'no model is new'}{cost}."]
    lines.append(f"Schedule: {board.schedule}.")
    lines += [f"{candidate.name} waits: {candidate.remark}." for candidate in plan.waiting]
    round_candidates = (*plan.measured, *plan.waiting)
    lines += [
        f"Setback: {candidate.setbacks}."
        for candidate in round_candidates
        if candidate.setbacks
    ]
    return [*lines, *(f"{warning}." for warning in plan.warnings)]


SUITES: Final = ResourceList[SuitesView, SuiteView](
    rows=lambda view: view.suites,
    cells=_build_suite_row,
    nothing="Add a suite above, or by this command:",
    fills="swapproof suite import FILE --suite NAME --scorer exact",
    search=Search(
        "Find a suite",
        "Part of its name, title or of a route",
        lambda view: " ".join((view.summary.name, view.summary.title, *view.routes)),
        MOST_ROWS,
        "No suite's name, title or routes contain this text.",
    ),
    what="suites",
)
RUNS: Final = ResourceList[SuitesView, RunView](
    rows=lambda view: view.runs,
    cells=lambda page, view: run_cells(
        view, {suite.summary.name: suite.summary.title for suite in page.suites}, page.now
    ),
    heading="Newest runs",
    note="Runs by proposals, schedules and people.",
    nothing="No eval has run yet. A proposal runs its suites automatically.",
    actions=_list_cancel_openers,
)
PAGE: Final = ResourcePage[None, SuitesView](
    name="The suites",
    ask=lambda: None,
    load=load,
    title=lambda view: (
        _write_headline(view.suites, len(view.under_way)),
        rich(labels.date_time(view.now)),
    ),
    actions=_list_actions,
    parts=(_explain_no_captures, SUITES.show, RUNS.show, _show_models, _show_captures),
    commands=lambda _: [["suite", "list"], ["capture", "list"]],
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
