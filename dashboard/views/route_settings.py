"""The dialogs of the Routes page, and the fields of a route's settings.

The fields of plain settings follow from their declarations in `harness.routing.route_settings`.
The fields for suites, overrides and candidates are here; `harness.routing.control` checks the
values. A change of the model itself is a proposal and not a setting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import markup, page_frame
from dashboard.dialog_forms import (
    REASON,
    Field,
    Fields,
    Form,
    SettingsForm,
    ask_fields,
    dialog,
)
from dashboard.markup import escape, strong
from dashboard.views import route_timeline
from dashboard.views.route_timeline import RouteView
from harness.canary import operations
from harness.frame.errors import Conflict
from harness.frame.people.access import Actor, Role
from harness.gate.suite_plan import SuiteRole
from harness.operations.context import Context
from harness.proposals import fallback_chain
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.routing.candidate_schedule import (
    MOST_USD,
    CandidateSchedule,
    OnBetter,
    Preference,
)
from harness.routing.control import routes
from harness.routing.route_settings import Overrides, RequestKind, RouteSettings, RouteSuite
from harness.routing.table import Route

NEW_SETTINGS: Final = RouteSettings()
ROLE_WORDS: Final[Mapping[SuiteRole, str]] = {
    SuiteRole.PRIMARY: "Suites that decide the claim",
    SuiteRole.REQUIRED: "Suites that must pass within the allowed loss (optional)",
    SuiteRole.GUARD: "Suites that reject a candidate that is shown worse (optional)",
}
KIND_WORDS: Final[Mapping[RequestKind, str]] = {
    RequestKind.VISION: "Requests with a picture",
    RequestKind.VIDEO: "Requests with a video",
    RequestKind.IMAGE: "Requests for a picture",
    RequestKind.EMBEDDING: "Embeddings",
    RequestKind.SUBAGENT: "Requests of a subagent",
}
FORCE_LABEL: Final = "Roll back even if the model cannot serve: callers may then get errors"
NO_DATA_CLASS: Final = "none: every provider may see it"


NO_CANDIDATES: Final = CandidateSchedule((), "0 3 * * 1", 5.0)  # Mondays at 3
CANDIDATES: Final[Sequence[Fields]] = (
    {
        "models": Field(
            "Models to measure on a schedule, separated by commas",
            live=True,
            placeholder="None, or openai/gpt-6*, openrouter/*:price<0.5",
        ),
        "prefer": Field(
            "A candidate has to be",
            words={
                Preference.BETTER: "better",
                Preference.CHEAPER: "not worse, and cheaper",
                Preference.NOT_WORSE: "not worse",
            },
        ),
        "on_better": Field(
            "When a candidate passes",
            words={
                OnBetter.NOTIFY: "notify people",
                OnBetter.PROPOSE: "propose it: a person approves",
                OnBetter.CANARY: "open its canary",
            },
        ),
    },
    {
        "every": Field("Schedule, as cron in UTC", placeholder=NO_CANDIDATES.every),
        "budget_usd": Field("A round costs at most, US dollars", 0.01, MOST_USD),
    },
)


def merge_settings(
    stored: RouteSettings,
    shown: RouteSettings,
    entered: RouteSettings,
) -> RouteSettings:
    """Applies only the settings that the dialog changed. Raises Conflict if another person
    changed one of them after the dialog opened.
    """
    kept = ("capable", "proven")  # no field of the dialog changes them
    names = [field.name for field in fields(RouteSettings) if field.name not in kept]
    changes = {
        name: getattr(entered, name)
        for name in names
        if getattr(entered, name) != getattr(shown, name)
    }
    for name, value in changes.items():
        if getattr(stored, name) not in (getattr(shown, name), value):
            raise Conflict(
                f"another person changed {name} after this dialog was opened: close it and "
                "open it again to see the setting as it is now"
            )
    return replace(stored, **changes)


def render_changes(route: Route, entered: RouteSettings) -> str:
    """Renders the changes of the new settings; empty without a change."""
    changes = routes.describe_difference(route, replace(route, settings=entered))
    if not changes:
        return ""
    rows = [(name, old or "none", new or "none") for name, (old, new) in changes.items()]
    heading = markup.section("What changes", "Routers apply it within 2 s.")
    return heading + markup.changes(("Setting", "Now", "Then"), rows)


def ask_settings(
    ctx: Context,
    present: RouteSettings,
    key: str,
) -> RouteSettings:
    """Asks for all settings.

    Args:
        key: the route's name, or `new`.
    """

    def build_key(field: str) -> str:
        return f"{field}-{key}"

    suites = _ask_suites(ctx, present.suites, key)
    policies = sorted({*ctx.policies, present.policy})
    data_classes = list(dict.fromkeys(("", *sorted(ctx.data_classes), present.data_class)))
    form = SettingsForm(
        RouteSettings,
        words={
            "policy": {policy: policy for policy in policies},
            "data_class": {word: word or NO_DATA_CLASS for word in data_classes},
        },
        helps={"capture_bps": f"At most {present.capture_per_day} a day are kept."},
    )
    # Folded for a new route, whose defaults suffice: the dialog stays short on a phone.
    with (
        st.expander("Policy, stakes, time, capture")
        if present is NEW_SETTINGS
        else st.container()
    ):
        values = form.ask(present, build_key, advanced=False)
    with st.expander("Advanced: data class, other routes, time limits, streams, keep warm"):
        values |= form.ask(present, build_key, advanced=True)
        overrides = _ask_overrides(
            ctx, present, build_key, own_route="" if present is NEW_SETTINGS else key
        )
    with st.expander("Candidates: models to measure on a schedule"):
        schedule = ask_fields(CANDIDATES, present.candidates or NO_CANDIDATES, build_key)
    values["candidates"] = CandidateSchedule(**schedule) if schedule["models"] else None
    return replace(
        present,
        suites=suites,
        overrides=overrides,
        **values,
    )


def _ask_overrides(
    ctx: Context,
    present: RouteSettings,
    build_key: Callable[[str], str],
    *,
    own_route: str,
) -> Overrides:
    """Asks for the routes that answer some kinds of requests.

    Args:
        own_route: the route itself.

    Keeps the overrides by trait and header, which only a command or a slice's proof sets.
    """
    other_routes = [route for route in page_frame.route_names(ctx) if route != own_route]
    st.html(markup.note("Another route can answer some kinds of this route's requests."))
    columns = st.columns(2)
    overrides = {
        predicate: route
        for predicate, route in present.overrides.items()
        if predicate not in list(RequestKind)
    }
    for place, (kind, label) in enumerate(KIND_WORDS.items()):
        present_route = present.overrides.get(kind)
        names = list(
            dict.fromkeys((*other_routes, *([present_route] if present_route else [])))
        )
        chosen_route = columns[place % 2].selectbox(
            label,
            names,
            index=names.index(present_route) if present_route else None,
            placeholder="This route",
            key=build_key(f"override-{kind.value}"),
        )
        if chosen_route:
            overrides[kind] = chosen_route
    return overrides


def _ask_suites(
    ctx: Context,
    present: Sequence[RouteSuite],
    key: str,
) -> tuple[RouteSuite, ...]:
    """Asks for the suites by role. A suite has one role, and keeps its other settings."""
    names = sorted({*ctx.suites.names(), *(suite.suite for suite in present)})
    suites: dict[str, RouteSuite] = {}
    for role, label in ROLE_WORDS.items():
        free_names = [name for name in names if name not in suites]
        suites_of_role = {suite.suite: suite for suite in present if suite.role is role}
        picked_names = st.multiselect(
            label,
            free_names,
            [name for name in suites_of_role if name in free_names],
            key=f"suites-{role.value}-{key}",
            placeholder="None",
        )
        suites |= {
            name: suites_of_role.get(name) or RouteSuite(name, role) for name in picked_names
        }
    return tuple(suites.values())


ORDER_LABEL = "Fallbacks, in the order in which they are tried"
BASELINE_NOTE = "These models are the route's baseline. Later models need proof or a waiver."


@dialog(
    "Add a route",
    Role.ADMIN,
    "new-route",
    "add",
    label="Add a route …",
    width="large",
)
def add_route(form: Form) -> None:
    """Asks for a new route. Its models are its baseline, which needs no proof."""
    ctx = page_frame.context()
    name = form.text("name", "Name, which clients send as model")
    models = page_frame.model_names(ctx)
    incumbent = form.choose_or_type(
        "incumbent",
        "Model that serves",
        models,
        placeholder="Choose one, or write PROVIDER/MODEL",
    )
    form.need(name and incumbent, "Name the route and its model first.")
    chain = st.multiselect(
        f"{ORDER_LABEL} (optional)",
        [model for model in models if model != incumbent],
        accept_new_options=True,
        placeholder="None",
        key=form.key("fallbacks"),
    )
    settings = ask_settings(ctx, NEW_SETTINGS, "new")
    st.html(markup.note(BASELINE_NOTE))
    has_deciding_suite = any(suite.role is SuiteRole.PRIMARY for suite in settings.suites)
    form.need(has_deciding_suite, "Choose a suite that decides first.")
    form.submit(
        "Add the route",
        f"added the route {name}.",
        routes.create_route,
        name,
        incumbent,
        fallbacks=chain,
        settings=settings,
    )


@dialog(
    "Change the settings",
    Role.ADMIN,
    "settings",
    "tune",
    label="Settings …",
    width="large",
)
def change_settings(form: Form, view: RouteView) -> None:
    """Asks for a route's settings. A change of the policy needs a reason."""
    name = view.id
    shown = view.route.settings
    entered = ask_settings(page_frame.context(), shown, name)
    page_frame.show_html(render_changes(view.route, entered))
    form.need(entered != shown, "These are its settings already.")
    reason = ""
    if entered.policy != shown.policy:
        reason = form.text("why", REASON, need="Give the reason why the policy changes.")

    def change(stored: RouteSettings) -> RouteSettings:
        return merge_settings(stored, shown, entered)

    done_text = f"changed the settings of {name}."
    form.submit(
        "Change the settings",
        done_text,
        routes.change_settings,
        name,
        change,
        reason=reason,
    )


