"""The Overview page answers: does any route need me now? It also makes the first route.

States and their reasons come from `harness.operations.route_status`; the page adds signs and
order. With many routes it shows cards only for those where something happens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.labels import Label, Tone
from dashboard.markup import escape, strong
from harness.frame.alerts.alert import NO_SINK, Severity
from harness.frame.alerts.alerts import AlertView
from harness.frame.formatting import DASH, format_score
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.people.access import Actor, Role
from harness.gate.canary_sentences import end_clause
from harness.gate.online.observation import TrafficMinute
from harness.operations.context import Context
from harness.operations.queries import list_alerts, load_target_names
from harness.operations.route_queries import (
    RouteOverview,
    load_overview,
    load_statuses,
)
from harness.operations.route_status import (
    ALERTS_OF_STATES,
    ENDED_STATES,
    RouteState,
    RouteStatus,
    describe_needs,
    list_news,
)
from harness.proposals import first_route
from harness.proposals.break_glass import count_unconfirmed
from harness.proposals.first_route import SIMULATOR, FirstRoute
from harness.providers.registry import registered_providers
from harness.routing.reports import scorecard
from harness.routing.reports.scorecard import RouteScorecard
from harness.routing.reports.traffic_report import format_request_ends, sum_request_ends
from harness.routing.table import Route

MOST_ALERTS: Final = 5  # shown as banners
# The control process queues messages within seconds.
QUEUED_WITHIN: Final = timedelta(minutes=2)
SEVERITY_SIGNS: Final = {
    Severity.CRITICAL: ("✕", Tone.WORSE),
    Severity.WARNING: ("?", Tone.UNDECIDED),
    Severity.INFO: ("=", Tone.NEUTRAL),
}
# With more routes than FEW_ROUTES, only active routes are cards; the others are table rows.
# With more than MOST_CARDS, the page has a search.
FEW_ROUTES: Final = 6
MOST_CARDS: Final = 12
MOST_LINES: Final = 50


def show() -> None:
    """Shows what needs a person, the alerts and the routes; without a route, the first
    steps.
    """
    with page_frame.loading("the routes"):
        ctx = page_frame.context()
        overview = load_overview(ctx)
        routes = ctx.store.lists.routes()
        opened = list_alerts(ctx, PageRequest(MOST_LISTED), open_only=True)
        alerts = sorted(opened, key=lambda a: (-a.severity, -a.last_seen.timestamp()))
    alarming = sum(alert.kind not in ALERTS_OF_STATES for alert in alerts)
    st.html(markup.title(*_headline(overview, alarming, count_unconfirmed(ctx))))
    page_frame.show_html(markup.invalid(routes.invalid))
    page_frame.show_done_message()
    show_next_steps()
    _alerts(ctx, alerts, overview.at)
    page_frame.show_freezes()
    if overview.names:
        _show_routes(ctx, overview, routes)
    else:
        ask_first_route()
    _all_alerts(ctx, alerts, opened.total)
    page_frame.copy_as_cli(["status"], ["alert", "list"])


def _show_routes(
    ctx: Context,
    overview: RouteOverview,
    routes: Page[Route],
) -> None:
    """Shows active routes as cards and the others as lines, with a search if there are many."""
    known = {route.name: route for route in routes}
    models = load_target_names(ctx, {route.incumbent for route in routes})

    def text(name: str) -> str:
        route = known[name]
        return f"{name} {route.settings.description} {models.get(route.incumbent, '')}"

    found = page_frame.find(
        [name for name in overview.names if name in known],
        MOST_CARDS,
        "Find a route",
        "Part of its name, description or model",
        text,
    )
    if known and not found:
        st.html(markup.note("No route's name, description or model contains this text."))
    shown = load_statuses(ctx, overview, found[: MOST_CARDS + MOST_LINES])
    # Shows faults of verdicts and rollouts; code above shows the faults of routes.
    page_frame.show_html(markup.invalid([f for f in shown.invalid if f not in routes.invalid]))
    few = len(overview.names) <= FEW_ROUTES
    cards = [status for status in shown if few or status.state is not RouteState.STEADY]
    cards = cards[:MOST_CARDS]
    _cards(cards, overview.at)
    lines = [status for status in shown if status not in cards][:MOST_LINES]
    if not lines:
        return
    count = f"{len(lines):,} of {len(overview.names):,}"
    if more := len(found) - len(cards) - len(lines):
        count += f". Search above to see the {more:,} others."
    heading = "All other routes" if cards else "All routes"
    st.html(markup.listing(heading, count, [_line(status, overview.at) for status in lines]))


def _cards(statuses: Sequence[RouteStatus], now: datetime) -> None:
    """Shows a card for each route, with its scores and its last hour."""
    ctx = page_frame.context()
    titles = page_frame.titles(ctx)
    routes = [status.route.name for status in statuses]
    lines: Mapping[str, str] = {
        name: score_line(measured, titles)
        for name, measured in scorecard.build_sound_scorecards(ctx, routes).items()
    }
    verdicts = [status.last_verdict for status in statuses if status.last_verdict]
    names = load_target_names(ctx, {verdict.candidate for verdict in verdicts})
    for status in statuses:
        id_ = status.last_verdict.candidate if status.last_verdict else ""
        figures = last_hour(status.traffic) + lines.get(status.route.name, "")
        with st.container(border=True):
            st.html(_card(status, now, figures, names.get(id_, id_)))
            _links(status)


def _alerts(
    ctx: Context,
    open_: Sequence[AlertView],
    now: datetime,
) -> None:
    """Shows the open alerts as banners, and whether their messages are sent."""
    sinks = ctx.sinks.names() if ctx.sinks is not None else ()
    if ctx.sinks is not None and not sinks:
        st.html(markup.note(f"{NO_SINK[:1].upper()}{NO_SINK[1:]}."))
    unsent = [
        alert.first_seen
        for alert in open_
        if not (alert.delivered or alert.waiting or alert.given_up)
        and now - alert.first_seen > QUEUED_WITHIN
        and any(ctx.sinks is not None and ctx.sinks.takes(sink, alert.kind) for sink in sinks)
    ]
    if unsent:
        words = (
            f"No message was sent about {labels.plural(len(unsent), 'open alert')}; the "
            f"oldest opened {labels.age(min(unsent), now)}. The control process sends "
            "messages and ends alerts, and it seems not to run: `swapgate doctor` checks it, "
            "`swapgate serve control` starts it."
        )
        st.html(markup.banner("STALE.", words))
    shown = [alert for alert in open_ if alert.kind not in ALERTS_OF_STATES]
    for alert in shown[:MOST_ALERTS]:
        critical = alert.severity is Severity.CRITICAL
        mark = "✕" if critical else "?"
        tone = Tone.WORSE if critical else Tone.UNDECIDED
        times = f", {alert.count:,} times" if alert.count > 1 else ""
        when = f"First seen {labels.age(alert.first_seen, now)}{times}."
        text = f"{alert.text} {when} Next: {alert.next_step}."
        st.html(
            markup.banner(
                f"{mark} {alert.title}.",
                text,
                tone=tone,
                docs_page=f"runbook#{alert.kind}",
                docs_label=labels.RUNBOOK,
                page=_page_of(alert),
            )
        )
    if more := shown[MOST_ALERTS:]:
        many = labels.plural(len(more), "more alert")
        st.html(markup.banner(f"? {many}.", "“All alerts” below lists them."))


def _all_alerts(
    ctx: Context,
    open_: Sequence[AlertView],
    count: int,
) -> None:
    """Lists the alerts. open_: the open alerts, the most severe first. count: their number."""
    page = list_alerts(ctx, PageRequest(MOST_LINES))
    if not page.total:
        return
    heading = f"All alerts: {count:,} open of {page.total:,}"
    with st.expander(heading, icon=":material/notifications:"):
        over = [alert for alert in page if not alert.open]
        shown = [*open_, *over][:MOST_LINES]
        st.html(markup.table(map(_alert_cells, shown), stacked=True))
        if len(shown) < page.total:
            rest = f"{len(shown):,} of {page.total:,} alerts, open alerts first"
            st.html(markup.note(f"{rest}; `swapgate alert list` lists all."))


def _page_of(alert: AlertView) -> str:
    """Returns the address of the page on which people act on an alert; empty for Overview."""
    return alert.page.removeprefix("/alerts").removeprefix("/")


def _alert_cells(alert: AlertView) -> markup.Row:
    """Builds an alert's row. An open alert has its next step and a link to the runbook."""
    title = f'<b class="long">{escape(alert.title)}</b>'
    if page := _page_of(alert):
        title = f'<a href="{escape(page)}" target="_self">{title}</a>'
    error = f" ({alert.last_error})" if alert.last_error else ""
    lasted = "still open"
    if alert.resolved_at is not None:
        seconds = (alert.resolved_at - alert.first_seen).total_seconds()
        lasted = labels.span(seconds) if seconds >= 1 else DASH
    symbol, tone = SEVERITY_SIGNS[alert.severity]
    text = f"{alert.text} Next: {alert.next_step}." if alert.open else alert.text
    about = escape(alert.subject)
    if alert.open:
        about += f"<br>{markup.docs_link(f'runbook#{alert.kind}', labels.RUNBOOK)}"
    return {
        "Alert": f'{title}<br><span class="note">{markup.rich(text)}</span>',
        "About": about,
        "Severity": markup.state(Label(symbol, alert.severity.name.lower(), tone)),
        "First seen": escape(labels.date_time(alert.first_seen)),
        "Lasted": escape(lasted),
        "Times": labels.count(alert.count),
        "Messages": escape(f"{alert.message_counts or 'none'}{error}"),
    }


