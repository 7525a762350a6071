"""The dialogs of the Routes page."""

from collections.abc import Sequence
from datetime import timedelta

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.data.queries import RouteView
from dashboard.dialog_forms import REASON, Form, dialog
from dashboard.dialogs import route_settings
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.routing import fallback_chain, routes
from harness.control.routing.chain_evidence import WaiverRequest
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.operations.access import Role
from harness.domain.routing.table import RouteSettings

ORDER = "Fallbacks, in the order in which they are tried"
BASELINE = "These models are the route's baseline. Later ones need proof or a waiver."


@dialog("Add a route", Role.ADMIN, "new-route", "add", label="Add a route …", width="large")
def add_route(form: Form) -> None:
    ctx = page_frame.context()
    name = form.text("name", "Name, which clients send as model")
    models = queries.model_names(ctx)
    incumbent = form.choose_or_type(
        "incumbent", "Model that serves", models,
        placeholder="Choose one, or write PROVIDER/MODEL",
    )  # fmt: skip
    form.need(name and incumbent, "Name the route and its model first.")
    chain = st.multiselect(
        f"{ORDER} (optional)", [model for model in models if model != incumbent],
        accept_new_options=True, placeholder="None", key=form.key("fallbacks"),
    )  # fmt: skip
    settings = route_settings.ask(ctx, route_settings.NEW, "new")
    st.html(html.note(BASELINE))
    decided = any(suite.role is SuiteRole.PRIMARY for suite in settings.suites)
    form.need(decided, "Choose a suite that decides first.")
    form.submit(
        "Add the route", f"added the route {name}.", routes.create_route, name, incumbent,
        fallbacks=chain, settings=settings,
    )  # fmt: skip


@dialog(
    "Change the settings", Role.ADMIN, "settings", "tune", label="Settings …", width="large"
)
def change_settings(form: Form, view: RouteView) -> None:
    name, before = view.id, view.route.settings
    wanted = route_settings.ask(page_frame.context(), before, name)
    page_frame.show_html(route_settings.preview(view.route, wanted))
    form.need(wanted != before, "These are its settings already.")
    reason = ""
    if wanted.policy != before.policy:
        reason = form.text("why", REASON, need="Say why the policy changes.")

    def change(now: RouteSettings) -> RouteSettings:
        return route_settings.merge(now, before, wanted)

    done = f"changed the settings of {name}."
    form.submit(
        "Change the settings", done, routes.change_settings, name, change, reason=reason
    )


@dialog(
    "Edit the fallback chain", Role.ADMIN, "chain", "alt_route",
    label="Edit the fallbacks …", width="medium",
)  # fmt: skip
def edit_chain(form: Form, view: RouteView) -> None:
    """Asks for the whole chain in its order. What is new in it needs evidence or a waiver."""
    route = view.route
    by_name = {target.name: id_ for id_, target in view.targets.items()}
    before = [entry.target.name for entry in view.chain]
    names = queries.model_names(page_frame.context())
    models = [name for name in names if name != view.name(route.incumbent)]
    chain = st.multiselect(
        ORDER, list(dict.fromkeys((*before, *models))), before,
        accept_new_options=True, placeholder="None", key=form.key("models"),
        help="Take one away and choose it again to move it to the end.",
    )  # fmt: skip
    able = [entry.target.name for entry in view.chain if entry.capable]
    capable = st.multiselect(
        "Good enough for high stakes", chain, [name for name in able if name in chain],
        placeholder="None", key=form.key("capable"),
    )  # fmt: skip
    expired = {entry.target.name for entry in view.chain if entry.waiver_expired}
    unproven = [name for name in chain if name not in before or name in expired]
    waive = _ask_waiver(form, unproven) if unproven else None
    same = chain == before and sorted(able) == sorted(capable) and waive is None
    form.need(not same, "This is the chain already.")
    reason = form.reason()
    wanted = [
        FallbackRequest(by_name.get(n, n), n in capable, waive if n in unproven else None)
        for n in chain
    ]
    falls_back = f"route {route.name} falls back to {', '.join(chain) or 'nobody'}."
    form.submit(
        "Change the chain", f"changed the chain: {falls_back}", fallback_chain.replace_chain,
        route.name, wanted, reason=reason, expected=route,
    )  # fmt: skip


def _ask_waiver(form: Form, unproven: Sequence[str]) -> WaiverRequest | None:
    form.say(
        f"New here: {strong(', '.join(unproven))}. It needs a passed verdict on this route, or "
        "an earlier place on it; else somebody takes the responsibility."
    )
    why = form.text("waive", "Waive the proof, because (empty: no waiver)")
    if not why:
        return None
    days = st.number_input("Days that the waiver lasts", 1, 90, 30, key=form.key("waive-days"))
    return WaiverRequest(why, timedelta(days=days))


@dialog("Roll back", Role.APPROVER, "back", "undo", label="Roll back …")
def roll_back(form: Form, view: RouteView) -> None:
    route = view.route
    names = {
        r.route.version: view.name(r.route.incumbent) for r in queries.former_versions(view)
    }
    version = st.selectbox(
        "Bring back", list(names), format_func=lambda v: f"{names[v]} (version {v})"
    )
    ends = f" The canary of {view.name(route.canary.target)} ends." if route.canary else ""
    form.say(
        f"Route {strong(route.name)}: 100 % of the traffic goes from "
        f"{strong(view.name(route.incumbent))} to {strong(names[version])}, at once."
        f"{escape(ends)}"
    )
    reason = form.reason()
    form.submit(
        "Yes, roll back", f"brought {names[version]} back.", routes.roll_back, route.name,
        to_version=version, reason=reason, expected=route,
    )  # fmt: skip
