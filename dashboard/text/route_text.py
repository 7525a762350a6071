"""Renders a route's measured figures (scores, cost, latency, failures), its fallback chain with
each model's evidence, its freezes and its drift watch; also the Overview's lines of scores and
of the last hour.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from dashboard.data import frames
from dashboard.data.queries import RouteView
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.drift import watches
from harness.control.drift.watches import DriftStatus
from harness.control.routing.fallback_chain import ChainEntry
from harness.control.routing.monthly_bill import describe_month
from harness.control.routing.scorecard import RouteScorecard, SuiteScore
from harness.domain.canary.observation import TrafficMinute
from harness.domain.drift import DriftCheckState, DriftWatchState
from harness.domain.formatting import (
    DASH,
    format_estimate,
    format_percent,
    format_points_interval,
    format_range,
    format_score,
    format_thousand_price,
)
from harness.domain.routing.evidence import EvidenceKind
from harness.domain.routing.freeze import FreezeRecord, FreezeWindow
from harness.domain.routing.table import RouteRecord
from harness.gate.text.change_text import describe_change


def change(record: RouteRecord) -> str:
    """Says what the change did that made this version."""
    return describe_change(
        record.route, record.kind, record.actor, record.reason, record.ended_break_glass
    )


def measured_section(view: RouteView, titles: Mapping[str, str]) -> str:
    """The figures measured of a route's model, as a table.

    titles: of the suites, by name.
    """
    measured = view.measured
    bill = measured.bill
    traffic = (
        f"{bill.requests:,} requests in {format_estimate(bill.window_s)}"
        if bill.requests
        else "no request in 30 days"
    )
    latency = DASH
    if measured.p50_ms is not None and measured.p95_ms is not None:
        middle, slow = (labels.seconds(ms / 1000) for ms in (measured.p50_ms, measured.p95_ms))
        latency = f"median {middle}, 95th percentile {slow}; {measured.requests_day:,} requests"
    rows = [
        *(
            (f"Score, {titles.get(score.suite, score.suite)}", _score(score, view.now))
            for score in measured.scores
        ),
        ("Cost per 1,000 requests", _per_1000(measured)),
        ("Cost a month", describe_month(bill) if bill.requests else DASH),
        ("Latency, last day", latency),
        ("Errors to callers", format_percent(measured.failed, 2, missing=DASH)),
        ("Failures of this model", format_percent(measured.charged, 2, missing=DASH)),
    ]
    note = f"Of {view.name(view.route.incumbent)}. The route had {traffic}."
    return html.section("Measured", note) + html.plain_facts(rows)


def score_line(scorecard: RouteScorecard, titles: Mapping[str, str]) -> str:
    """The scores, then what the route costs, for a row of the overview."""
    scores = [
        f"{escape(titles.get(score.suite, score.suite))} {strong(format_score(score.score))}"
        for score in scorecard.scores
        if score.score is not None
    ]
    lines = [f"scores of 100: {' · '.join(scores)}"] if scores else []
    bill = scorecard.bill
    if bill.requests:
        # An unknown cost names what is unknown.
        month = f"{'a month ' if bill.month_usd is None else ''}{describe_month(bill)}"
        lines.append(f"{strong(_per_1000(scorecard))} per 1,000 · {escape(month)}")
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def last_hour(traffic: Sequence[TrafficMinute]) -> str:
    """Requests, failures and the trend of their cost, for a row of the overview."""
    requests = sum(t.requests for t in traffic)
    if not requests:
        return '<p class="note">last hour</p><p class="neutral">no request</p>'
    failed = sum(t.failed for t in traffic)
    # A minute without a price would draw a fall in cost that there was not.
    trend = [] if any(t.unpriced for t in traffic) else frames.cost_trend(traffic)
    bars = html.trend(trend, name="cost per 1,000 requests, every 5 min")
    counted = f"{strong(f'{requests:,}')} {'request' if requests == 1 else 'requests'}"
    return f'<p class="note">last hour</p><p>{counted}, {failed:,} failed {bars}</p>'


def _score(score: SuiteScore, now: datetime) -> str:
    if score.score is None or score.measured_at is None:
        return "never measured"
    between = (
        f" ({format_range((score.low, score.high), format_score)})"
        if score.low is not None and score.high is not None
        else ""
    )
    older = "" if score.current else ", of an older version of the suite"
    age = labels.age(score.measured_at, now)
    return f"{format_score(score.score)}{between} on {score.items:,} items, {age}{older}"


def _per_1000(scorecard: RouteScorecard) -> str:
    """A dash without traffic; unknown where there is some and no price."""
    known = scorecard.bill.tokens is not None
    return format_thousand_price(scorecard.usd_per_1000) if known else DASH


def fallback_table(route: str, chain: Sequence[ChainEntry]) -> str:
    """Renders the table of a route's fallbacks; empty without a chain."""
    if not chain:
        return ""
    rows = [
        {
            "Place": str(place),
            "Model": escape(entry.target.name),
            "Enough for high stakes": "yes" if entry.capable else "no",
            "Evidence": escape(evidence_text(entry)),
        }
        for place, entry in enumerate(chain, 1)
    ]
    shown = html.section("Fallbacks", "Tried in this order when the route's model fails.")
    shown += html.table(rows)
    if names := ", ".join(entry.target.name for entry in chain if entry.waiver_expired):
        words = (
            f"{names} continues to serve, but the route cannot be changed as long as it is in "
            f"the chain. Remove it with swapgate route fallback remove {route} …, or bring "
            "evidence."
        )
        shown = html.banner("A waiver has expired.", words) + shown
    return shown


