"""The Overview's first steps in an installation without routes."""

from dataclasses import replace

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.providers import checks
from harness.control.routing import first_route
from harness.control.routing.first_route import SIMULATOR, FirstRoute
from harness.domain.operations.access import Actor, Role

ABOUT = (
    "A route is the name that your clients use as `model`. Behind it one model of a provider "
    "answers; a suite of questions decides whether another one may take its place."
)
SIMULATED = (
    "The simulator needs no key. Start it on a terminal: `swapgate sim`. Users are simulated "
    "by `swapgate sim traffic`."
)
OWN_QUESTIONS = (
    "Questions of your own: add a suite on Suites first. The simulator answers those "
    "that it knows: `swapgate sim --suite NAME=FILE`."
)
NEXT_PAGES = {
    "proposals": "Proposals: what is being evaluated",
    "canary": "Canary: how a candidate fares with users",
}
MADE = "first-route"  # the route that this visitor has just made here
REFUSED = (
    "What came before this in the form is kept: mend it, and make the route again, which goes "
    "on from there."
)


def ask() -> None:
    note = (
        "One form; everything can be changed later. `swapgate init --guided` asks for the same."
    )
    st.html(html.section("First steps: make your first route", note))
    st.html(html.note(ABOUT))
    with st.container(border=True):
        st.html(html.section("1. Provider", "Where the model that serves now is called."))
        entered = _ask_provider()
    provider, simulated = entered.provider, entered.provider == SIMULATOR
    with st.container(border=True):
        st.html(
            html.section("2. Route", "What clients name, and what decides about its model.")
        )
        suites = sorted(page_frame.context().suites.names())
        policies = sorted(page_frame.context().policies)
        usual = entered.policy if simulated else "default"
        first, second, third = st.columns(3)
        route = first.text_input("Route, the name that clients use", entered.route)
        suite = second.selectbox(
            "Suite that decides", suites, index=_index(suites, entered.suite)
        )
        policy = third.selectbox(
            "Policy", policies, index=_index(policies, usual), key=f"policy-{provider}",
            help="quick decides within minutes, on too little evidence for production.",
        )  # fmt: skip
        st.html(html.note(OWN_QUESTIONS))
    with st.container(border=True):
        st.html(
            html.section("3. First proposal", "Its evals begin at once; empty for none yet.")
        )
        candidate = st.text_input(
            "Candidate, another model of this provider",
            entered.candidate if simulated else "",
            key=f"candidate-{provider}",
        )
    _create(
        replace(
            entered, route=route.strip(), suite=suite or "", policy=policy or usual,
            candidate=candidate.strip(),
        )
    )  # fmt: skip


def _ask_provider() -> FirstRoute:
    """Provider, address, key and model. Each kind keeps what was typed for it."""
    usual = FirstRoute()
    left, right = st.columns(2)
    provider = left.selectbox(
        "Provider",
        first_route.provider_choices(),
        accept_new_options=True,
        help="A kind of provider, or a name of yours for an OpenAI-compatible server.",
    )
    provider = provider or SIMULATOR
    simulated = provider == SIMULATOR
    address = first_route.usual_address(provider)
    api_base = right.text_input("Address", address, key=f"address-{provider}")
    key = ""
    if simulated:
        st.html(html.note(SIMULATED))
    left, right = st.columns(2)
    model = left.text_input(
        "Model that serves now", usual.model if simulated else "", key=f"model-{provider}"
    )
    if not simulated:
        key = right.text_input(
            "Key", type="password", autocomplete="off", key=f"key-{provider}"
        )
        right.html(html.note("Stored encrypted; leave it empty where none is needed."))
    return replace(
        usual, provider=provider, api_base=api_base.strip(), key=key, model=model.strip()
    )


def _create(wanted: FirstRoute) -> None:
    def make(actor: Actor) -> None:
        first_route.create_first_route(page_frame.context(), actor, wanted)
        st.session_state[MADE] = wanted.route

    done = f"Route {wanted.route} is made."
    missing = "" if wanted.model and wanted.route else "Name the model and the route first."
    missing = missing or current_user.why_not(Role.ADMIN)
    if st.button("Make the route", key="make-route", type="primary", disabled=bool(missing)):
        with st.spinner("The route is made, and its provider asked whether it answers."):
            current_user.attempt(make, lambda _: done, refused=REFUSED)
    if missing:
        st.html(html.note(missing))


def _index(names: list[str], wanted: str) -> int:
    return names.index(wanted) if wanted in names else 0


def show_next_steps() -> None:
    route = st.session_state.get(MADE)
    if route is None:
        return
    for check in checks.load_last_check(page_frame.context()).providers:
        for finding in check.findings:
            if finding.next_step:
                words = f"{finding.found}. Next: {finding.next_step}"
                st.html(html.banner(f"{check.provider}:", words))
    traffic = f"<code>swapgate sim traffic {escape(route)} --until-settled</code>"
    entered = (
        f"<p>Clients ask for the model {strong(route)} at the router's address, with a key of "
        "<code>swapgate key create</code>.</p>"
    )
    evaluated = (
        "<p>A proposal's evals run by themselves, as long as the control plane runs. A canary "
        f"then needs users: {traffic} simulates them, with a client key in SWAPGATE_KEY.</p>"
    )
    st.html(html.block(entered + evaluated))
    for page, label in NEXT_PAGES.items():
        page_frame.link(page, label, "arrow_forward")
