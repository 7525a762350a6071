"""The Routes page answers: which model served this route when, and by which rules?

Dialogs are in `route_settings` and `route_holds`, the chart in `route_timeline`, the policies
in `policies`. Functions that return a text are pure.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import labels, markup, page_frame
from dashboard.dialog_forms import show_openers
from dashboard.markup import escape, faint, strong
from dashboard.views import policies, route_holds, route_timeline
from dashboard.views import route_settings as dialogs
from dashboard.views.route_timeline import RouteView
from harness.app import seed
from harness.canary.canary_state import describe_change
from harness.evals import drift_watches
from harness.evals.drift_watches import DriftStatus
from harness.frame.formatting import DASH, format_estimate
from harness.frame.pagination import PageRequest
from harness.gate.drift import DriftCheckState
from harness.proposals.fallback_chain import ChainEntry
from harness.providers.force import SwitchRecord
from harness.routing.control import routes
from harness.routing.evidence import EvidenceKind
from harness.routing.freeze import FreezeWindow
from harness.routing.reports.scorecard import list_facts
from harness.routing.route_settings import RequestKind, RouteSettings

MOST_SWITCHES: Final = 10
POLICIES_COMMAND: Final = (
    "config",
    "show",
    "--origin",
    "--section",
    "policies",
)


def show() -> None:
    """Shows a route: which model serves, the actions, settings, measurements and history."""
    with page_frame.loading("the route"):
        ctx = page_frame.context()
        names = page_frame.route_names(ctx)
    if not names:
        st.html(markup.title("There is no route yet"))
        page_frame.show_done_message()
        page_frame.show_no_route()
        policies.show()
        return
    # The page's first line is its answer; the choice of the route comes below it.
    top = st.container()
    name = page_frame.choose_route(names)
    if name is None:
        return
    view = route_timeline.load_route(ctx, name)
    with top:
        header(view)
    page_frame.show_done_message()
    page_frame.show_freezes(name)
    actions(view)
    behind(view)
    if view.drift:
        st.html(drift_card(name, view.drift))
        show_openers(route_holds.drift_openers(name, view.drift))
    settings(view)
    _switches(view)
    st.html(measured_section(view, page_frame.titles(page_frame.context())))
    timeline(view)
    versions(view)
    back(view)
    policies.show(view.route.settings.policy)
    page_frame.copy_as_cli(["route", "history", name], POLICIES_COMMAND)


def actions(view: RouteView) -> None:
    """Shows the buttons of a route."""
    name = view.id
    holds = route_holds
    show_openers(
        [
            *holds.lift_openers(name),
            holds.throw.opener(name),
            holds.add.opener(name),
            dialogs.edit_chain.opener(view),
            dialogs.change_settings.opener(view),
            dialogs.add_route.opener(),
            # Break-glass comes last: it is the only action that needs no proof.
            *holds.break_glass_openers(name),
        ]
    )


def header(view: RouteView) -> None:
    """Shows which model serves, since when, and the last change."""
    newest = since = view.history[0]
    for record in view.history:
        if record.route.incumbent != view.route.incumbent:
            break
        # The version that brought in the current incumbent.
        since = record
    st.html(
        markup.title(
            f"{strong(view.name(view.route.incumbent))} serves "
            f"{strong(view.route.name)} since {escape(labels.date_time(since.at))}",
            f"{escape(labels.age(since.at, view.now))} · version {view.route.version} · "
            f"revision {newest.revision} of the routing table · last change: "
            f"{escape(describe_change(newest))}",
        )
    )


def behind(view: RouteView) -> None:
    """Shows whether routers lag behind the table, and where the file differs from the
    database.
    """
    if view.behind:
        words = (
            f"The router still serves revision {view.serving_revision}; the table is at "
            f"{view.history[0].revision}. Read its log, or restart it."
        )
        st.html(markup.banner("STALE.", words))
    about = f"route {view.route.name}"
    installed = page_frame.installation()
    for difference in seed.list_seed_differences(installed.context, installed.settings):
        if difference.subject == about:
            # This is not an error: a promotion changes the database and not the file.
            words = (
                f"{about}: {difference.found}. The database is authoritative; the file only "
                "seeds new routes."
            )
            st.html(markup.note(words))


def settings(view: RouteView) -> None:
    """Shows the route's present settings and its fallbacks."""
    route = view.route
    canary = route.canary
    titles = page_frame.titles(page_frame.context())
    suites = ", ".join(
        f"{titles.get(s.suite, s.suite)} ({s.role.value})" for s in route.settings.suites
    )
    rows = [
        ("Serves", view.name(route.incumbent)),
        (
            "Canary",
            f"{view.name(canary.target)} at {labels.weight(canary.weight_bps)}"
            if canary
            else "none",
        ),
        (
            "Fallbacks",
            ", ".join(view.name(fallback) for fallback in route.fallbacks) or "none",
        ),
        (
            "Overrides",
            overrides(route.settings) or "none: this route answers every kind of request",
        ),
        (
            "Suites",
            suites or "none: a proposal needs at least one primary suite",
        ),
        *([("Candidates", schedule.text)] if (schedule := route.settings.candidates) else []),
        (
            "Policy",
            f"{route.settings.policy} · stakes {route.settings.stakes.value}",
        ),
    ]
    st.html(
        markup.section("Now", route.settings.description)
        + markup.facts((name, escape(fact)) for name, fact in rows)
    )
    if view.chain:
        st.html(fallback_table(route.name, view.chain))