@dialog(
    "Edit the fallback chain",
    Role.ADMIN,
    "chain",
    "alt_route",
    label="Edit the fallbacks …",
    width="medium",
)
def edit_chain(form: Form, view: RouteView) -> None:
    """Asks for the fallbacks in their order. A new fallback needs proof or a waiver.

    Fails if another person changed the route meanwhile.
    """
    route = view.route
    by_name = {target.name: id_ for id_, target in view.targets.items()}
    present_chain = [entry.target.name for entry in view.chain]
    names = page_frame.model_names(page_frame.context())
    models = [name for name in names if name != view.name(route.incumbent)]
    chain = st.multiselect(
        ORDER_LABEL,
        list(dict.fromkeys((*present_chain, *models))),
        present_chain,
        accept_new_options=True,
        placeholder="None",
        key=form.key("models"),
        help="Remove a model and choose it again to move it to the end.",
    )
    present_capable = [entry.target.name for entry in view.chain if entry.capable]
    capable = st.multiselect(
        "Good enough for high stakes",
        chain,
        [name for name in present_capable if name in chain],
        placeholder="None",
        key=form.key("capable"),
    )
    expired = {entry.target.name for entry in view.chain if entry.waiver_expired}
    unproven = [name for name in chain if name not in present_chain or name in expired]
    waiver = _ask_waiver(form, unproven) if unproven else None
    is_unchanged = (
        chain == present_chain and sorted(present_capable) == sorted(capable) and waiver is None
    )
    form.need(not is_unchanged, "This is the chain already.")
    reason = form.reason()
    requests = [
        FallbackRequest(
            by_name.get(name, name), name in capable, waiver if name in unproven else None
        )
        for name in chain
    ]
    chain_text = f"route {route.name} falls back to {', '.join(chain) or 'no other model'}."
    form.submit(
        "Change the chain",
        f"changed the chain: {chain_text}",
        fallback_chain.replace_chain,
        route.name,
        requests,
        reason=reason,
        expected=route,
    )


