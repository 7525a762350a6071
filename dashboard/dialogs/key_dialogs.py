"""The Keys page's dialogs create client keys and management keys, change a client key's limits
or revoke a key; a new key's text is shown once, to whoever created it (`show_new_key`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.data import queries
from dashboard.dialogs import action_dialogs
from dashboard.text import html, key_text
from dashboard.text.html import escape, strong
from harness.control.operations import keys
from harness.control.operations.keys import KeySummary
from harness.domain.errors import StaleWrite
from harness.domain.operations.access import Actor, OptOut, Role
from harness.domain.reliability.rate_limits import KeyLimits

NEW_KEY: Final = "new-key"
LIMITS: Final[Mapping[str, str]] = {
    "budget_day_usd": "Budget per day (UTC), US dollars",
    "budget_month_usd": "Budget per month (UTC), US dollars",
    "requests_per_min": "Requests per minute",
    "tokens_per_min": "Tokens per minute",
}
OPT_OUTS: Final[Mapping[OptOut, str]] = {
    OptOut.CANARY: "Canaries: the route's own model answers, and nothing counts",
    OptOut.SHADOW: "Shadows: no candidate or judge gets a copy",
    OptOut.CAPTURE: "Captures: no copy is kept, no judge sees one",
}
PERSON, SERVICE, KNOWN = "A new person", "A new service", "Somebody who has a key already"


@action_dialogs.dialog("Create a client key", width="medium")
def create_client_key() -> None:
    """Asks for a client's name, routes and limits."""
    name = (st.text_input("Client, who uses the key", key="client", live=True) or "").strip()
    routes = st.multiselect(
        "Routes that it opens",
        list(queries.route_names(page_frame.context())),
        key="client-routes",
        placeholder="All routes, later ones too",
    )
    limits = _ask_limits(KeyLimits(), "new")
    opt_outs = _ask_opt_outs((), "new")
    action_dialogs.submit(
        "Create the key",
        key="create-client",
        role=Role.ADMIN,
        missing="" if name else "Name the client first.",
        act=lambda actor: _create(actor, name, routes=routes, limits=limits, opt_outs=opt_outs),
        done=lambda _: f"{name} has a key. Copy it below: it is shown this once.",
    )


@action_dialogs.dialog("Create a management key", width="medium")
def create_management_key(people: Sequence[str]) -> None:
    """Asks for a key's name, role and owner. people: names of those who have a key."""
    whose = st.radio("Whose key", [PERSON, SERVICE, *([KNOWN] if people else [])], key="whose")
    owner = st.selectbox("Name", people, key="owner") if whose == KNOWN else None
    label = "Name of the key" if whose == KNOWN else "Name"
    name = (st.text_input(label, key="manager", live=True) or "").strip()
    roles = {role.name.lower(): role for role in Role}
    role = st.selectbox("Role", list(roles), key="manager-role")
    st.html(html.note("Who creates a key for himself does not become a second person by it."))
    action_dialogs.submit(
        "Create the key",
        key="create-manager",
        role=Role.ADMIN,
        missing="" if name else "Name it first.",
        act=lambda actor: _create(
            actor, name, role=roles[role], principal=owner, service=whose == SERVICE
        ),
        done=lambda _: f"The key {name} is made. Copy it below: it is shown this once.",
    )


def _create(  # noqa: PLR0913 - as `create_key` has them
    actor: Actor,
    name: str,
    *,
    role: Role | None = None,
    routes: Sequence[str] = (),
    limits: KeyLimits | None = None,
    opt_outs: Sequence[OptOut] = (),
    principal: str | None = None,
    service: bool = False,
) -> None:
    _, text = keys.create_key(
        page_frame.context(),
        actor,
        name,
        secret=page_frame.installation().secret,
        role=role,
        routes=routes,
        limits=limits,
        opt_outs=opt_outs,
        principal=principal,
        service=service,
    )
    st.session_state[NEW_KEY] = (actor.principal, name, text)


def show_new_key() -> None:
    """Shows a new key's text until its creator has stored it, or somebody else acts."""
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


