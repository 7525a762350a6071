"""The Overview page answers: does any route need me now? It also makes the first route.

States and their reasons come from `harness.operations.route_status`, in their order: routes
that need a person first. The page adds signs and links.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import show_openers
from dashboard.labels import Label, Tone
from dashboard.markup import escape, faint, noted, rich, strong
from dashboard.serving import describe_serving, next_step
from dashboard.views.provider_dialogs import price_openers
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
from harness.routing.reports.traffic_report import sum_request_ends
from harness.routing.table import BUCKETS, Route

MOST_ALERTS: Final = 5  # shown as banners
# The control process queues messages within seconds.
LONGEST_QUEUEING: Final = timedelta(minutes=2)
SEVERITY_SIGNS: Final = {
    Severity.CRITICAL: ("✕", Tone.WORSE),
    Severity.WARNING: ("?", Tone.UNDECIDED),
    Severity.INFO: ("=", Tone.NEUTRAL),
}
SEARCH_FROM: Final = 12  # with more routes, the page has a search
MOST_SCORED: Final = 12  # rows with scores and cost, which take time to read
MOST_TABLE_ROWS: Final = 50


def show() -> None:
    """Shows the work that waits for people, the alerts and the routes. Without a route, shows
    the first steps.
    """
    with page_frame.loading("the routes"):
        ctx = page_frame.context()
        overview = load_overview(ctx)
        routes = ctx.store.lists.routes()
        open_page = list_alerts(ctx, PageRequest(MOST_LISTED), open_only=True)
        alerts = sorted(
            open_page, key=lambda alert: (-alert.severity, -alert.last_seen.timestamp())
        )
    shown_count = sum(alert.kind not in ALERTS_OF_STATES for alert in alerts)
    st.html(markup.title(*_write_headline(overview, shown_count, count_unconfirmed(ctx))))
    page_frame.show_html(markup.invalid(routes.invalid))
    page_frame.show_done_message()
    show_next_steps()
    _show_alerts(ctx, alerts, overview.at)
    page_frame.show_freezes()
    if overview.names:
        _show_routes(ctx, overview, routes)
    else:
        ask_first_route()
    _show_all_alerts(ctx, alerts, open_page.total)
    page_frame.copy_as_cli(["status"], ["alert", "list"])


def _show_routes(
    ctx: Context,
    overview: RouteOverview,
    routes: Page[Route],
) -> None:
    """Shows the routes as a table, with a search if there are many."""
    routes_by_name = {route.name: route for route in routes}
    models = load_target_names(ctx, {route.incumbent for route in routes})

    def describe_route(name: str) -> str:
        route = routes_by_name[name]
        return f"{name} {route.settings.description} {models.get(route.incumbent, '')}"

    matches = page_frame.find(
        [name for name in overview.names if name in routes_by_name],
        SEARCH_FROM,
        "Find a route",
        "Part of its name, description or model",
        describe_route,
    )
    if routes_by_name and not matches:
        st.html(markup.note("No route's name, description or model contains this text."))
    statuses = load_statuses(ctx, overview, matches[:MOST_TABLE_ROWS])
    # Faults of verdicts and rollouts alone, because `show` has shown the routes' faults.
    page_frame.show_html(
        markup.invalid([fault for fault in statuses.invalid if fault not in routes.invalid])
    )
    scored = [status.route.name for status in statuses][:MOST_SCORED]
    scorecards = scorecard.build_sound_scorecards(ctx, scored)
    titles = page_frame.titles(ctx)
    verdicts = [status.last_verdict for status in statuses if status.last_verdict]
    judged = load_target_names(ctx, {verdict.candidate for verdict in verdicts})
    st.html(
        markup.table(
            [
                build_row(
                    status, overview.at, scorecards.get(status.route.name), titles, judged
                )
                for status in statuses
            ],
            stacked=True,
        )
    )
    if len(statuses) > MOST_SCORED:
        st.html(markup.note(f"Only the first {MOST_SCORED} rows show scores and cost."))
    if hidden_count := len(matches) - len(statuses):
        st.html(markup.note(f"Search above to see the {hidden_count:,} others."))
    unpriced = [card.incumbent.name for card in scorecards.values() if card.missing_price]
    show_openers(price_openers(list(dict.fromkeys(unpriced))))
    page_frame.link("proposals", "Propose a swap", "add")


def _show_alerts(
    ctx: Context,
    open_alerts: Sequence[AlertView],
    now: datetime,
) -> None:
    """Shows the open alerts as banners, and whether their messages are sent."""
    sinks = ctx.sinks.names() if ctx.sinks is not None else ()
    if ctx.sinks is not None and not sinks:
        st.html(markup.note(f"{NO_SINK[:1].upper()}{NO_SINK[1:]}."))
    unsent_since = [
        alert.first_seen
        for alert in open_alerts
        if not (alert.delivered or alert.waiting or alert.given_up)
        and now - alert.first_seen > LONGEST_QUEUEING
        and any(ctx.sinks is not None and ctx.sinks.takes(sink, alert.kind) for sink in sinks)
    ]
    if unsent_since:
        text = (
            f"No message was sent about {labels.plural(len(unsent_since), 'open alert')}; the "
            f"oldest opened {labels.age(min(unsent_since), now)}. The control process sends "
            "messages and ends alerts, and it seems not to run: `swapproof doctor` checks it, "
            "`swapproof serve control` starts it."
        )
        st.html(markup.banner("STALE.", text))
    visible = [alert for alert in open_alerts if alert.kind not in ALERTS_OF_STATES]
    for alert in visible[:MOST_ALERTS]:
        critical = alert.severity is Severity.CRITICAL
        symbol = "✕" if critical else "?"
        tone = Tone.WORSE if critical else Tone.UNDECIDED
        times = f", {alert.count:,} times" if alert.count > 1 else ""
        first_seen = f"First seen {labels.age(alert.first_seen, now)}{times}."
        text = f"{alert.text} {first_seen} Next: {alert.next_step}."
        st.html(
            markup.banner(
                f"{symbol} {alert.title}.",
                text,
                tone=tone,
                docs_page=f"runbook#{alert.kind}",
                docs_label=labels.RUNBOOK,
                page=_find_page(alert),
            )
        )
    if other_alerts := visible[MOST_ALERTS:]:
        count_text = labels.plural(len(other_alerts), "more alert")
        st.html(markup.banner(f"? {count_text}.", "“All alerts” below lists them."))


def _show_all_alerts(
    ctx: Context,
    open_alerts: Sequence[AlertView],
    open_count: int,
) -> None:
    """Lists the alerts.

    Args:
        open_alerts: the most severe first.
        open_count: the number of all open alerts.
    """
    page = list_alerts(ctx, PageRequest(MOST_TABLE_ROWS))
    if not page.total:
        return
    heading = f"All alerts: {open_count:,} open of {page.total:,}"
    with st.expander(heading, icon=":material/notifications:"):
        ended = [alert for alert in page if not alert.open]
        listed = [*open_alerts, *ended][:MOST_TABLE_ROWS]
        st.html(markup.table(map(_build_alert_row, listed), stacked=True))
        if len(listed) < page.total:
            count_text = f"{len(listed):,} of {page.total:,} alerts, open alerts first"
            st.html(markup.note(f"{count_text}; `swapproof alert list` lists all."))


def _find_page(alert: AlertView) -> str:
    """Returns the address of the page on which people act on an alert; empty for Overview."""
    return alert.page.removeprefix("/alerts").removeprefix("/")


def _build_alert_row(alert: AlertView) -> markup.Row:
    """Builds an alert's row. An open alert has its next step and a link to the runbook."""
    title = f'<b class="long">{escape(alert.title)}</b>'
    if page := _find_page(alert):
        title = f'<a href="{escape(page)}" target="_self">{title}</a>'
    error = f" ({alert.last_error})" if alert.last_error else ""
    duration = "still open"
    if alert.resolved_at is not None:
        seconds = (alert.resolved_at - alert.first_seen).total_seconds()
        duration = labels.span(seconds) if seconds >= 1 else DASH
    symbol, tone = SEVERITY_SIGNS[alert.severity]
    text = f"{alert.text} Next: {alert.next_step}." if alert.open else alert.text
    subject = escape(alert.subject)
    if alert.open:
        subject += f"<br>{markup.docs_link(f'runbook#{alert.kind}', labels.RUNBOOK)}"
    return {
        "Alert": f'{title}<br><span class="note">{markup.rich(text)}</span>',
        "About": subject,
        "Severity": markup.state(Label(symbol, alert.severity.name.lower(), tone)),
        "First seen": rich(labels.date_time(alert.first_seen)),
        "Lasted": escape(duration),
        "Times": labels.count(alert.count),
        "Messages": escape(f"{alert.message_counts or 'none'}{error}"),
    }


