"""Builds the drift card of the Routes page: per suite, whether the model behind the route has
changed since the baseline, by how much, and when it is checked next.
"""

from collections.abc import Sequence

from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.drift import reports
from harness.control.drift.reports import DriftStatus
from harness.domain.drift import DriftCheckState
from harness.domain.formatting import format_points_interval

STATES = {
    "starting": labels.Label("…", "starting", labels.Tone.NEUTRAL),
    "baseline": labels.Label("…", "measuring the baseline", labels.Tone.NEUTRAL),
    "watching": labels.Label("=", "no drift", labels.Tone.NEUTRAL),
    "drifted": labels.Label("✕", "DRIFTED", labels.Tone.WORSE),
}
HEADS = ("Suite", "State", "Compared", "Change in points", "Evidence", "Last", "Next")


def drift_card(route: str, statuses: Sequence[DriftStatus]) -> str:
    """Renders the drift card of the route; empty where no suite watches it."""
    if not statuses:
        return ""
    note = "The incumbent is asked the same items at intervals, and its answers are compared."
    drifted = [status for status in statuses if status.state == "drifted"]
    warning = html.banner("✕ The model behind this route has changed.", _next(route))
    rows = [_row(status) for status in statuses]
    table = html.section("Drift watch", note) + html.table(HEADS, rows)
    return (warning if drifted else "") + table


def _next(route: str) -> str:
    return (
        f"`swapgate drift status {route}` shows the answers. Accept how the model answers now, "
        "by the button below, or propose another one."
    )


def change(status: DriftStatus) -> str:
    """Writes how far the last check was from the baseline, in points; empty before one."""
    evidence = status.last.evidence if status.last else None
    if evidence is None:
        return ""
    ends = format_points_interval(evidence.ci_low, evidence.ci_high, missing="")
    return labels.points(evidence.delta) + (f" ({ends})" if ends else "")


def _row(status: DriftStatus) -> tuple[str, ...]:
    last = status.last
    drift_evidence = last.evidence if last else None
    evidence = "–"
    if drift_evidence is not None:
        evidence = f"{labels.percent(drift_evidence.share_of_limit, 0)} of the alarm level"
    ended = "–" if last is None or last.ended_at is None else labels.date_time(last.ended_at)
    if last is not None and last.state is DriftCheckState.NOT_MEASURED:
        ended += " NOT MEASURED"
    return (
        strong(status.suite),
        html.state(STATES[status.state]),
        reports.describe_comparison(status.comparisons),
        escape(change(status) or "–"),
        escape(evidence),
        escape(ended),
        escape(labels.date_time(status.next_at) if status.next_at else "–"),
    )