def _ask_limits(before: KeyLimits, key: str) -> KeyLimits:
    """Asks for budgets and rates; an empty field is no limit."""
    st.html(html.note("An empty field is no limit."))
    given: dict[str, float | None] = {}
    columns = st.columns(2)
    for place, (name, label) in enumerate(LIMITS.items()):
        smallest = 1.0 if name.endswith("per_min") else 0.01
        with columns[place // 2]:
            given[name] = st.number_input(
                label,
                min_value=smallest,
                # Stored limits may be whole numbers, which the field does not mix with others.
                value=None if (known := getattr(before, name)) is None else float(known),
                key=f"{name}-{key}",
                placeholder="No limit",
            )
    warn = st.slider(
        "Warn at this share of a budget", 10, 100, round(100 * before.warn_share), 5,
        format="%d %%", key=f"warn-{key}",
    )  # fmt: skip
    return KeyLimits(**given, warn_share=warn / 100)


def _ask_opt_outs(before: Iterable[OptOut], key: str) -> list[OptOut]:
    """Asks what the requests of a client are kept out of."""
    return st.multiselect(
        "Keep its requests out of",
        list(OPT_OUTS),
        default=sorted(before),
        format_func=OPT_OUTS.__getitem__,
        key=f"opt-outs-{key}",
        placeholder="Nothing",
    )


@action_dialogs.dialog("Change or revoke a key", width="medium")
def change_key(live: Sequence[KeySummary]) -> None:
    """Asks which key, then for its limits, or whether it is to be revoked."""
    by_id = {key.id: key for key in sorted(live, key=lambda key: key.name.casefold())}
    chosen = st.selectbox(
        "Key",
        list(by_id),
        index=None,
        format_func=lambda id_: key_text.choice(by_id[id_]) if id_ in by_id else id_,
        placeholder="Choose a key, or write a part of its name",
        key="chosen",
    )
    key = by_id.get(chosen or "")
    if key is None:
        return
    acts = ["Limits", "Opt-outs", "Revoke"] if key.role is None else ["Revoke"]
    act = st.segmented_control(
        "What", acts, default=acts[0], required=True, key=f"act-{key.id}"
    )
    if act == "Limits":
        _change_limits(key)
    elif act == "Opt-outs":
        _change_opt_outs(key)
    else:
        _revoke(key)


def _change_limits(chosen: KeySummary) -> None:
    """Asks for a client key's limits."""
    st.html(html.note("What it spent stays counted. Routers follow within 2 s."))
    before = chosen.limits or KeyLimits()
    limits = _ask_limits(before, chosen.id)
    same = limits == before
    action_dialogs.submit(
        "Set the limits",
        key=f"limit-{chosen.id}",
        role=Role.ADMIN,
        missing="These are its limits already." if same else "",
        act=lambda actor: keys.set_limits(
            page_frame.context(), actor, chosen.id, lambda now: _replace(now, before, limits)
        ),
        done=lambda actor: f"{actor.name} changed the limits of {chosen.name}.",
    )


def _change_opt_outs(chosen: KeySummary) -> None:
    """Asks what a client's requests are kept out of."""
    st.html(html.note("Routers follow within 2 s. What is stored already stays."))
    opt_outs = _ask_opt_outs(chosen.opt_outs, chosen.id)
    same = frozenset(opt_outs) == chosen.opt_outs
    action_dialogs.submit(
        "Set the opt-outs",
        key=f"opt-out-{chosen.id}",
        role=Role.ADMIN,
        missing="These are its opt-outs already." if same else "",
        act=lambda actor: keys.set_opt_outs(page_frame.context(), actor, chosen.id, opt_outs),
        done=lambda actor: f"{actor.name} changed the opt-outs of {chosen.name}.",
    )


def _replace(now: KeyLimits, before: KeyLimits, wanted: KeyLimits) -> KeyLimits:
    """Returns the limits wanted. Raises StaleWrite where somebody else changed them since the
    dialog was opened: the whole would take that back.
    """
    if now != before:
        raise StaleWrite(
            "somebody else changed this key's limits after this dialog was opened: close it, "
            "open it again and look at what holds now"
        )
    return wanted


def _revoke(chosen: KeySummary) -> None:
    """Asks for the key's name, so that no stray click stops a client."""
    client = "Its requests are refused within 2 s; it cannot be taken back."
    person = "Whoever acts with it can no longer, from the next click or request on."
    effect = person if chosen.role else client
    st.html(
        html.block(f"<p>{strong(chosen.name)} …{escape(chosen.hint)}: {escape(effect)}</p>")
    )
    actor = current_user.signed_in()
    if actor is not None and actor.key == chosen.id:
        st.html(html.banner("▲ You act with this key.", "You will be signed out."))
    typed = st.text_input(f"Write {chosen.name} to confirm", key=f"sure-{chosen.id}", live=True)
    sure = (typed or "").strip() == chosen.name.strip()
    action_dialogs.submit(
        "Revoke it",
        key=f"revoke-{chosen.id}",
        role=Role.ADMIN,
        missing="" if sure else "The button works once the name stands here.",
        act=lambda who: keys.revoke_key(page_frame.context(), who, chosen.id),
        done=lambda who: f"{who.name} revoked the key of {chosen.name}.",
    )