# The states that are no canary's; `labels.CANARY_SIGNS` has a canary's.
ROUTE_SIGNS: Final[Mapping[RouteState, tuple[str, Tone]]] = {
    RouteState.DOWN: ("✕", Tone.WORSE),
    RouteState.UNPROVED: ("▲", Tone.WORSE),
    RouteState.ON_FALLBACK: ("▲", Tone.UNDECIDED),
    RouteState.APPROVAL: ("?", Tone.UNDECIDED),
    RouteState.LABELS: ("?", Tone.UNDECIDED),
    RouteState.APPROVED: ("◷", Tone.NEUTRAL),
    RouteState.EVALUATING: ("◷", Tone.NEUTRAL),
    RouteState.NO_ROUTER: ("?", Tone.UNDECIDED),
    RouteState.STEADY: ("=", Tone.NEUTRAL),
}


def _write_headline(
    overview: RouteOverview,
    alerts: int,
    unconfirmed: int,
) -> tuple[str, str]:
    """Writes the headline, and a note below it.

    Args:
        alerts: number of alerts that the page shows.
        unconfirmed: number of break-glasses that wait for a second person.
    """
    now = overview.at
    statuses = overview.active
    routes = labels.plural(len(overview.names) - len(overview.faults), "route")
    note = f"{routes} · {rich(labels.date_time(now))}"
    news = list_news(statuses, now, mark=strong)[1:]
    needs = describe_needs(
        statuses,
        alerts,
        now,
        unconfirmed=unconfirmed,
        others=overview.others,
        has_router=overview.now.has_router,
        mark=strong,
    )
    return markup.keep_units(needs), markup.keep_units(" · ".join([*news, note]))


