"""Writes what a verdict says of a suite, on the Compare page: its effect and limit, a slice
that fails it, its costs, and the notes of its charts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from dashboard.data.frames import FEWEST_PAIRS, limit_of
from dashboard.data.suites import RunView, SuiteView
from dashboard.text import labels
from dashboard.text.html import escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.domain.evals.run import EvalRun, RunState
from harness.domain.evals.suite_figures import SliceFigures
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import SuiteReport, VerdictBasis
from harness.domain.formatting import format_percent, format_points_interval, format_score
from harness.gate.text.sentences import bounds_text

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
    return escape(labels.few(named, 2))


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
        escape(_question_cost(view)),
    ]


def _question_cost(view: RunView) -> str:
    # Answers of unknown price add nothing: 0 may stand for them.
    known = view.cost_usd or not view.samples
    return labels.usd(view.cost_usd) if known else "no known cost"


COST_WORDS = {
    "shown": "shown",
    "refuted": "refuted",
    "unshowable": "cannot be shown, because one answer cost more than the ceiling",
    "open": "not shown",
}


def slice_line(slice_: SliceFigures, report: SuiteReport) -> str:
    """Describes a slice that fails its suite: `−50.0 points, 95 % CI −63.0 to −37.0; 60 items.
    It is shown worse, which fails the candidate whatever its mean is.`
    """
    effect = f"{labels.points(slice_.delta)} points"
    if slice_.ci_low is not None and slice_.ci_high is not None:
        effect += f", 95 % CI {format_points_interval(slice_.ci_low, slice_.ci_high)}"
    used = labels.plural(slice_.n_used, report.figures.unit)
    follows = (
        "It is shown worse, which fails the candidate whatever its mean is."
        if report.outcome == "failed"
        else "It is worse as scored."
    )
    return f"{effect}; {used}. {follows}"


def suite_line(report: SuiteReport, basis: VerdictBasis) -> str:
    """Describes a suite: `−0.4 points, 95 % CI −2.6 to +1.8; allowed loss 2.0. The interval
    crosses the limit.` Of a suite in a weighted mean only what it found: it had no limit.
    """
    if report.n_used and report.is_unscored:
        return report.reason
    if not basis.decides(report) and report.n_used:
        effect = f"{labels.points(report.delta)} points"
        if report.n_used >= FEWEST_PAIRS and report.ci_low is not None:
            interval = format_points_interval(report.ci_low, report.ci_high)
            effect += f", 95 % CI {interval}"
        return f"{effect}; {_pairs(report, basis)}. It counts in the mean."
    if report.outcome == "infra_error" or report.n_used == 0:
        return report.reason
    effect = f"{labels.points(report.delta)} points"
    limit = (
        "must be better than 0"
        if report.claim is Claim.SUPERIOR
        else f"allowed loss {format_score(report.margin)}"
    )
    pairs = _pairs(report, basis)
    if bounds := bounds_text(report):
        pairs += f"; {bounds}"
    if report.n_used < FEWEST_PAIRS or report.ci_low is None or report.ci_high is None:
        return f"{effect} on {pairs}: too few for an interval; {limit}.{_why(report)}"
    interval = format_points_interval(report.ci_low, report.ci_high)
    shown = f"{effect}, 95 % CI {interval}; {limit}; {pairs}.{_why(report)}"
    return f"{shown}{_cost(report)}"


def _pairs(report: SuiteReport, basis: VerdictBasis) -> str:
    """How much was compared: `48 pairs`, `93 pairs in 31 clusters (by document)`."""
    if report is basis.mean:
        return f"{labels.plural(report.n_used, 'pair')} of each suite"
    pairs = labels.plural(report.items_used, "pair")
    cluster = report.figures.cluster
    if not cluster:
        return pairs
    return f"{pairs} in {labels.plural(report.n_used, 'cluster')} (by {cluster})"


def slices_note(report: SuiteReport) -> str:
    """What the charts of a suite's slices show, and why they may count more than its mean."""
    note = (
        "Candidate minus current model in each slice, in percentage points; whisker: 95 % CI. "
        "A slice that is shown worse fails the candidate, whatever its mean is."
    )
    counted: Counter[str] = Counter()
    for part in report.figures.slices or ():
        counted[part.field] += part.n_used
    if max(counted.values(), default=0) <= report.n_used:
        return note
    used = labels.plural(report.n_used, report.figures.unit)
    return f"{note} The mean was decided on the first {used}; the slices were tested on more."


def bars_note(reports: Sequence[SuiteReport], titles: Mapping[str, str]) -> str:
    """What the bars of won and lost pairs count."""
    clusters = [
        f" Those of {titles.get(report.suite, report.suite)} count clusters: the mean over "
        f"the items of one {report.figures.cluster}."
        for report in reports
        if report.figures.cluster
    ]
    items = (
        "Bars count the items that only one of the two models won; all suites share one scale."
    )
    return items + "".join(clusters)


def _cost(report: SuiteReport) -> str:
    """What the costs of the same items say, where the claim is about them."""
    cost = report.figures.cost
    if cost is None:
        return ""
    claimed = f"{format_percent(cost.min_saving)} less was claimed"
    if cost.saving is None:
        return f" What it saves is unknown; {claimed}."
    found = f" Cost per item {format_percent(cost.saving)} less"
    if cost.saving_low is not None:
        found += (
            f", 95 % CI {format_percent(cost.saving_low)} to {format_percent(cost.saving_high)}"
        )
    return f"{found}; {claimed}: {COST_WORDS[cost.outcome]}."


def _why(report: SuiteReport) -> str:
    if report.outcome == "harness_mismatch":
        rule, lenient = report.figures.rule, report.figures.lenient
        read = f", scored leniently {labels.points(lenient.delta)}" if lenient else ""
        return f" Broken most often: {rule or 'an unnamed rule'}{read}."
    if report.outcome == "inconclusive":
        return " The interval crosses the limit." if _crosses(report) else ""
    return ""


def _crosses(report: SuiteReport) -> bool:
    low, high = report.ci_low, report.ci_high
    return low is not None and high is not None and low <= limit_of(report) <= high
