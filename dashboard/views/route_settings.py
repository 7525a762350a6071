"""The dialogs of the Routes page, and the fields of a route's settings.

The fields of plain settings follow from their declarations in `harness.routing.route_settings`.
The composite ones, suites, overrides and candidates, are here; checks are in
`harness.routing.control`. A change of the model itself is a proposal and no setting.
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

NEW: Final = RouteSettings()
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
FORCE: Final = "Roll back even if the model cannot serve: callers may then get errors"
NO_DATA_CLASS: Final = "none: every provider may see it"


NO_CANDIDATES: Final = CandidateSchedule((), "0 3 * * 1", 5.0)  # Mondays at 3
CANDIDATES: Final[Sequence[Fields]] = (
    {
        "models": Field(
            "Models to measure on a schedule, separated by commas",
            live=True,
            placeholder="None, or openai/gpt-5*, openrouter/*:price<0.5",
        ),
        "prefer": Field(
            "A candidate has to be",
            words={
                Preference.BETTER: "better",
                Preference.CHEAPER: "not worse, and cheaper",
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


def merge(
    now: RouteSettings,
    before: RouteSettings,
    wanted: RouteSettings,
) -> RouteSettings:
    """Applies only the settings that the dialog changed. Raises Conflict if another person
    changed one of them after the dialog opened.
    """
    names = [field.name for field in fields(RouteSettings) if field.name != "capable"]
    changed = {
        name: getattr(wanted, name)
        for name in names
        if getattr(wanted, name) != getattr(before, name)
    }
    for name, value in changed.items():
        if getattr(now, name) not in (getattr(before, name), value):
            raise Conflict(
                f"another person changed {name} after this dialog was opened: close it and "
                "open it again to see the setting as it is now"
            )
    return replace(now, **changed)


def preview(route: Route, wanted: RouteSettings) -> str:
    """Renders what the new settings change; empty if nothing."""
    changes = routes.describe_difference(route, replace(route, settings=wanted))
    if not changes:
        return ""
    rows = [(name, was or "none", is_ or "none") for name, (was, is_) in changes.items()]
    heading = markup.section("What changes", "Routers apply it within 2 s.")
    return heading + markup.changes(("Setting", "Now", "Then"), rows)


def ask(
    ctx: Context,
    before: RouteSettings,
    key: str,
) -> RouteSettings:
    """Asks for all settings. key: the route's name, or `new`."""

    def name(field: str) -> str:
        return f"{field}-{key}"

    suites = _ask_suites(ctx, before.suites, key)
    policies = sorted({*ctx.policies, before.policy})
    classes = list(dict.fromkeys(("", *sorted(ctx.data_classes), before.data_class)))
    form = SettingsForm(
        RouteSettings,
        words={
            "policy": {policy: policy for policy in policies},
            "data_class": {word: word or NO_DATA_CLASS for word in classes},
        },
        helps={"capture_bps": f"At most {before.capture_per_day} a day are kept."},
    )
    # Folded for a new route, whose defaults suffice: the dialog stays short on a phone.
    with st.expander("Policy, stakes, time, capture") if before is NEW else st.container():
        given = form.ask(before, name, advanced=False)
    with st.expander("Advanced: data class, other routes, time limits, streams, keep warm"):
        given |= form.ask(before, name, advanced=True)
        overrides = _ask_overrides(ctx, before, name, others_than="" if before is NEW else key)
    with st.expander("Candidates: models to measure on a schedule"):
        schedule = ask_fields(CANDIDATES, before.candidates or NO_CANDIDATES, name)
    given["candidates"] = CandidateSchedule(**schedule) if schedule["models"] else None
    return replace(
        before,
        suites=suites,
        overrides=overrides,
        **given,
    )


def _ask_overrides(
    ctx: Context,
    before: RouteSettings,
    name: Callable[[str], str],
    *,
    others_than: str,
) -> Overrides:
    """Asks which other routes answer some kinds of requests. others_than: the route itself."""
    others = [route for route in page_frame.route_names(ctx) if route != others_than]
    st.html(markup.note("Another route can answer some kinds of this route's requests."))
    columns = st.columns(2)
    wanted: dict[RequestKind, str] = {}
    for place, (kind, words) in enumerate(KIND_WORDS.items()):
        known = before.overrides.get(kind)
        names = list(dict.fromkeys((*others, *([known] if known else []))))
        chosen = columns[place % 2].selectbox(
            words,
            names,
            index=names.index(known) if known else None,
            placeholder="This route",
            key=name(f"override-{kind.value}"),
        )
        if chosen:
            wanted[kind] = chosen
    return wanted


