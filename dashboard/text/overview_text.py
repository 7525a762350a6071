"""Writes the Overview page's texts: its first line, a route's card (state with its reason, last
verdict), and the table of the routes that nobody waits for.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from dashboard.text.labels import Label, Tone
from harness.control.routing.queries import RouteOverview
from harness.control.routing.route_status import (
    ENDED_STATES,
    RouteState,
    RouteStatus,
    describe_needs,
    list_news,
)

# Of each state of a route: symbol and tone; the words come with the status.
ROUTE_SIGNS: Final[Mapping[RouteState, tuple[str, Tone]]] = {
    RouteState.UNPROVED: ("▲", Tone.WORSE),
    RouteState.HARM: ("✕", Tone.WORSE),
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
    RouteState.SHADOW: ("◐", Tone.BETTER),
    RouteState.EVALUATING: ("◷", Tone.NEUTRAL),
    RouteState.STEADY: ("=", Tone.NEUTRAL),
}

TABLE_HEADS: Final = ("Route", "State", "Serves", "Last verdict", "Last hour")


def headline(overview: RouteOverview, alerts: int, unconfirmed: int) -> tuple[str, str]:
    """Answers as HTML whether a route needs somebody now; what ended lately follows.

    alerts: how many are shown below. unconfirmed: break-glasses that wait for a second person.
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


def card(status: RouteStatus, now: datetime, figures: str) -> str:
    """Renders a route's card. figures: HTML of what is measured."""
    why = f'<p class="why">{html.rich(status.reason)}</p>' if status.reason else ""
    return html.block(
        f'<div>{_who(status, now)}</div>{why}<div class="proof">{_proof(status, now)}</div>'
        f'<div class="figures">{figures}</div>',
        kind="sg-route",
    )


def _who(status: RouteStatus, now: datetime) -> str:
    candidate = status.candidate or status.proposed
    beside = f" · candidate {strong(candidate.name)}" if candidate else ""
    return (
        f'<span class="name">{escape(status.route.name)}</span> '
        f"<p>{_state(status, now)}</p>"
        f'<p class="note">serves {strong(status.incumbent.name)}{beside}</p>'
    )


def label(status: RouteStatus) -> Label:
    """How a route's state is shown."""
    symbol, tone = ROUTE_SIGNS[status.state]
    return Label(symbol, status.state_text, tone)


def _state(status: RouteStatus, now: datetime) -> str:
    ago = f" {escape(status.ended_ago(now))}" if status.state in ENDED_STATES else ""
    return f"{html.state(label(status))}{ago}"


def _proof(status: RouteStatus, now: datetime) -> str:
    verdict = status.last_verdict
    if verdict is None:
        return (
            '<p class="note">last verdict</p><p class="neutral">none yet: no swap was decided '
            "here</p>"
        )
    when = labels.age(verdict.decided_at, now)
    return f'<p class="note">last verdict, {escape(when)}</p><p>{_verdict(status)}</p>'


def _verdict(status: RouteStatus) -> str:
    """The last verdict, which leads to its comparison, and whether it is stale."""
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


def table(statuses: Sequence[RouteStatus], now: datetime) -> str:
    """Renders many routes, a line each."""
    return html.table(TABLE_HEADS, [_line(status, now) for status in statuses], stacked=True)


def _line(status: RouteStatus, now: datetime) -> Sequence[str]:
    name = status.route.name
    state = _state(status, now)
    if status.last_rollout is not None:
        state = html.link("canary", state, route=name)
    requests = sum(minute.requests for minute in status.traffic)
    failed = sum(minute.failed for minute in status.traffic)
    return (
        html.link("routes", strong(name), route=name),
        state,
        escape(status.incumbent.name),
        _verdict(status),
        f"{labels.plural(requests, 'request')}, {failed:,} failed" if requests else "–",
    )
