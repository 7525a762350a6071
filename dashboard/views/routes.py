"""The Routes page answers: which models served this route at which times, and by which rules?

Dialogs are in `route_settings` and `route_holds`, the chart in `route_timeline`, the policies
in `policies`. Functions that return a text are pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import streamlit as st

from dashboard import labels, markup, page_frame
from dashboard.dialog_forms import show_openers
from dashboard.markup import escape, faint, rich, strong
from dashboard.resource_page import ResourceList, ResourcePage
from dashboard.views import policies, route_holds, route_timeline
from dashboard.views import route_settings as dialogs
from dashboard.views.route_timeline import RouteView
from harness.app import seed
from harness.canary.canary_state import describe_change
from harness.evals import drift_watches
from harness.evals.drift_watches import DriftStatus
from harness.frame.formatting import DASH, format_estimate
from harness.frame.pagination import Page, PageRequest
from harness.gate.drift import DriftCheckState
from harness.operations.context import Context
from harness.proposals.fallback_chain import ChainEntry
from harness.providers.force import SwitchRecord
from harness.routing.control import routes
from harness.routing.evidence import EvidenceKind
from harness.routing.freeze import FreezeWindow
from harness.routing.reports.scorecard import list_facts
from harness.routing.route_settings import RouteSettings, place_predicate
from harness.routing.spare import Spare
from harness.routing.table import RouteRecord

MOST_SWITCHES: Final = 10
POLICIES_COMMAND: Final = (
    "config",
    "show",
    "--origin",
    "--section",
    "policies",
)


@dataclass(frozen=True, slots=True)
class RoutePage:
    """The page's data."""

    view: RouteView
    switches: Page[SwitchRecord]  # the newest switches and freezes
    weekly: Sequence[FreezeWindow]  # freezes of the configuration file
    differences: Sequence[str]  # between the configuration file and the database
    titles: Mapping[str, str]  # titles of the suites


def load(ctx: Context, name: str) -> RoutePage:
    """Loads a route with its switches, and its differences from the configuration file.

    Raises NotFound.
    """
    settings = page_frame.installation().settings
    subject = f"route {name}"
    return RoutePage(
        view=route_timeline.load_route(ctx, name),
        switches=ctx.store.lists.switches(PageRequest(MOST_SWITCHES), route=name),
        weekly=[
            window
            for window in ctx.freeze_windows
            if not window.routes or name in window.routes
        ],
        differences=[
            f"{subject}: {difference.found}"
            for difference in seed.list_seed_differences(ctx, settings)
            if difference.subject == subject
        ],
        titles=page_frame.titles(ctx),
    )


def show() -> None:
    """Shows the route that the visitor chooses. Without routes, shows how to create one."""
    with page_frame.loading("the routes"):
        names = page_frame.route_names(page_frame.context())
    if not names:
        st.html(markup.title("There is no route yet"))
        page_frame.show_done_message()
        page_frame.show_no_route()
        policies.show()
        return
    # The page's first line is its answer; the choice of the route comes below it.
    top = st.container()
    name = page_frame.choose_route(names)
    if name is not None:
        PAGE.draw(name, top)
        page_frame.copy_as_cli(*PAGE.commands(name))


def _show_actions(page: RoutePage) -> None:
    """Shows the buttons of a route."""
    name = page.view.id
    show_openers(
        [
            *route_holds.lift_openers(name),
            route_holds.throw.opener(name),
            route_holds.add.opener(name),
            dialogs.edit_chain.opener(page.view),
            dialogs.change_settings.opener(page.view),
            dialogs.add_route.opener(),
            # Break-glass comes last: it is the only action that needs no proof.
            *route_holds.break_glass_openers(name),
        ]
    )


def _write_title(page: RoutePage) -> tuple[str, str]:
    """Writes the serving model with the time of its start, and a note about the last change."""
    view = page.view
    newest = first_of_incumbent = view.history[0]
    for record in view.history:
        if record.route.incumbent != view.route.incumbent:
            break
        # The loop ends with the version that brought in the current incumbent.
        first_of_incumbent = record
    heading = (
        f"{strong(view.name(view.route.incumbent))} serves "
        f"{strong(view.route.name)} since {rich(labels.date_time(first_of_incumbent.at))}"
    )
    note = (
        f"{labels.age(first_of_incumbent.at, view.now)} · version {view.route.version} · "
        f"revision {newest.revision} of the routing table · last change: "
        f"{describe_change(newest)}"
    )
    return heading, escape(note)