def evidence_text(entry: ChainEntry) -> str:
    """Why the model may serve, in words."""
    match entry.evidence:
        case EvidenceKind.BASELINE:
            return "baseline: the route was created with it"
        case EvidenceKind.VERDICT:
            return f"passed: verdict {entry.verdict}"
        case EvidenceKind.WAIVER:
            waiver = entry.waiver
            if waiver is None:
                return "waiver"
            until = "expired" if entry.waiver_expired else "until"
            at = labels.date_time(waiver.expires_at)
            return f"waiver of {waiver.author}, {until} {at}: {waiver.reason}"


def freezes_section(
    records: Sequence[FreezeRecord], windows: Sequence[FreezeWindow], now: datetime
) -> str:
    """The freezes of a route, to come, in force and past, as a table; empty without any."""
    rows = [
        {
            "State": escape(record.describe_state(now)),
            "From": escape(labels.date_time(record.freeze.starts_at)),
            "Until": escape(labels.date_time(record.freeze.ends_at)),
            "Frozen": escape(record.freeze.route or "all routes"),
            "By": escape(record.freeze.actor),
            "Why": escape(record.freeze.reason),
        }
        for record in records
    ]
    weekly = "".join(
        html.note(f"Every week, {window}: {window.reason} (from the configuration file).")
        for window in windows
    )
    shown = weekly + html.table(rows, stacked=True)
    return html.section("Freezes", "Newest first.") + shown if shown else ""


DRIFT_STATES: Final = {
    "starting": labels.Label("…", "starting", labels.Tone.NEUTRAL),
    "baseline": labels.Label("…", "measuring the baseline", labels.Tone.NEUTRAL),
    "watching": labels.Label("=", "no drift", labels.Tone.NEUTRAL),
    "drifted": labels.Label("✕", "DRIFTED", labels.Tone.WORSE),
}


def drift_card(route: str, statuses: Sequence[DriftStatus]) -> str:
    """Renders the drift card of the route; empty where no suite watches it."""
    if not statuses:
        return ""
    note = "The incumbent is asked the same items at intervals, and its answers are compared."
    card = html.section("Drift watch", note) + html.table(map(_drift_row, statuses))
    if any(status.state == DriftWatchState.DRIFTED for status in statuses):
        words = (
            f"`swapgate drift status {route}` shows the answers. Accept how the model answers "
            "now, by the button below, or propose another one."
        )
        card = html.banner("✕ The model behind this route has changed.", words) + card
    return card


def drift_change(status: DriftStatus) -> str:
    """Writes how far the last check was from the baseline, in points; empty before one."""
    evidence = status.last.evidence if status.last else None
    if evidence is None:
        return ""
    ends = format_points_interval(evidence.ci_low, evidence.ci_high, missing="")
    return labels.points(evidence.delta) + (f" ({ends})" if ends else "")


def _drift_row(status: DriftStatus) -> html.Row:
    last = status.last
    drift_evidence = last.evidence if last else None
    evidence = "–"
    if drift_evidence is not None:
        evidence = f"{labels.percent(drift_evidence.share_of_limit, 0)} of the alarm level"
    ended = "–" if last is None or last.ended_at is None else labels.date_time(last.ended_at)
    if last is not None and last.state is DriftCheckState.NOT_MEASURED:
        ended += " NOT MEASURED"
    return {
        "Suite": strong(status.suite),
        "State": html.state(DRIFT_STATES[status.state]),
        "Compared": watches.describe_comparison(status.comparisons),
        "Change in points": escape(drift_change(status) or "–"),
        "Evidence": escape(evidence),
        "Last": escape(ended),
        "Next": escape(labels.date_time(status.next_at) if status.next_at else "–"),
    }