def _links(status: RouteStatus) -> None:
    """Shows the links of a card: to the decision, the comparison, the canary and the
    history.
    """
    with st.container(horizontal=True):
        proposal = status.open_proposal
        if status.progress is RouteState.APPROVAL:
            page_frame.link("proposals", "Decide", "gavel", state="open")
        if compared := proposal.id if proposal is not None else status.verdict_proposal:
            label = "Compare" if proposal else "Last comparison"
            page_frame.link("compare", label, "balance", id=compared)
        route = status.route.name
        if status.last_rollout is not None:
            page_frame.link("canary", "Canary", "monitor_heart", route=route)
        page_frame.link("routes", "History", "history", route=route)


ROUTE_SIGNS: Final[Mapping[RouteState, tuple[str, Tone]]] = {
    RouteState.DOWN: ("✕", Tone.WORSE),
    RouteState.UNPROVED: ("▲", Tone.WORSE),
    RouteState.HARM: ("✕", Tone.WORSE),
    RouteState.ON_FALLBACK: ("▲", Tone.UNDECIDED),
    RouteState.HELD: ("?", Tone.UNDECIDED),
    RouteState.BAKE_HELD: ("?", Tone.UNDECIDED),
    RouteState.UNCOMPARED: ("?", Tone.UNDECIDED),
    RouteState.PAUSED: ("?", Tone.UNDECIDED),
    RouteState.APPROVAL: ("?", Tone.UNDECIDED),
    RouteState.SUSPECT: ("▲", Tone.UNDECIDED),
    RouteState.ROLLED_BACK: ("✕", Tone.WORSE),
    RouteState.ABORTED: ("✕", Tone.NEUTRAL),
    RouteState.PROMOTION_ROLLED_BACK: ("✕", Tone.NEUTRAL),
    RouteState.APPROVED: ("◷", Tone.NEUTRAL),
    RouteState.CANARY: ("◐", Tone.BETTER),
    RouteState.BAKING: ("◐", Tone.BETTER),
    RouteState.EVALUATING: ("◷", Tone.NEUTRAL),
    RouteState.STEADY: ("=", Tone.NEUTRAL),
}