def overrides(how: RouteSettings) -> str:
    named = how.overrides
    return ", ".join(f"{kind.value} → {named[kind]}" for kind in RequestKind if kind in named)


def _switches(view: RouteView) -> None:
    ctx = page_frame.context()
    name = view.route.name
    page = ctx.store.lists.switches(PageRequest(MOST_SWITCHES), route=name)
    windows = [w for w in ctx.freeze_windows if not w.routes or name in w.routes]
    shown = switches_section(page.items, windows, view.now)
    page_frame.show_html(markup.invalid(page.invalid) + shown)


def timeline(view: RouteView) -> None:
    """Shows which model served when, as a chart and as a list."""
    note = "Wide bar: serves. Narrow bar: has a share. Diamond: a change. Times are UTC."
    st.html(markup.section("Which model served when", note))
    chart = route_timeline.draw_route(view, page_frame.palette())
    if chart is None:
        only = f"{view.name(view.route.incumbent)} has served this route from the start."
        st.html(markup.note(only))
    else:
        st.altair_chart(chart, width="stretch", theme=None)
    history(view)


def history(view: RouteView) -> None:
    rows = [
        {
            "Version": f'<span class="phone">Version </span>{record.route.version}',
            "When": _when(record.at),
            "What": strong(describe_change(record)),
            "Serves": escape(view.name(record.route.incumbent)),
            "Canary": escape(
                labels.weight(record.route.canary.weight_bps) if record.route.canary else "–"
            ),
            "By": escape(record.actor),
            "Why": escape(record.reason)
            + (f" {faint(record.verdict)}" if record.verdict else ""),
        }
        for record in view.history
    ]
    note = "Newest first. No entry can be changed or removed."
    st.html(markup.listing("History", note, rows))
    page_frame.show_html(markup.invalid(view.history.invalid))
    if view.history.next is not None:
        shown = f"{len(rows)} of {view.history.total:,} versions"
        st.html(markup.note(f"{shown}; the command below lists older ones."))


def _when(at: datetime) -> str:
    *day, hour, zone = labels.date_time(at).split()
    return f'<span class="date">{escape(" ".join(day))}<br>{escape(f"{hour} {zone}")}</span>'


def versions(view: RouteView) -> None:
    """Compares two versions of the route."""
    if len(view.history) < 2:
        st.html(
            markup.note("This is the first version, so there is nothing to compare it with.")
        )
        return
    by_version = {record.route.version: record for record in view.history}
    name = view.route.name
    numbers = list(by_version)
    left, right = st.columns(2)
    older = left.selectbox(
        "Compare version",
        numbers,
        index=1,
        key=f"older-{name}",
    )
    newer = right.selectbox(
        "with version",
        numbers,
        index=0,
        key=f"newer-{name}",
    )
    difference = routes.describe_difference(by_version[older].route, by_version[newer].route)
    if not difference:
        st.html(markup.note("These two versions are identical."))
        return
    rows = [
        (field, view.name(before), view.name(after))
        for field, (before, after) in difference.items()
    ]
    st.html(markup.changes(("Field", f"Version {older}", f"Version {newer}"), rows))


