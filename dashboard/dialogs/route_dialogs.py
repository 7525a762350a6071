"""The Routes page's dialogs add a route, change its settings, edit its fallback chain, and roll
it back.
"""

from collections.abc import Sequence
from datetime import timedelta

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.data.queries import RouteView
from dashboard.dialogs import action_dialogs, route_settings
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.routing import fallback_chain, routes
from harness.control.routing.chain_evidence import WaiverRequest
from harness.control.routing.fallback_chain import FallbackRequest
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.operations.access import Role


@action_dialogs.dialog("Add a route", width="large")
def add_route() -> None:
    """Asks for name, models and suites; the first models are its baseline."""
    ctx = page_frame.context()
    given = st.text_input("Name, which clients send as model", key="route-name", live=True)
    name = (given or "").strip()
    models = queries.model_names(ctx)
    incumbent = st.selectbox(
        "Model that serves", models, index=None, accept_new_options=True,
        placeholder="Choose one, or write PROVIDER/MODEL", key="route-incumbent",
    )  # fmt: skip
    chain = st.multiselect(
        "Fallbacks, in the order in which they are tried (optional)",
        [model for model in models if model != incumbent],
        accept_new_options=True, placeholder="None", key="route-fallbacks",
    )  # fmt: skip
    settings = route_settings.ask(ctx, route_settings.NEW, "new")
    st.html(
        html.note("These models are the route's baseline. Later ones need proof or a waiver.")
    )
    missing = "" if name and incumbent else "Name the route and its model first."
    decided = any(suite.role is SuiteRole.PRIMARY for suite in settings.suites)
    action_dialogs.submit(
        "Add the route",
        key="add-route-now",
        role=Role.ADMIN,
        missing=missing or ("" if decided else "Choose a suite that decides first."),
        act=lambda actor: routes.create_route(
            ctx, actor, name, incumbent or "", fallbacks=chain, settings=settings
        ),
        done=lambda actor: f"{actor.name} added the route {name}.",
    )


@action_dialogs.dialog("Change the settings", width="large")
def change_settings(view: RouteView) -> None:
    """Asks for a route's settings; its models stay."""
    ctx, before = page_frame.context(), view.route.settings
    wanted = route_settings.ask(ctx, before, view.route.name)
    same = wanted == before
    page_frame.show_html(route_settings.preview(view.route, wanted))
    policy_changes = wanted.policy != before.policy
    reason = (
        action_dialogs.ask_reason(f"settings-why-{view.route.name}") if policy_changes else ""
    )
    missing = "Say why the policy changes." if policy_changes and not reason else ""
    action_dialogs.submit(
        "Change the settings",
        key=f"settings-{view.route.name}",
        role=Role.ADMIN,
        missing="These are its settings already." if same else missing,
        act=lambda actor: routes.change_settings(
            ctx,
            actor,
            view.route.name,
            lambda now: route_settings.merge(now, before, wanted),
            reason=reason,
        ),
        done=lambda actor: f"{actor.name} changed the settings of {view.route.name}.",
    )


@action_dialogs.dialog("Edit the fallback chain", width="medium")
def edit_chain(view: RouteView) -> None:
    """Asks for the whole chain in its order. What is new in it needs evidence or a waiver."""
    ctx, route = page_frame.context(), view.route
    by_name = {target.name: id_ for id_, target in view.targets.items()}
    before = [entry.target.name for entry in view.chain]
    models = [m for m in queries.model_names(ctx) if m != view.name(route.incumbent)]
    chain = st.multiselect(
        "Fallbacks, in the order in which they are tried",
        list(dict.fromkeys((*before, *models))), before,
        accept_new_options=True, placeholder="None", key=f"chain-{route.name}",
        help="Take one away and choose it again to move it to the end.",
    )  # fmt: skip
    able = [entry.target.name for entry in view.chain if entry.capable]
    capable = st.multiselect(
        "Good enough for high stakes", chain, [name for name in able if name in chain],
        placeholder="None", key=f"capable-{route.name}",
    )  # fmt: skip
    expired = {entry.target.name for entry in view.chain if entry.waiver_expired}
    unproven = [name for name in chain if name not in before or name in expired]
    waive = _ask_waiver(route.name, unproven) if unproven else None
    reason = action_dialogs.ask_reason(f"chain-why-{route.name}")
    same = chain == before and sorted(able) == sorted(capable) and waive is None
    wanted = [
        FallbackRequest(by_name.get(n, n), n in capable, waive if n in unproven else None)
        for n in chain
    ]
    after = ", ".join(chain) or "nobody"
    action_dialogs.submit(
        "Change the chain",
        key=f"chain-now-{route.name}",
        role=Role.ADMIN,
        missing="This is the chain already."
        if same
        else ""
        if reason
        else action_dialogs.REASON_MISSING,
        act=lambda actor: fallback_chain.replace_chain(
            ctx, actor, route.name, wanted, reason=reason, expected=route
        ),
        done=lambda actor: f"{actor.name}: route {route.name} falls back to {after}.",
    )


def _ask_waiver(route: str, unproven: Sequence[str]) -> WaiverRequest | None:
    """Asks whether the proof of what is new is waived, and for how long."""
    st.html(
        html.block(
            f"<p>New here: {strong(', '.join(unproven))}. It needs a passed verdict on "
            "this route, or an earlier place on it; else somebody takes the responsibility.</p>"
        )
    )
    why = st.text_input(
        "Waive the proof, because (empty: no waiver)", key=f"waive-{route}", live=True
    )
    if not (why or "").strip():
        return None
    days = st.number_input("Days that the waiver lasts", 1, 90, 30, key=f"waive-days-{route}")
    return WaiverRequest((why or "").strip(), timedelta(days=days))


@action_dialogs.dialog("Roll back")
def roll_back(view: RouteView) -> None:
    """Asks which former model serves again, and why."""
    former = queries.former_versions(view)
    names = {r.route.version: view.name(r.route.incumbent) for r in former}
    version = st.selectbox(
        "Bring back", list(names), format_func=lambda v: f"{names[v]} (version {v})"
    )
    canary = view.route.canary
    ends = f" The canary of {view.name(canary.target)} ends." if canary else ""
    st.html(
        html.block(
            f"<p>Route {strong(view.route.name)}: 100 % of the traffic goes from "
            f"{strong(view.name(view.route.incumbent))} to {strong(names[version])}, "
            f"at once.{escape(ends)}</p>"
        )
    )
    reason = action_dialogs.ask_reason("back-why")
    action_dialogs.submit(
        "Yes, roll back",
        key="back-now",
        role=Role.APPROVER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: routes.roll_back(
            page_frame.context(),
            actor,
            view.route.name,
            to_version=version,
            reason=reason,
            expected=view.route,
        ),
        done=lambda actor: f"{actor.name} brought {names[version]} back.",
    )