def build_row(
    status: RouteStatus,
    now: datetime,
    route_scorecard: RouteScorecard | None,
    titles: Mapping[str, str],
    judged: Mapping[str, str],
) -> markup.Row:
    """Builds a route's row.

    Args:
        titles: of suites, by name.
        judged: names of the verdicts' candidates, by id.
    """
    name = status.route.name
    reason = (
        f'<br><span class="note">{markup.rich(status.reason)}</span>' if status.reason else ""
    )
    if status.outage is not None:
        reason += f"<br>{markup.link('/providers', next_step(status))}"
        if status.progress is not RouteState.STEADY:
            reason += f"<br>{faint(status.progress_text)}"
    scores = _render_scores(route_scorecard, titles) if route_scorecard else ""
    reason += _render_countdowns(status)
    return {
        "Route": markup.link("routes", strong(name), route=name),
        "State": f"{_link_state(status, now)}{reason}",
        "Serves": noted(*describe_serving(status)),
        "Candidate's share": _render_share(status),
        "Last verdict": f"{_render_verdict(status, now, judged)}{scores}",
        "Last hour": last_hour(status.traffic),
        "Cost": _render_cost(route_scorecard),
    }


def _render_countdowns(status: RouteStatus) -> str:
    """Renders a line for each of the route's models that ends, with the command to run next."""
    texts = [f"{ending.text}. To go on: `{ending.next}`." for ending in status.endings]
    return "".join(f'<br><span class="note">{markup.rich(text)}</span>' for text in texts)