def _headline(
    overview: RouteOverview,
    alerts: int,
    unconfirmed: int,
) -> tuple[str, str]:
    """Builds the headline. alerts: number of alerts shown below. unconfirmed: number of
    break-glasses that wait for a second person.
    """
    now = overview.at
    statuses = overview.active
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
    return markup.keep_units(needs), markup.keep_units(" · ".join([*also, note]))


def _card(
    status: RouteStatus,
    now: datetime,
    figures: str,
    verdict_of: str,
) -> str:
    """Renders a route's card. figures: HTML. verdict_of: the name of the model that was
    judged.
    """
    candidate = status.candidate or status.proposed
    verdict = status.last_verdict
    beside = ""
    if candidate:
        rivals = f" and {labels.plural(status.rivals, 'other')}" if status.rivals else ""
        beside = f" · candidate {strong(candidate.name)}{rivals}"
    why = f'<p class="why">{markup.rich(status.reason)}</p>' if status.reason else ""
    if status.outage is not None and status.progress is not RouteState.STEADY:
        why += f'<p class="note">{escape(status.progress_text)}</p>'
    when = ""
    proof = '<p class="neutral">none: no candidate was judged for this route</p>'
    if verdict is not None:
        when = f" on {verdict_of}, {labels.age(verdict.decided_at, now)}"
        proof = f"<p>{_verdict(status)}</p>"
    return markup.block(
        f'<div><span class="name">{escape(status.route.name)}</span> '
        f"<p>{_state(status, now)}</p>"
        f'<p class="note">{_serves(status)}{beside}</p></div>'
        f'{why}<div class="proof"><p class="note">last verdict{escape(when)}</p>{proof}</div>'
        f'<div class="figures">{figures}</div>',
        kind="sg-route",
    )