def _ask_waiver(form: Form, unproven: Sequence[str]) -> WaiverRequest | None:
    """Asks for a waiver of the proof; None if the person gives no reason."""
    form.say(
        f"New in the chain: {strong(', '.join(unproven))}. Each needs a passed verdict on "
        "this route, an earlier place in it, or a waiver for which you take the responsibility."
    )
    reason = form.text("waive", "Reason to waive the proof (empty: no waiver)")
    if not reason:
        return None
    days = st.number_input("Days that the waiver lasts", 1, 90, 30, key=form.key("waive-days"))
    return WaiverRequest(reason, timedelta(days=days))


@dialog("Roll back", Role.APPROVER, "back", "undo", label="Roll back …")
def roll_back(form: Form, view: RouteView) -> None:
    """Asks which former model to bring back. It needs no new proof."""
    route = view.route
    names = {
        record.route.version: view.name(record.route.incumbent)
        for record in route_timeline.former_versions(view)
    }
    version = st.selectbox(
        "Bring back",
        list(names),
        format_func=lambda number: f"{names[number]} (version {number})",
    )
    canary_text = (
        f" The canary of {view.name(route.canary.target)} ends." if route.canary else ""
    )
    form.say(
        f"Route {strong(route.name)}: 100 % of the traffic goes from "
        f"{strong(view.name(route.incumbent))} to {strong(names[version])}, at once."
        f"{escape(canary_text)}"
    )
    reason = form.reason()
    force = st.checkbox(FORCE_LABEL, key=form.key("force"))
    form.spinner_text = f"Asking whether {names[version]} can serve, at most 5 seconds"

    def act(ctx: Context, actor: Actor) -> None:
        restored = operations.roll_back(
            ctx,
            actor,
            route.name,
            to_version=version,
            reason=reason,
            force=force,
            expected=route,
        )
        warnings = "".join(f" Warning: {warning}." for warning in restored.warnings)
        form.success_message = f"{actor.name} brought {names[version]} back.{warnings}"

    form.submit("Yes, roll back", "", act)