def _link_state(status: RouteStatus, now: datetime) -> str:
    """Renders a route's state, with a link to the page on which people act on it."""
    state = _render_state(status, now)
    if status.progress is RouteState.APPROVAL:
        return markup.link("proposals", state, state="open")
    if status.progress is RouteState.LABELS:
        return markup.link("labels", state)
    if status.open_proposal is not None and status.rollout is None:
        return markup.link("compare", state, id=status.open_proposal.id)
    if status.last_rollout is not None:
        return markup.link("canary", state, route=status.route.name)
    return state


def _render_share(status: RouteStatus) -> str:
    """Renders the candidate and its share of the callers, as a bar that fills."""
    experiment = status.route.experiment
    candidate = status.candidate or status.proposed
    if experiment is not None and experiment.control:
        candidate = status.incumbent  # in a bake, the promoted candidate is the incumbent
    if candidate is None:
        return DASH
    rivals = f" and {labels.plural(status.rivals, 'other')}" if status.rivals else ""
    name = f"{candidate.name}{rivals}"
    if experiment is None:
        return noted(escape(name), "no share yet")
    share_bps = experiment.candidate_bps
    meter = markup.meter("Candidate's share", share_bps / BUCKETS, Tone.BETTER)
    return f"{meter}{noted(escape(labels.weight(share_bps)), name)}"


def _render_state(status: RouteStatus, now: datetime) -> str:
    canary = status.canary_state
    if status.state in ROUTE_SIGNS or canary is None:
        symbol, tone = ROUTE_SIGNS[status.state]
    else:
        symbol, tone = labels.CANARY_SIGNS[canary.kind]
    age = f" {escape(status.ended_ago(now))}" if status.state in ENDED_STATES else ""
    return f"{markup.state(Label(symbol, status.state_text, tone))}{age}"


def _render_verdict(status: RouteStatus, now: datetime, judged: Mapping[str, str]) -> str:
    """Renders the last verdict of a route with its candidate, and a mark if it is stale or if
    its swap ended.
    """
    verdict = status.last_verdict
    validity = status.standing
    if verdict is None:
        return '<span class="neutral">none yet</span>'
    is_stale = validity and not validity.holds and verdict.candidate != status.route.incumbent
    mark = f" {markup.pill('STALE', labels.Tone.UNDECIDED)}" if is_stale else ""
    verdict_html = markup.state(labels.verdict_label(verdict))
    end = status.end if status.state in ENDED_STATES else None
    if end is not None and verdict.outcome == "passed":
        verdict_html += f'<span class="neutral">, but {escape(end_clause(end))}</span>'
    if status.verdict_proposal:
        verdict_html = markup.link("compare", verdict_html, id=status.verdict_proposal)
    candidate = judged.get(verdict.candidate, verdict.candidate)
    origin = faint(f"on {candidate}, {labels.age(verdict.decided_at, now)}")
    return f"{verdict_html}{mark} {origin}"


def _render_scores(route_scorecard: RouteScorecard, titles: Mapping[str, str]) -> str:
    """Renders a route's scores; empty without measurements."""
    scores = [
        f"{titles.get(score.suite, score.suite)} {format_score(score.score)}"
        for score in route_scorecard.scores
        if not score.hidden and score.score is not None
    ]
    texts = [f"the incumbent's scores of 100: {', '.join(scores)}"] if scores else []
    # Several suites may be hidden for the same reason.
    reasons = dict.fromkeys(score.hidden for score in route_scorecard.scores if score.hidden)
    texts += [f"scores are {reason}" for reason in reasons]
    return "".join(f"<br>{faint(text)}" for text in texts)