def _serves(status: RouteStatus) -> str:
    """Says which model answers now, if it is not the incumbent."""
    own = strong(status.incumbent.name)
    if not status.serves:
        return f"no model answers; the incumbent is {own}"
    if status.serves != status.incumbent.name:
        by = ", by a kill switch" if status.outage is None else ""
        return f"now served by {strong(status.serves)}, in place of {own}{by}"
    return f"serves {own}"


def _state(status: RouteStatus, now: datetime) -> str:
    symbol, tone = ROUTE_SIGNS[status.state]
    ago = f" {escape(status.ended_ago(now))}" if status.state in ENDED_STATES else ""
    return f"{markup.state(Label(symbol, status.state_text, tone))}{ago}"


def _verdict(status: RouteStatus) -> str:
    """Renders the last verdict of a route, marked if it is stale or if its swap ended."""
    verdict = status.last_verdict
    validity = status.standing
    if verdict is None:
        return '<span class="neutral">none yet</span>'
    stale = validity and not validity.holds and verdict.candidate != status.route.incumbent
    mark = f" {markup.pill('STALE', labels.Tone.UNDECIDED)}" if stale else ""
    shown = markup.state(labels.verdict_label(verdict))
    end = status.end if status.state in ENDED_STATES else None
    if end is not None and verdict.outcome == "passed":
        shown += f'<span class="neutral">, but {escape(end_clause(end))}</span>'
    if status.verdict_proposal:
        shown = markup.link("compare", shown, id=status.verdict_proposal)
    return f"{shown}{mark}"


def _line(status: RouteStatus, now: datetime) -> markup.Row:
    """Builds the row of a route without a card."""
    name = status.route.name
    state = _state(status, now)
    if status.last_rollout is not None:
        state = markup.link("canary", state, route=name)
    return {
        "Route": markup.link("routes", strong(name), route=name),
        "State": state,
        "Serves": escape(status.serves or "nothing"),
        "Last verdict": _verdict(status),
        "Last hour": format_request_ends(status.traffic) or "–",
    }