def _ask_suites(
    ctx: Context,
    before: Sequence[RouteSuite],
    key: str,
) -> tuple[RouteSuite, ...]:
    """Asks for the suites by role. A suite has one role, and keeps its other settings."""
    names = sorted({*ctx.suites.names(), *(suite.suite for suite in before)})
    chosen: dict[str, RouteSuite] = {}
    for role, words in ROLE_WORDS.items():
        free = [name for name in names if name not in chosen]
        own = {suite.suite: suite for suite in before if suite.role is role}
        picked = st.multiselect(
            words,
            free,
            [name for name in own if name in free],
            key=f"suites-{role.value}-{key}",
            placeholder="None",
        )
        chosen |= {name: own.get(name) or RouteSuite(name, role) for name in picked}
    return tuple(chosen.values())


ORDER = "Fallbacks, in the order in which they are tried"
BASELINE = "These models are the route's baseline. Later models need proof or a waiver."


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
        f"{ORDER} (optional)",
        [model for model in models if model != incumbent],
        accept_new_options=True,
        placeholder="None",
        key=form.key("fallbacks"),
    )
    settings = ask(ctx, NEW, "new")
    st.html(markup.note(BASELINE))
    decided = any(suite.role is SuiteRole.PRIMARY for suite in settings.suites)
    form.need(decided, "Choose a suite that decides first.")
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
    before = view.route.settings
    wanted = ask(page_frame.context(), before, name)
    page_frame.show_html(preview(view.route, wanted))
    form.need(wanted != before, "These are its settings already.")
    reason = ""
    if wanted.policy != before.policy:
        reason = form.text("why", REASON, need="Give the reason why the policy changes.")

    def change(now: RouteSettings) -> RouteSettings:
        return merge(now, before, wanted)

    done = f"changed the settings of {name}."
    form.submit(
        "Change the settings",
        done,
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
    """Asks for the fallbacks in their order. A new one needs proof or a waiver.

    Fails if another person changed the route meanwhile.
    """
    route = view.route
    by_name = {target.name: id_ for id_, target in view.targets.items()}
    before = [entry.target.name for entry in view.chain]
    names = page_frame.model_names(page_frame.context())
    models = [name for name in names if name != view.name(route.incumbent)]
    chain = st.multiselect(
        ORDER,
        list(dict.fromkeys((*before, *models))),
        before,
        accept_new_options=True,
        placeholder="None",
        key=form.key("models"),
        help="Remove a model and choose it again to move it to the end.",
    )
    able = [entry.target.name for entry in view.chain if entry.capable]
    capable = st.multiselect(
        "Good enough for high stakes",
        chain,
        [name for name in able if name in chain],
        placeholder="None",
        key=form.key("capable"),
    )
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
    falls_back = f"route {route.name} falls back to {', '.join(chain) or 'no other model'}."
    form.submit(
        "Change the chain",
        f"changed the chain: {falls_back}",
        fallback_chain.replace_chain,
        route.name,
        wanted,
        reason=reason,
        expected=route,
    )


def _ask_waiver(form: Form, unproven: Sequence[str]) -> WaiverRequest | None:
    """Asks for a waiver of the proof; None if the person gives no reason."""
    form.say(
        f"New in the chain: {strong(', '.join(unproven))}. Each needs a passed verdict on "
        "this route, an earlier place in it, or a waiver for which you take the responsibility."
    )
    why = form.text("waive", "Reason to waive the proof (empty: no waiver)")
    if not why:
        return None
    days = st.number_input("Days that the waiver lasts", 1, 90, 30, key=form.key("waive-days"))
    return WaiverRequest(why, timedelta(days=days))


@dialog("Roll back", Role.APPROVER, "back", "undo", label="Roll back …")
def roll_back(form: Form, view: RouteView) -> None:
    """Asks which former model to bring back. It needs no new proof."""
    route = view.route
    names = {
        r.route.version: view.name(r.route.incumbent)
        for r in route_timeline.former_versions(view)
    }
    version = st.selectbox(
        "Bring back",
        list(names),
        format_func=lambda v: f"{names[v]} (version {v})",
    )
    ends = f" The canary of {view.name(route.canary.target)} ends." if route.canary else ""
    form.say(
        f"Route {strong(route.name)}: 100 % of the traffic goes from "
        f"{strong(view.name(route.incumbent))} to {strong(names[version])}, at once."
        f"{escape(ends)}"
    )
    reason = form.reason()
    force = st.checkbox(FORCE, key=form.key("force"))
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
        doubts = "".join(f" Warning: {warning}." for warning in restored.warnings)
        form.success_message = f"{actor.name} brought {names[version]} back.{doubts}"

    form.submit("Yes, roll back", "", act)