def last_hour(traffic: Sequence[TrafficMinute]) -> str:
    """Renders the requests of the last hour by their ends, with the trend of their cost if all
    prices are known.
    """
    request_ends = sum_request_ends(traffic)
    if not request_ends.requests:
        return '<span class="neutral">no request</span>'
    # A minute of unknown price would look like a fall in cost.
    trend = [] if any(minute.unpriced for minute in traffic) else cost_trend(traffic)
    bars = markup.trend(trend, name="cost per 1,000 requests, every 5 min")
    noun = "request" if request_ends.requests == 1 else "requests"
    number = f"{strong(f'{request_ends.requests:,}')} {noun} {bars}"
    return noted(number, ", ".join(request_ends.failures))


def _render_cost(route_scorecard: RouteScorecard | None) -> str:
    """Renders the price of 1,000 requests and the month's bill, or the command that sets a
    missing price.
    """
    if route_scorecard is None:
        return DASH
    if missing := route_scorecard.missing_price:
        return f'<span class="note">{rich(f"{missing[:1].upper()}{missing[1:]}.")}</span>'
    bill = route_scorecard.bill
    if not bill.requests:
        return DASH
    price = f"{strong(route_scorecard.price_text or DASH)} per 1,000"
    # Compare and the command line say why the month is unknown.
    month = bill.month_text if bill.month_usd is not None else "a month unknown"
    return noted(price, month)


def cost_trend(traffic: Sequence[TrafficMinute], *, minutes: int = 5) -> list[float]:
    """Computes USD per 1,000 requests in each `minutes` of recorded traffic, oldest first."""
    sums: dict[int, tuple[float, int]] = {}
    for minute in traffic:
        period = int(minute.minute.timestamp()) // (60 * minutes)
        cost_usd, requests = sums.get(period, (0.0, 0))
        sums[period] = (cost_usd + minute.cost_usd, requests + minute.requests)
    return [1000 * cost_usd / count for _, (cost_usd, count) in sorted(sums.items()) if count]


ABOUT_ROUTES = (
    "A route is the name that your clients send as `model`. One model of a provider answers "
    "its requests; a suite of questions decides whether another model may replace it."
)
SIMULATOR_NOTE = (
    "The simulator needs no key. Start it in a terminal: `swapproof sim`. `swapproof sim "
    "traffic` simulates callers."
)
NO_SUITE: Final = "none yet"
OWN_SUITE_NOTE = (
    "To use your own questions, first add a suite on Suites. The simulator learns their "
    "answers by `swapproof sim --suite NAME=FILE`."
)
NEXT_PAGES = {
    "proposals": "Proposals: what is being evaluated",
    "canary": "Canary: how a candidate does with callers",
}
CREATED_ROUTE_KEY = "first-route"  # session key of the route that this visitor just created
REFUSAL_NOTE = (
    "The earlier steps of the form are stored. Correct the field and make the route again: "
    "it continues from there."
)


def ask_first_route() -> None:
    """Shows the form for the first route: provider, route and, optionally, a first proposal."""
    note = "You can change everything later. `swapproof init --guided` asks the same questions."
    st.html(markup.section("First steps: make your first route", note))
    st.html(markup.note(ABOUT_ROUTES))
    with st.container(border=True):
        st.html(markup.section("1. Provider", "The provider of the model that serves now."))
        draft = _ask_provider()
    provider = draft.provider
    is_simulated = draft.provider == SIMULATOR
    with st.container(border=True):
        st.html(
            markup.section(
                "2. Route",
                "What clients send as model, and how its model is judged.",
            )
        )
        known_suites = page_frame.context().suites
        suites = sorted(known_suites.names())
        suites = suites if is_simulated else ["", *suites]
        policies = sorted(page_frame.context().policies)
        left, middle, right = st.columns(3)
        route = left.text_input("Route, the name that clients use", draft.route)
        suite = middle.selectbox(
            "Suite that decides",
            suites,
            index=_find_index(suites, draft.suite),
            format_func=lambda name: name or NO_SUITE,
            key=f"suite-{provider}",
        )
        policy = right.selectbox(
            "Policy",
            policies,
            index=_find_index(policies, draft.policy),
            key=f"policy-{provider}",
            help="quick decides within minutes, on too little evidence for production.",
        )
        st.html(markup.note(OWN_SUITE_NOTE))
    with st.container(border=True):
        st.html(
            markup.section(
                "3. First proposal",
                "Its evals start at once. Empty: no proposal yet.",
            )
        )
        candidate = st.text_input(
            "Candidate, another model of this provider",
            draft.candidate,
            key=f"candidate-{provider}",
        )
    _show_create_button(
        replace(
            draft,
            route=route.strip(),
            suite=suite or "",
            policy=policy or draft.policy,
            candidate=candidate.strip() if suite else "",
        )
    )