def back(view: RouteView) -> None:
    """Shows the button that brings a former model back."""
    note = "A model that has served this route before needs no new proof."
    st.html(markup.section("Roll back", note))
    why = "There is no former model: this one has served the route from the start."
    missing = "" if route_timeline.former_versions(view) else why
    show_openers([dialogs.roll_back.opener(view, missing=missing)])


def measured_section(view: RouteView, titles: Mapping[str, str]) -> str:
    """Renders what was measured of the incumbent: scores, cost and latency."""
    bill = view.measured.bill
    traffic = (
        f"{bill.requests:,} requests in {format_estimate(bill.window_s)}"
        if bill.requests
        else "no request in 30 days"
    )
    facts = list_facts(view.measured, lambda at: labels.age(at, view.now), titles)
    rows = [(name[:1].upper() + name[1:], escape(fact or DASH)) for name, fact in facts]
    note = f"{view.name(view.route.incumbent)}, with {traffic}. Latency covers the last day."
    return markup.section("Measured", note) + markup.facts(
        (name, escape(fact)) for name, fact in rows
    )


def fallback_table(route: str, chain: Sequence[ChainEntry]) -> str:
    """Renders the fallback chain with its evidence, and a banner if a waiver has expired."""
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
    shown = markup.section("Fallbacks", "Tried in this order when the route's model fails.")
    shown += markup.table(rows)
    if names := ", ".join(entry.target.name for entry in chain if entry.waiver_expired):
        words = (
            f"{names} continues to serve, but the route cannot be changed as long as it is in "
            f"the chain. Remove it with `swapgate route fallback remove {route} …`, or "
            "evaluate it on the route's suites."
        )
        shown = markup.banner("A waiver has expired.", words) + shown
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


def switches_section(
    records: Sequence[SwitchRecord],
    windows: Sequence[FreezeWindow],
    now: datetime,
) -> str:
    """Renders the route's switches and weekly freezes; empty without any."""
    rows = [
        {
            "State": escape(record.describe_state(now)),
            "Does": escape(str(switch.force)),
            "From": escape(labels.date_time(switch.starts_at or switch.created_at)),
            "Until": escape(labels.date_time(switch.expires_at)) if switch.expires_at else DASH,
            "Routes": escape(switch.route or "all routes"),
            "By": escape(switch.actor),
            "Why": escape(switch.reason),
        }
        for record in records
        for switch in [record.switch]
    ]
    weekly = "".join(
        markup.note(f"Every week, {window}: {window.reason} (from the configuration file).")
        for window in windows
    )
    shown = weekly + markup.table(rows, stacked=True)
    return markup.section("Switches and freezes", "Newest first.") + shown if shown else ""


DRIFT_STATES: Final = {
    "starting": labels.Label("…", "starting", labels.Tone.NEUTRAL),
    "baseline": labels.Label("…", "measuring the baseline", labels.Tone.NEUTRAL),
    "watching": labels.Label("=", "no drift", labels.Tone.NEUTRAL),
    "drifted": labels.Label("✕", "DRIFTED", labels.Tone.WORSE),
}


def drift_card(route: str, statuses: Sequence[DriftStatus]) -> str:
    """Renders the drift watch of a route, and a banner if its model has changed."""
    if not statuses:
        return ""
    note = "Swapgate asks the incumbent the same items at intervals, and compares its answers."
    card = markup.section("Drift watch", note) + markup.table(map(_drift_row, statuses))
    if any(status.state == drift_watches.DRIFTED for status in statuses):
        words = (
            f"`swapgate drift status {route}` shows the answers. Accept the model's present "
            "answers with the button below, or propose another model."
        )
        card = markup.banner("✕ The model behind this route has changed.", words) + card
    return card


def _drift_row(status: DriftStatus) -> markup.Row:
    last = status.last
    evidence = last.evidence if last else None
    ended = "–" if last is None or last.ended_at is None else labels.date_time(last.ended_at)
    if last is not None and last.state is DriftCheckState.NOT_MEASURED:
        ended += " NOT MEASURED"
    return {
        "Suite": strong(status.suite),
        "State": markup.state(DRIFT_STATES[status.state]),
        "Compared": drift_watches.describe_comparison(status.comparisons),
        "Change": escape(evidence.change_text if evidence else "–"),
        "Evidence": escape(evidence.share_text if evidence else "–"),
        "Last": escape(ended),
        "Next": escape(labels.date_time(status.next_at) if status.next_at else "–"),
    }


if __name__ == "__main__":
    page_frame.show_page("The route", show)
