"""Renders what the pages Routes and Overview say of a route."""

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
from harness.control.routing.scorecard import RouteScorecard, list_facts
from harness.domain.canary.observation import TrafficMinute
from harness.domain.drift import DriftCheckState, DriftWatchState
from harness.domain.formatting import DASH, format_estimate, format_score
from harness.domain.routing.evidence import EvidenceKind
from harness.domain.routing.freeze import Freeze, FreezeWindow


def measured_section(view: RouteView, titles: Mapping[str, str]) -> str:
    bill = view.measured.bill
    traffic = (
        f"{bill.requests:,} requests in {format_estimate(bill.window_s)}"
        if bill.requests
        else "no request in 30 days"
    )
    facts = list_facts(view.measured, lambda at: labels.age(at, view.now), titles)
    rows = [(name[:1].upper() + name[1:], escape(fact or DASH)) for name, fact in facts]
    note = f"Of {view.name(view.route.incumbent)}. The route had {traffic}; latency: last day."
    return html.section("Measured", note) + html.facts(
        (name, escape(fact)) for name, fact in rows
    )


def score_line(scorecard: RouteScorecard, titles: Mapping[str, str]) -> str:
    scores = [
        f"{escape(titles.get(score.suite, score.suite))} {strong(format_score(score.score))}"
        for score in scorecard.scores
        if score.score is not None
    ]
    lines = [f"scores of 100: {' · '.join(scores)}"] if scores else []
    bill = scorecard.bill
    if bill.requests:
        # An unknown cost names what is unknown.
        month = f"{'a month ' if bill.month_usd is None else ''}{bill.month_text}"
        lines.append(f"{strong(scorecard.price_text or DASH)} per 1,000 · {escape(month)}")
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def last_hour(traffic: Sequence[TrafficMinute]) -> str:
    requests = sum(t.requests for t in traffic)
    if not requests:
        return '<p class="note">last hour</p><p class="neutral">no request</p>'
    failed = sum(t.failed for t in traffic)
    # A minute without a price would draw a fall in cost that there was not.
    trend = [] if any(t.unpriced for t in traffic) else frames.cost_trend(traffic)
    bars = html.trend(trend, name="cost per 1,000 requests, every 5 min")
    counted = f"{strong(f'{requests:,}')} {'request' if requests == 1 else 'requests'}"
    return f'<p class="note">last hour</p><p>{counted}, {failed:,} failed {bars}</p>'


def fallback_table(route: str, chain: Sequence[ChainEntry]) -> str:
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
    records: Sequence[Freeze], windows: Sequence[FreezeWindow], now: datetime
) -> str:
    rows = [
        {
            "State": escape(record.describe_state(now)),
            "From": escape(labels.date_time(record.starts_at)),
            "Until": escape(labels.date_time(record.ends_at)),
            "Frozen": escape(record.route or "all routes"),
            "By": escape(record.actor),
            "Why": escape(record.reason),
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


def _drift_row(status: DriftStatus) -> html.Row:
    last = status.last
    evidence = last.evidence if last else None
    ended = "–" if last is None or last.ended_at is None else labels.date_time(last.ended_at)
    if last is not None and last.state is DriftCheckState.NOT_MEASURED:
        ended += " NOT MEASURED"
    return {
        "Suite": strong(status.suite),
        "State": html.state(DRIFT_STATES[status.state]),
        "Compared": watches.describe_comparison(status.comparisons),
        "Change": escape(evidence.change_text if evidence else "–"),
        "Evidence": escape(evidence.share_text if evidence else "–"),
        "Last": escape(ended),
        "Next": escape(labels.date_time(status.next_at) if status.next_at else "–"),
    }
