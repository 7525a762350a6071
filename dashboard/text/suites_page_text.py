"""Writes the Suites page's title and the cells of its tables: suites with their routes, judge
and newest run, and the newest runs of all.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from dashboard.data.suites import RunView, SuiteView
from dashboard.text import labels
from dashboard.text.html import escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.domain.evals.run import EvalRun, RunState
from harness.domain.formatting import format_score

SUITE_HEADS: Final = ("Suite", "Items", "Scored by", "Decides about", "Newest run")
RUN_HEADS: Final = ("Run", "Suite", "Model", "State", "Samples", "Cost")
UNDER_WAY: Final = (RunState.QUEUED, RunState.RUNNING)
_STATES: Final = {
    RunState.QUEUED: Label("◷", "queued", Tone.NEUTRAL),
    RunState.RUNNING: Label("◐", "running", Tone.BETTER),
    RunState.DONE: Label("✓", "done", Tone.BETTER),
    RunState.STOPPED: Label("=", "stopped", Tone.NEUTRAL),
    RunState.FAILED: Label("✕", "failed", Tone.WORSE),
    RunState.OVER_BUDGET: Label("?", "over its budget", Tone.UNDECIDED),
}


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


def suite_cells(view: SuiteView, now: datetime) -> list[str]:
    """Renders a suite's row as cells of HTML, in the order of SUITE_HEADS."""
    summary = view.summary
    name = f'<br><span class="note">{escape(summary.name)}</span>'
    return [
        strong(summary.title) + (name if summary.name != summary.title else ""),
        escape(f"{summary.items:,}") if summary.items is not None else _broken(summary.error),
        _scorer(view, now),
        _routes(view),
        _run(view.run, now),
    ]


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
    more = f" and {len(named) - 2} more" if len(named) > 2 else ""
    return escape(", ".join(named[:2]) + more)


def _run(run: EvalRun | None, now: datetime) -> str:
    if run is None:
        return '<span class="note">none</span>'
    when = f'<br><span class="note">{escape(labels.age(run.created_at, now))}</span>'
    return state(_STATES[run.state]) + when


def run_cells(view: RunView, titles: Mapping[str, str], now: datetime) -> list[str]:
    """Renders a run's row as cells of HTML, in the order of RUN_HEADS. titles: of the suites,
    by name.
    """
    run = view.run
    wanted = run.wanted * run.epochs
    message = f'<br><span class="note">{escape(run.message)}</span>' if run.message else ""
    age = escape(labels.age(run.created_at, now))
    return [
        f'{strong(run.id)}<br><span class="note">{age}</span>',
        escape(titles.get(run.suite, run.suite)),
        escape(view.target),
        state(_STATES[run.state]) + message,
        escape(f"{view.samples:,} of {wanted:,}"),
        escape(_cost(view)),
    ]


def _cost(view: RunView) -> str:
    # Answers of unknown price add nothing: 0 may stand for them.
    known = view.cost_usd or not view.samples
    return labels.usd(view.cost_usd) if known else "no known cost"