def _warn_of_differences(page: RoutePage) -> None:
    """Warns if a router serves an old revision, and shows where the configuration file differs
    from the database.
    """
    view = page.view
    if view.behind:
        text = (
            f"The router still serves revision {view.serving_revision}; the table is at "
            f"{view.history[0].revision}. Read its log, or restart it."
        )
        st.html(markup.banner("STALE.", text))
    for difference in page.differences:
        # This is not an error: a promotion changes the database and not the file.
        text = "The database is authoritative; the file only seeds new routes."
        st.html(markup.note(f"{difference}. {text}"))


def _show_settings(page: RoutePage) -> None:
    """Shows the route's present settings and its fallbacks."""
    view = page.view
    route = view.route
    canary = route.canary
    titles = page.titles
    suites = ", ".join(
        f"{titles.get(suite.suite, suite.suite)} ({suite.role.value})"
        for suite in route.settings.suites
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
    if view.spares:
        st.html(spare_table(view.spares))


def overrides(settings: RouteSettings) -> str:
    targets = settings.overrides
    ordered = sorted(targets, key=place_predicate)
    return ", ".join(f"{predicate} → {targets[predicate]}" for predicate in ordered)


def _show_timeline(page: RoutePage) -> None:
    """Draws the models that served over time."""
    view = page.view
    note = "Wide bar: incumbent. Narrow bar: share of the traffic. Diamond: change."
    st.html(markup.section("Which model served when", note))
    chart = route_timeline.draw_route(view, page_frame.palette())
    if chart is None:
        text = f"{view.name(view.route.incumbent)} has served this route from the start."
        st.html(markup.note(text))
    else:
        st.altair_chart(chart, width="stretch", theme=None)


def _build_version_row(page: RoutePage, record: RouteRecord) -> markup.Row:
    view = page.view
    canary = record.route.canary
    return {
        "Version": f'<span class="phone">Version </span>{record.route.version}',
        "When": rich(labels.date_time(record.at)),
        "What": strong(describe_change(record)),
        "Serves": escape(view.name(record.route.incumbent)),
        "Canary": escape(labels.weight(canary.weight_bps) if canary else "–"),
        "By": escape(record.actor),
        "Why": rich(record.reason) + (f" {faint(record.verdict)}" if record.verdict else ""),
    }


def _compare_versions(page: RoutePage) -> None:
    """Compares two versions of the route."""
    view = page.view
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


def _show_rollback(page: RoutePage) -> None:
    """Shows the button that brings a former model back."""
    view = page.view
    note = "A model that has served this route before needs no new proof."
    st.html(markup.section("Roll back", note))
    no_former_model = "There is no former model: this one has served the route from the start."
    obstacle = "" if route_timeline.former_versions(view) else no_former_model
    show_openers([dialogs.roll_back.opener(view, missing=obstacle)])


def measured_section(view: RouteView, titles: Mapping[str, str]) -> str:
    """Renders the measured scores, cost and latency of the incumbent."""
    bill = view.measured.bill
    traffic = (
        f"{bill.requests:,} requests in {format_estimate(bill.window_s)}"
        if bill.requests
        else "no request in 30 days"
    )
    facts = list_facts(view.measured, lambda at: labels.age(at, view.now), titles)
    rows = [(name[:1].upper() + name[1:], escape(fact or DASH)) for name, fact in facts]
    note = f"{view.name(view.route.incumbent)}, with {traffic}. Latency covers the last day."
    return markup.section("Measured", note) + markup.facts(rows)


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
    section = markup.section("Fallbacks", "Tried in this order when the route's model fails.")
    section += markup.table(rows)
    if expired_names := ", ".join(entry.target.name for entry in chain if entry.waiver_expired):
        text = (
            f"{expired_names} continues to serve, but the route cannot be changed as long as "
            f"it is in the chain. Remove it with `swapproof route fallback remove {route} …`, "
            "or evaluate it on the route's suites."
        )
        section = markup.banner("A waiver has expired.", text) + section
    return section


def spare_table(route_spares: Sequence[Spare]) -> str:
    """Renders the spares, each with its proof and the proof's age."""
    note = "Whether the suites showed that a model is not worse than the route's model."
    rows = [
        {
            "Model": escape(spare.name),
            "Place": str(spare.place or DASH),
            "Proof": escape(spare.proof_text),
        }
        for spare in route_spares
    ]
    return markup.section("Spares", note) + markup.table(rows)


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
            end_word = "expired" if entry.waiver_expired else "until"
            expiry = labels.date_time(waiver.expires_at)
            return f"waiver of {waiver.author}, {end_word} {expiry}: {waiver.reason}"


def _build_switch_row(page: RoutePage, record: SwitchRecord) -> markup.Row:
    switch = record.switch
    return {
        "State": escape(record.describe_state(page.view.now)),
        "Does": escape(str(switch.force)),
        "From": rich(labels.date_time(switch.starts_at or switch.created_at)),
        "Until": rich(labels.date_time(switch.expires_at)) if switch.expires_at else DASH,
        "Routes": escape(switch.route or "all routes"),
        "By": escape(switch.actor),
        "Why": escape(switch.reason),
    }


def _show_weekly_freezes(page: RoutePage) -> None:
    for window in page.weekly:
        text = f"Every week, {window}: {window.reason} (from the configuration file)."
        st.html(markup.note(text))


DRIFT_STATES: Final = {
    "starting": labels.Label("…", "starting", labels.Tone.NEUTRAL),
    "baseline": labels.Label("…", "measuring the baseline", labels.Tone.NEUTRAL),
    "watching": labels.Label("=", "no drift", labels.Tone.NEUTRAL),
    "drifted": labels.Label("✕", "DRIFTED", labels.Tone.WORSE),
}


def _warn_of_drift(page: RoutePage) -> None:
    """Warns that the model behind the route has changed."""
    view = page.view
    if any(status.state == drift_watches.DRIFTED for status in view.drift):
        text = (
            f"`swapproof drift status {view.id}` shows the answers. Accept the model's present "
            "answers with the button below, or propose another model."
        )
        st.html(markup.banner("✕ The model behind this route has changed.", text))


def _build_drift_row(_: RoutePage, status: DriftStatus) -> markup.Row:
    last_check = status.last
    evidence = last_check.evidence if last_check else None
    last_text = (
        "–"
        if last_check is None or last_check.ended_at is None
        else labels.date_time(last_check.ended_at)
    )
    if last_check is not None and last_check.state is DriftCheckState.NOT_MEASURED:
        last_text += " NOT MEASURED"
    return {
        "Suite": strong(status.suite),
        "State": markup.state(DRIFT_STATES[status.state]),
        "Compared": drift_watches.describe_comparison(status.comparisons),
        "Change": escape(evidence.change_text if evidence else "–"),
        "Evidence": escape(evidence.share_text if evidence else "–"),
        "Last": rich(last_text),
        "Next": rich(labels.date_time(status.next_at) if status.next_at else "–"),
    }


DRIFT: Final = ResourceList[RoutePage, DriftStatus](
    rows=lambda page: page.view.drift,
    cells=_build_drift_row,
    heading="Drift watch",
    note="Swapproof asks the incumbent the same items at intervals, and compares its answers.",
    actions=lambda page: route_holds.drift_openers(page.view.id, page.view.drift),
)
SWITCHES: Final = ResourceList[RoutePage, SwitchRecord](
    rows=lambda page: page.switches,
    cells=_build_switch_row,
    heading="Switches and freezes",
    note="Newest first.",
    what="switches",
    lists_all="swapproof switch list",
)
HISTORY: Final = ResourceList[RoutePage, RouteRecord](
    rows=lambda page: page.view.history,
    cells=_build_version_row,
    heading="History",
    note="Newest first. No entry can be changed or removed.",
    what="versions",
    lists_all="swapproof route history ROUTE",
)
PAGE: Final = ResourcePage[str, RoutePage](
    name="The route",
    ask=str,
    load=load,
    title=_write_title,
    parts=(
        lambda page: page_frame.show_freezes(page.view.id),
        _show_actions,
        _warn_of_differences,
        _warn_of_drift,
        DRIFT.show,
        _show_settings,
        SWITCHES.show,
        _show_weekly_freezes,
        lambda page: st.html(measured_section(page.view, page.titles)),
        _show_timeline,
        HISTORY.show,
        _compare_versions,
        _show_rollback,
        lambda page: policies.show(page.view.route.settings.policy),
    ),
    commands=lambda name: [["route", "history", name], POLICIES_COMMAND],
)

if __name__ == "__main__":
    page_frame.show_page("The route", show)
