"""The Overview page answers: does any route need me now? Without one it asks for the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.sections import first_steps
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from dashboard.text.labels import Label, Tone
from harness.control.context import Context
from harness.control.operations.alerts import AlertView
from harness.control.operations.queries import list_alerts, load_target_names
from harness.control.routing import scorecard
from harness.control.routing.break_glass import count_unconfirmed
from harness.control.routing.queries import RouteOverview, load_overview, load_statuses
from harness.control.routing.route_status import (
    ALERTS_OF_STATES,
    ENDED_STATES,
    RouteState,
    RouteStatus,
    describe_needs,
    list_news,
)
from harness.control.routing.scorecard import RouteScorecard
from harness.domain.canary.observation import TrafficMinute
from harness.domain.formatting import DASH, format_score
from harness.domain.operations.alerts import NO_SINK, Severity
from harness.domain.operations.signed_rows import RowFault
from harness.domain.pagination import Page
from harness.domain.proposals.proposal import ProposalPhase

MOST_ALERTS: Final = 5
# With more routes than FEW_ROUTES, only those where something goes on are cards, MOST_CARDS at
# most; the others are lines of a table. With more than MOST_CARDS, only the urgent ones are.
FEW_ROUTES: Final = 6
MOST_CARDS: Final = 12
MOST_LINES: Final = 50


@dataclass(frozen=True)
class ManyRoutes:
    texts: Mapping[str, str]  # by route, without those that are not as they were signed
    invalid: Sequence[RowFault]


def _load_shown(
    ctx: Context, overview: RouteOverview, most: int
) -> Page[RouteStatus] | ManyRoutes:
    if len(overview.names) <= most:
        return load_statuses(ctx, overview, overview.names)
    routes = ctx.store.lists.routes()
    names = load_target_names(ctx, {route.incumbent for route in routes})
    texts = {
        route.name: f"{route.name} {route.settings.description} "
        f"{names.get(route.incumbent, '')}".casefold()
        for route in routes
    }
    return ManyRoutes(texts, routes.invalid)


def show() -> None:
    with page_frame.loading("the routes"):
        ctx = page_frame.context()
        overview = load_overview(ctx)
        routes = _load_shown(ctx, overview, MOST_CARDS)
        alarming = [
            alert
            for alert in list_alerts(ctx, open_only=True)
            if alert.kind not in ALERTS_OF_STATES
        ]
        alarming.sort(key=lambda alert: (-alert.severity, -alert.last_seen.timestamp()))
    waiting = count_unconfirmed(ctx)
    st.html(html.title(*_headline(overview, len(alarming), waiting)))
    page_frame.show_html(html.invalid(routes.invalid))
    page_frame.show_done_message()
    if ctx.sinks is not None and not ctx.sinks.names():
        st.html(html.note(f"{NO_SINK[:1].upper()}{NO_SINK[1:]}."))
    first_steps.show_next_steps()
    _alerts(alarming, overview.at)
    page_frame.show_freezes()
    if isinstance(routes, ManyRoutes):
        _many(overview, routes)
    elif routes:
        _few(routes, overview)
    else:
        first_steps.ask()
    page_frame.copy_as_cli(["status"])


def _few(statuses: Sequence[RouteStatus], overview: RouteOverview) -> None:
    few = len(statuses) <= FEW_ROUTES
    cards = [status for status in statuses if few or status.state is not RouteState.STEADY]
    _cards(cards, overview.at)
    lines = [status for status in statuses if status not in cards]
    _table(lines, overview, len(lines), others=bool(cards))


def _many(overview: RouteOverview, routes: ManyRoutes) -> None:
    found = page_frame.find(
        [name for name in overview.names if name in routes.texts], 0, "Find a route",
        "Part of its name, description or model", routes.texts.__getitem__,
    )  # fmt: skip
    urgent = {status.route.name for status in overview.urgent}
    first = [name for name in found if name in urgent][:MOST_CARDS]
    others = [name for name in found if name not in first]
    ctx = page_frame.context()
    shown = load_statuses(ctx, overview, [*first, *others[:MOST_LINES]])
    if shown.invalid:  # of a verdict or a rollout: forged routes are not among those found
        st.html(html.invalid(shown.invalid))
    _cards([status for status in shown if status.route.name in first], overview.at)
    lines = [status for status in shown if status.route.name not in first]
    _table(lines, overview, len(others), others=bool(first))
    if not found:
        st.html(html.note("No route has this in its name, its description or its model."))


def _table(
    lines: Sequence[RouteStatus], overview: RouteOverview, found: int, *, others: bool
) -> None:
    """found: how many there are of them. others: whether some routes are cards."""
    if not lines:
        return
    heading = "All other routes" if others else "All routes"
    of_all = f"{len(lines):,} of {len(overview.names):,}"
    more = found - len(lines)
    narrow = f" Search above to see the {more:,} others." if more else ""
    rows = [_line(status, overview.at) for status in lines]
    st.html(html.listing(heading, f"{of_all}.{narrow}" if more else of_all, rows))


def _cards(statuses: Sequence[RouteStatus], now: datetime) -> None:
    ctx = page_frame.context()
    titles, routes = queries.titles(ctx), [status.route.name for status in statuses]
    lines: Mapping[str, str] = {
        name: score_line(measured, titles)
        for name, measured in scorecard.build_sound_scorecards(ctx, routes).items()
    }
    for status in statuses:
        figures = last_hour(status.traffic) + lines.get(status.route.name, "")
        with st.container(border=True):
            st.html(_card(status, now, figures))
            _links(status)


def _alerts(open_: Sequence[AlertView], now: datetime) -> None:
    for alert in open_[:MOST_ALERTS]:
        critical = alert.severity is Severity.CRITICAL
        mark, tone = ("✕", Tone.WORSE) if critical else ("?", Tone.UNDECIDED)
        times = f", {alert.count:,} times" if alert.count > 1 else ""
        when = f"First seen {labels.age(alert.first_seen, now)}{times}."
        text = f"{alert.text} {when} Next: {alert.next_step}."
        st.html(
            html.banner(
                f"{mark} {alert.title}.", text, tone=tone, docs_page=f"runbook#{alert.kind}",
                docs_label=labels.RUNBOOK,
            )
        )  # fmt: skip
    if len(open_) > MOST_ALERTS:
        more = labels.plural(len(open_) - MOST_ALERTS, "more alert")
        st.html(html.banner(f"? {more}.", "Alerts and `swapgate alert list --open` have all."))
        page_frame.link("alerts", "All alerts", "notifications")


def _links(status: RouteStatus) -> None:
    with st.container(horizontal=True):
        proposal = status.open_proposal
        if proposal is not None and proposal.phase is ProposalPhase.AWAITING_APPROVAL:
            page_frame.link("proposals", "Decide", "gavel", state="open")
        if compared := proposal.id if proposal is not None else status.verdict_proposal:
            label = "Compare" if proposal else "Last comparison"
            page_frame.link("compare", label, "balance", id=compared)
        route = status.route.name
        if status.last_rollout is not None:
            page_frame.link("canary", "Canary", "monitor_heart", route=route)
        page_frame.link("routes", "History", "history", route=route)


# Of each state of a route: symbol and tone; the words come with the status.
ROUTE_SIGNS: Final[Mapping[RouteState, tuple[str, Tone]]] = {
    RouteState.DOWN: ("✕", Tone.WORSE),
    RouteState.UNPROVED: ("▲", Tone.WORSE),
    RouteState.HARM: ("✕", Tone.WORSE),
    RouteState.ON_FALLBACK: ("▲", Tone.UNDECIDED),
    RouteState.HELD: ("?", Tone.UNDECIDED),
    RouteState.BAKE_HELD: ("?", Tone.UNDECIDED),
    RouteState.PAUSED: ("?", Tone.UNDECIDED),
    RouteState.APPROVAL: ("?", Tone.UNDECIDED),
    RouteState.SUSPECT: ("▲", Tone.UNDECIDED),
    RouteState.ROLLED_BACK: ("✕", Tone.WORSE),
    RouteState.ABORTED: ("✕", Tone.NEUTRAL),
    RouteState.TAKEN_BACK: ("✕", Tone.NEUTRAL),
    RouteState.CANARY: ("◐", Tone.BETTER),
    RouteState.BAKING: ("◐", Tone.BETTER),
    RouteState.EVALUATING: ("◷", Tone.NEUTRAL),
    RouteState.STEADY: ("=", Tone.NEUTRAL),
}


def _headline(overview: RouteOverview, alerts: int, unconfirmed: int) -> tuple[str, str]:
    """alerts: how many are shown below. unconfirmed: break-glasses that wait for a second
    person.
    """
    now, statuses = overview.at, overview.active
    routes = labels.plural(len(overview.names) - len(overview.faults), "route")
    note = f"{routes} · {escape(labels.date_time(now))}"
    also = list_news(statuses, now, mark=strong)[1:]
    needs = describe_needs(
        statuses,
        alerts,
        now,
        unconfirmed=unconfirmed,
        others=overview.others,
        mark=strong,
    )
    return html.keep_units(needs), html.keep_units(" · ".join([*also, note]))


def _card(status: RouteStatus, now: datetime, figures: str) -> str:
    candidate, verdict = status.candidate or status.proposed, status.last_verdict
    beside = f" · candidate {strong(candidate.name)}" if candidate else ""
    why = f'<p class="why">{html.rich(status.reason)}</p>' if status.reason else ""
    if status.outage is not None and status.progress is not RouteState.STEADY:
        why += f'<p class="note">{escape(status.progress_text)}</p>'
    when, proof = "", '<p class="neutral">none yet: no swap was decided here</p>'
    if verdict is not None:
        when, proof = f", {labels.age(verdict.decided_at, now)}", f"<p>{_verdict(status)}</p>"
    return html.block(
        f'<div><span class="name">{escape(status.route.name)}</span> '
        f"<p>{_state(status, now)}</p>"
        f'<p class="note">{_serves(status)}{beside}</p></div>'
        f'{why}<div class="proof"><p class="note">last verdict{escape(when)}</p>{proof}</div>'
        f'<div class="figures">{figures}</div>',
        kind="sg-route",
    )


def _serves(status: RouteStatus) -> str:
    own = strong(status.incumbent.name)
    if not status.serves:
        return f"no model answers; its own is {own}"
    if status.serves != status.incumbent.name:
        by = ", by a kill switch" if status.outage is None else ""
        return f"now served by {strong(status.serves)}, in place of {own}{by}"
    return f"serves {own}"


def _state(status: RouteStatus, now: datetime) -> str:
    symbol, tone = ROUTE_SIGNS[status.state]
    ago = f" {escape(status.ended_ago(now))}" if status.state in ENDED_STATES else ""
    return f"{html.state(Label(symbol, status.state_text, tone))}{ago}"


def _verdict(status: RouteStatus) -> str:
    verdict, validity = status.last_verdict, status.standing
    if verdict is None:
        return '<span class="neutral">none yet</span>'
    stale = validity and not validity.holds and verdict.candidate != status.route.incumbent
    mark = f" {html.pill('STALE', labels.Tone.UNDECIDED)}" if stale else ""
    shown = html.state(labels.verdict_label(verdict))
    end = status.end if status.state in ENDED_STATES else None
    if end is not None and verdict.outcome == "passed":
        shown += f'<span class="neutral">, but {escape(end.clause)}</span>'
    if status.verdict_proposal:
        shown = html.link("compare", shown, id=status.verdict_proposal)
    return f"{shown}{mark}"


def _line(status: RouteStatus, now: datetime) -> html.Row:
    name = status.route.name
    state = _state(status, now)
    if status.last_rollout is not None:
        state = html.link("canary", state, route=name)
    requests = sum(minute.requests for minute in status.traffic)
    failed = sum(minute.failed for minute in status.traffic)
    counted = f"{labels.plural(requests, 'request')}, {failed:,} failed" if requests else "–"
    return {
        "Route": html.link("routes", strong(name), route=name),
        "State": state,
        "Serves": escape(status.serves or "nothing"),
        "Last verdict": _verdict(status),
        "Last hour": counted,
    }


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
    trend = [] if any(t.unpriced for t in traffic) else cost_trend(traffic)
    bars = html.trend(trend, name="cost per 1,000 requests, every 5 min")
    counted = f"{strong(f'{requests:,}')} {'request' if requests == 1 else 'requests'}"
    return f'<p class="note">last hour</p><p>{counted}, {failed:,} failed {bars}</p>'


def cost_trend(traffic: Sequence[TrafficMinute], *, minutes: int = 5) -> list[float]:
    """Computes USD per 1,000 requests in each `minutes` of recorded traffic, oldest first."""
    sums: dict[int, tuple[float, int]] = {}
    for minute in traffic:
        at = int(minute.minute.timestamp()) // (60 * minutes)
        cost_usd, requests = sums.get(at, (0.0, 0))
        sums[at] = (cost_usd + minute.cost_usd, requests + minute.requests)
    return [1000 * cost_usd / n for _, (cost_usd, n) in sorted(sums.items()) if n]


if __name__ == "__main__":
    page_frame.show_page("The overview", show)