def score_line(scorecard: RouteScorecard, titles: Mapping[str, str]) -> str:
    """Renders a route's scores and bill as lines. titles: by suite. Empty if nothing was
    measured.
    """
    scores = [
        f"{escape(titles.get(score.suite, score.suite))} {strong(format_score(score.score))}"
        for score in scorecard.scores
        if score.score is not None
    ]
    lines = [f"scores of 100: {' · '.join(scores)}"] if scores else []
    bill = scorecard.bill
    if bill.requests:
        # With an unknown cost, `month_text` names the missing figure.
        month = f"{'a month ' if bill.month_usd is None else ''}{bill.month_text}"
        lines.append(f"{strong(scorecard.price_text or DASH)} per 1,000 · {escape(month)}")
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def last_hour(traffic: Sequence[TrafficMinute]) -> str:
    """Renders the requests of the last hour, with the trend of their cost if all prices are
    known.
    """
    ends = sum_request_ends(traffic)
    if not ends.requests:
        return '<p class="note">last hour</p><p class="neutral">no request</p>'
    # A minute of unknown price would look like a fall in cost.
    trend = [] if any(t.unpriced for t in traffic) else cost_trend(traffic)
    bars = markup.trend(trend, name="cost per 1,000 requests, every 5 min")
    noun = "request" if ends.requests == 1 else "requests"
    rest = ", ".join((noun, *ends.failures))
    number = strong(f"{ends.requests:,}")
    return f'<p class="note">last hour</p><p>{number} {escape(rest)} {bars}</p>'


def cost_trend(traffic: Sequence[TrafficMinute], *, minutes: int = 5) -> list[float]:
    """Computes USD per 1,000 requests in each `minutes` of recorded traffic, oldest first."""
    sums: dict[int, tuple[float, int]] = {}
    for minute in traffic:
        at = int(minute.minute.timestamp()) // (60 * minutes)
        cost_usd, requests = sums.get(at, (0.0, 0))
        sums[at] = (cost_usd + minute.cost_usd, requests + minute.requests)
    return [1000 * cost_usd / n for _, (cost_usd, n) in sorted(sums.items()) if n]


ABOUT = (
    "A route is the name that your clients send as `model`. One model of a provider answers "
    "its requests; a suite of questions decides whether another model may replace it."
)
SIMULATED = (
    "The simulator needs no key. Start it in a terminal: `swapgate sim`. `swapgate sim "
    "traffic` simulates callers."
)
NO_SUITE: Final = "none yet"
OWN_QUESTIONS = (
    "To use your own questions, first add a suite on Suites. The simulator learns their "
    "answers by `swapgate sim --suite NAME=FILE`."
)
NEXT_PAGES = {
    "proposals": "Proposals: what is being evaluated",
    "canary": "Canary: how a candidate does with callers",
}
MADE = "first-route"  # key of the route that this visitor just created
REFUSED = (
    "The earlier steps of the form are stored. Correct the field and make the route again: "
    "it continues from there."
)


def ask_first_route() -> None:
    """Shows the form for the first route: provider, route and, optionally, a first proposal."""
    note = "You can change everything later. `swapgate init --guided` asks the same questions."
    st.html(markup.section("First steps: make your first route", note))
    st.html(markup.note(ABOUT))
    with st.container(border=True):
        st.html(markup.section("1. Provider", "The provider of the model that serves now."))
        entered = _ask_provider()
    provider = entered.provider
    simulated = entered.provider == SIMULATOR
    with st.container(border=True):
        st.html(
            markup.section(
                "2. Route",
                "What clients send as model, and how its model is judged.",
            )
        )
        known_suites = page_frame.context().suites
        suites = sorted(known_suites.names())
        # A shipped suite decides only for the simulator: it says nothing about a real feature.
        suites = suites if simulated else ["", *suites]
        own_suites = known_suites.own_names()
        usual_suite = entered.suite if simulated else next(iter(own_suites), "")
        policies = sorted(page_frame.context().policies)
        usual = entered.policy if simulated else "default"
        first, second, third = st.columns(3)
        route = first.text_input("Route, the name that clients use", entered.route)
        suite = second.selectbox(
            "Suite that decides",
            suites,
            index=_index(suites, usual_suite),
            format_func=lambda name: name or NO_SUITE,
            key=f"suite-{provider}",
        )
        policy = third.selectbox(
            "Policy",
            policies,
            index=_index(policies, usual),
            key=f"policy-{provider}",
            help="quick decides within minutes, on too little evidence for production.",
        )
        st.html(markup.note(OWN_QUESTIONS))
    with st.container(border=True):
        st.html(
            markup.section(
                "3. First proposal",
                "Its evals start at once. Empty: no proposal yet.",
            )
        )
        candidate = st.text_input(
            "Candidate, another model of this provider",
            entered.candidate if simulated else "",
            key=f"candidate-{provider}",
        )
    _create(
        replace(
            entered,
            route=route.strip(),
            suite=suite or "",
            policy=policy or usual,
            candidate=candidate.strip() if suite else "",
        )
    )


