"""The dialogs of the Keys page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.data import queries
from dashboard.dialog_forms import Field, Form, ask_fields, dialog, show_openers
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.context import Context
from harness.control.operations import keys
from harness.control.operations.keys import KeySummary
from harness.domain.errors import StaleWrite
from harness.domain.operations.access import Actor, OptOut, Role
from harness.domain.reliability.rate_limits import KeyLimits

NEW_KEY: Final = "new-key"
LIMITS: Final[Sequence[Sequence[Field]]] = tuple(
    tuple(
        Field(name, label, "limit", least, options={"placeholder": "No limit"})
        for name, label, least in column
    )
    for column in (
        (
            ("budget_day_usd", "Budget per day (UTC), US dollars", 0.01),
            ("budget_month_usd", "Budget per month (UTC), US dollars", 0.01),
        ),
        (
            ("requests_per_min", "Requests per minute", 1.0),
            ("tokens_per_min", "Tokens per minute", 1.0),
        ),
    )
)
OPT_OUTS: Final[Mapping[OptOut, str]] = {
    OptOut.CANARY: "Canaries: the route's own model answers, and nothing counts",
    OptOut.SHADOW: "Shadows: no candidate or judge gets a copy",
    OptOut.CAPTURE: "Captures: no copy is kept, no judge sees one",
}
PERSON, SERVICE, KNOWN = "A new person", "A new service", "Somebody who has a key already"


def show_buttons(live: Sequence[KeySummary]) -> None:
    names = sorted({key.principal_name for key in live if key.role is not None})
    none = "" if live else "There is no key to change."
    show_openers(
        [
            create_client_key.opener(),
            create_management_key.opener(names),
            change_key.opener(live, missing=none),
        ]
    )


def kind(key: KeySummary) -> str:
    return f"{key.role.name.lower()} key" if key.role else "client key"


def choice(key: KeySummary) -> str:
    return f"{key.name} · {kind(key)} …{key.hint}"


@dialog("Create a client key", Role.ADMIN, "client", "add", width="medium")
def create_client_key(form: Form) -> None:
    name = form.text("name", "Client, who uses the key", need="Name the client first.")
    routes = st.multiselect(
        "Routes that it opens", list(queries.route_names(page_frame.context())),
        key=form.key("routes"), placeholder="All routes, later ones too",
    )  # fmt: skip
    limits, opt_outs = _ask_limits(KeyLimits(), form), _ask_opt_outs((), form)
    form.says = f"{name} has a key. Copy it below: it is shown this once."
    form.submit(
        "Create the key", "", _create, name, routes=routes, limits=limits, opt_outs=opt_outs
    )


@dialog("Create a management key", Role.ADMIN, "manager", "person_add", width="medium")
def create_management_key(form: Form, people: Sequence[str]) -> None:
    whose = st.radio(
        "Whose key", [PERSON, SERVICE, *([KNOWN] if people else [])], key=form.key("whose")
    )
    owner = st.selectbox("Name", people, key=form.key("owner")) if whose == KNOWN else None
    label = "Name of the key" if whose == KNOWN else "Name"
    name = form.text("name", label, need="Name it first.")
    roles = {role.name.lower(): role for role in Role}
    role = roles[st.selectbox("Role", list(roles), key=form.key("role"))]
    st.html(html.note("Who creates a key for himself does not become a second person by it."))
    form.says = f"The key {name} is made. Copy it below: it is shown this once."
    service = whose == SERVICE
    form.submit(
        "Create the key", "", _create, name, role=role, principal=owner, service=service
    )


def _create(ctx: Context, actor: Actor, /, name: str, **options: Any) -> None:
    secret = page_frame.installation().secret
    _, text = keys.create_key(ctx, actor, name, secret=secret, **options)
    st.session_state[NEW_KEY] = (actor.principal, name, text)


def show_new_key() -> None:
    made = st.session_state.get(NEW_KEY)
    if made is None:
        return
    creator, name, text = made
    actor = current_user.signed_in()
    if actor is None or actor.principal != creator:
        del st.session_state[NEW_KEY]
        return
    with st.container(border=True):
        how = "It is not stored in clear and never shown again."
        st.html(html.block(f"<p>The key of {strong(name)}. {escape(how)}</p>"))
        st.code(text, language=None, wrap_lines=True)
        if st.button("I have stored it", key="stored", type="primary"):
            del st.session_state[NEW_KEY]
            st.rerun()


def _ask_limits(before: KeyLimits, form: Form) -> KeyLimits:
    st.html(html.note("An empty field is no limit."))
    given = ask_fields(LIMITS, before, form.key)
    warn = st.slider(
        "Warn at this share of a budget", 10, 100, round(100 * before.warn_share), 5,
        format="%d %%", key=form.key("warn"),
    )  # fmt: skip
    return KeyLimits(**given, warn_share=warn / 100)


def _ask_opt_outs(before: Iterable[OptOut], form: Form) -> list[OptOut]:
    return st.multiselect(
        "Keep its requests out of", list(OPT_OUTS), default=sorted(before),
        format_func=OPT_OUTS.__getitem__, key=form.key("opt-outs"), placeholder="Nothing",
    )  # fmt: skip


@dialog("Change or revoke a key", Role.ADMIN, "chosen", "edit", width="medium")
def change_key(form: Form, live: Sequence[KeySummary]) -> None:
    by_id = {key.id: key for key in sorted(live, key=lambda key: key.name.casefold())}
    chosen = form.choose(
        "key", "Key", by_id, placeholder="Choose a key, or write a part of its name",
        format_func=lambda id_: choice(by_id[id_]) if id_ in by_id else id_,
    )  # fmt: skip
    key = by_id.get(chosen or "")
    if key is None:
        return
    acts = {"Limits": _change_limits, "Opt-outs": _change_opt_outs, "Revoke": _revoke}
    names = list(acts) if key.role is None else ["Revoke"]
    act = st.segmented_control(
        "What", names, default=names[0], required=True, key=f"act-{key.id}"
    )
    acts[act](key)


def _change_limits(key: KeySummary) -> None:
    form, before = Form(Role.ADMIN, "limit", key.id), key.limits or KeyLimits()
    st.html(html.note("What it spent stays counted. Routers follow within 2 s."))
    wanted = _ask_limits(before, form)
    form.need(wanted != before, "These are its limits already.")

    def change(now: KeyLimits) -> KeyLimits:
        # The whole would take back what somebody else changed.
        if now != before:
            raise StaleWrite(
                "somebody else changed this key's limits after this dialog was opened: close "
                "it, open it again and look at what holds now"
            )
        return wanted

    done = f"changed the limits of {key.name}."
    form.submit("Set the limits", done, keys.set_limits, key.id, change)


def _change_opt_outs(key: KeySummary) -> None:
    form = Form(Role.ADMIN, "opt-out", key.id)
    st.html(html.note("Routers follow within 2 s. What is stored already stays."))
    wanted = _ask_opt_outs(key.opt_outs, form)
    form.need(frozenset(wanted) != key.opt_outs, "These are its opt-outs already.")
    done = f"changed the opt-outs of {key.name}."
    form.submit("Set the opt-outs", done, keys.set_opt_outs, key.id, wanted)


def _revoke(key: KeySummary) -> None:
    form, actor = Form(Role.ADMIN, "revoke", key.id), current_user.signed_in()
    client = "Its requests are refused within 2 s; it cannot be taken back."
    person = "Whoever acts with it can no longer, from the next click or request on."
    form.say(
        f"{strong(key.name)} …{escape(key.hint)}: {escape(person if key.role else client)}"
    )
    if actor is not None and actor.key == key.id:
        st.html(html.banner("▲ You act with this key.", "You will be signed out."))
    form.confirm(key.name)
    form.submit("Revoke it", f"revoked the key of {key.name}.", keys.revoke_key, key.id)
