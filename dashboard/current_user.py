"""Signs a visitor in with a management key, and runs a page's actions as that person. Without a
key the pages can be read, but change nothing. The key's text is checked and dropped; the
session keeps whose it is, and every action checks that the key is still valid.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.text import html
from harness.control.operations import keys
from harness.domain.errors import NotAllowed, NotFound, SwapgateError
from harness.domain.operations.access import Actor

STATE: Final = "acting"
SIGN_IN: Final = (
    "Sign in with a management key in the sidebar first; swapgate key create NAME --role … "
    "creates one."
)


def show_sign_in() -> None:
    """Show the field for a key in the sidebar, or who has signed in."""
    with st.sidebar:
        actor = signed_in()
        if actor is None:
            _ask_key()
            return
        role = actor.role.name.lower()
        st.html(html.note(f"You act as {actor.name}: {role}, with the key {actor.key}."))
        if st.button("Sign out", icon=":material/logout:"):
            del st.session_state[STATE]
            st.rerun()


def _ask_key() -> None:
    # Streamlit clears what was typed together with the form.
    with st.form("sign-in", clear_on_submit=True):
        text = st.text_input(
            "Management key",
            type="password",
            autocomplete="off",
            help="Without a key you can read these pages, but change nothing.",
        )
        if not st.form_submit_button("Sign in"):
            return
    try:
        installation = page_frame.installation()
        actor = keys.authenticate(
            installation.context.store, text.strip(), secret=installation.secret
        )
    except SwapgateError as error:
        st.html(html.failure("Not signed in", str(error), "You can still read the pages."))
        return
    st.session_state[STATE] = actor
    st.rerun()


def signed_in() -> Actor | None:
    """Returns who signed in, with the role that the key had at that moment."""
    found = st.session_state.get(STATE)
    return found if isinstance(found, Actor) else None


def may_read_content() -> bool:
    """Whether the visitor may read what was said in sessions: by a key that is still valid, or
    because requests of this machine need none (`agents.open_on_loopback`).
    """
    installation, actor = page_frame.installation(), signed_in()
    if installation.settings.agents.open_on_loopback:
        return True
    if actor is not None:
        with suppress(NotAllowed, NotFound):
            keys.still(installation.context.store, actor)
            return True
    return False


def attempt(action: Callable[[Actor], object], done: Callable[[Actor], str]) -> None:
    """Does an act by `page_frame.attempt` for whoever signed in, with the role that the key has
    now.
    """
    try:
        actor = signed_in()
        if actor is None:
            raise NotAllowed(SIGN_IN)
        actor = keys.still(page_frame.context().store, actor)
    except SwapgateError as error:
        st.html(html.failure("Not done", str(error), "Nothing was changed."))
        return
    page_frame.attempt(lambda: action(actor), done(actor))