def _ask_provider() -> FirstRoute:
    """Asks for the provider. The simulator needs no key."""
    usual = FirstRoute()
    left, right = st.columns(2)
    provider = left.selectbox(
        "Provider",
        first_route.list_provider_choices(),
        accept_new_options=True,
        help="A kind of provider, or your own name for an OpenAI-compatible server.",
    )
    provider = provider or SIMULATOR
    simulated = provider == SIMULATOR
    address = first_route.find_usual_address(provider)
    api_base = right.text_input("Address", address, key=f"address-{provider}")
    key = ""
    if simulated:
        st.html(markup.note(SIMULATED))
    left, right = st.columns(2)
    model = left.text_input(
        "Model that serves now",
        usual.model if simulated else "",
        key=f"model-{provider}",
    )
    if not simulated:
        key = right.text_input(
            "Key",
            type="password",
            autocomplete="off",
            key=f"key-{provider}",
        )
        right.html(markup.note("Stored encrypted. Leave it empty if no key is needed."))
    return replace(
        usual,
        provider=provider,
        api_base=api_base.strip(),
        key=key,
        model=model.strip(),
    )


def _create(wanted: FirstRoute) -> None:
    """Shows the button that makes the route. After a refusal, a second click continues where
    the first one stopped.
    """

    def make(actor: Actor) -> None:
        first_route.create_first_route(page_frame.context(), actor, wanted)
        st.session_state[MADE] = wanted.route

    done = f"Route {wanted.route} is made."
    missing = "" if wanted.model and wanted.route else "Name the model and the route first."
    missing = missing or current_user.why_not(Role.ADMIN)
    if st.button(
        "Make the route",
        key="make-route",
        type="primary",
        disabled=bool(missing),
    ):
        with st.spinner("Making the route and checking whether its provider answers"):
            current_user.attempt(make, lambda _: done, refused=REFUSED)
    if missing:
        st.html(markup.note(missing))


def _index(names: list[str], wanted: str) -> int:
    return names.index(wanted) if wanted in names else 0


def show_next_steps() -> None:
    """Shows what to do after the first route, to the visitor who made it."""
    route = st.session_state.get(MADE)
    if route is None:
        return
    for check in registered_providers.load_last_check(page_frame.context()).providers:
        for finding in check.findings:
            if finding.next_step:
                words = f"{finding.found}. Next: {finding.next_step}"
                st.html(markup.banner(f"{check.provider}:", words))
    traffic = f"<code>swapgate sim traffic {escape(route)} --until-settled</code>"
    entered = (
        f"<p>Clients send {strong(route)} as the model to the router's address, with a key "
        "from <code>swapgate key create</code>.</p>"
    )
    evaluated = (
        f"<p>The control plane runs a proposal's evals. A canary then needs callers: {traffic} "
        "simulates them with the client key in SWAPGATE_KEY.</p>"
    )
    st.html(markup.block(entered + evaluated))
    for page, label in NEXT_PAGES.items():
        page_frame.link(page, label, "arrow_forward")


if __name__ == "__main__":
    page_frame.show_page("The overview", show)