def _ask_provider() -> FirstRoute:
    """Asks for the provider. The simulator needs no key. Returns the suggestions for the other
    answers.
    """
    left, right = st.columns(2)
    provider = left.selectbox(
        "Provider",
        first_route.list_provider_choices(),
        accept_new_options=True,
        help="A kind of provider, or your own name for an OpenAI-compatible server.",
    )
    provider = provider or SIMULATOR
    is_simulated = provider == SIMULATOR
    own_suites = page_frame.context().suites.list_own_names()
    suggestion = first_route.suggest_first_route(provider, own_suites)
    api_base = right.text_input("Address", suggestion.api_base, key=f"address-{provider}")
    key = ""
    if is_simulated:
        st.html(markup.note(SIMULATOR_NOTE))
    left, right = st.columns(2)
    model = left.text_input(
        "Model that serves now",
        suggestion.model,
        key=f"model-{provider}",
    )
    if not is_simulated:
        key = right.text_input(
            "Key",
            type="password",
            autocomplete="off",
            key=f"key-{provider}",
        )
        right.html(markup.note("Stored encrypted. Leave it empty if no key is needed."))
    return replace(
        suggestion,
        api_base=api_base.strip(),
        key=key,
        model=model.strip(),
    )


def _show_create_button(draft: FirstRoute) -> None:
    """Shows the button that makes the route. After a refusal, a second click continues where
    the first one stopped.
    """

    def make(actor: Actor) -> None:
        first_route.create_first_route(page_frame.context(), actor, draft)
        st.session_state[CREATED_ROUTE_KEY] = draft.route

    done_text = f"Route {draft.route} is made."
    obstacle = "" if draft.model and draft.route else "Name the model and the route first."
    obstacle = obstacle or current_user.why_not(Role.ADMIN)
    if st.button(
        "Make the route",
        key="make-route",
        type="primary",
        disabled=bool(obstacle),
    ):
        with st.spinner("Making the route and checking whether its provider answers"):
            current_user.attempt(make, lambda _: done_text, refused=REFUSAL_NOTE)
    if obstacle:
        st.html(markup.note(obstacle))


def _find_index(names: list[str], name: str) -> int:
    return names.index(name) if name in names else 0


def show_next_steps() -> None:
    """Shows the next steps after the first route to the visitor who made the route."""
    route = st.session_state.get(CREATED_ROUTE_KEY)
    if route is None:
        return
    for check in registered_providers.load_last_check(page_frame.context()).providers:
        for finding in check.findings:
            if finding.next_step:
                text = f"{finding.found}. Next: {finding.next_step}"
                st.html(markup.banner(f"{check.provider}:", text))
    command = f"<code>swapproof sim traffic {escape(route)} --until-settled</code>"
    client_note = (
        f"<p>Clients send {strong(route)} as the model to the router's address, with a key "
        "from <code>swapproof key create</code>.</p>"
    )
    canary_note = (
        f"<p>The control plane runs a proposal's evals. A canary then needs callers: {command} "
        "simulates them with the client key in SWAPPROOF_KEY.</p>"
    )
    st.html(markup.block(client_note + canary_note))
    for page, label in NEXT_PAGES.items():
        page_frame.link(page, label, "arrow_forward")


if __name__ == "__main__":
    page_frame.show_page("The overview", show)
