"""Who acts. Without a login the dashboard listens on loopback only, and its user is admin."""

import getpass
import os

import streamlit as st

from harness.domain.access import Actor, Role

VARIABLE = "SWAPGATE_ACTOR"
KEY = "acting_name"


def default_name() -> str:
    """SWAPGATE_ACTOR, else the operating system's user."""
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container may run under a number that has no name.
        return "operator"


def ask() -> None:
    """The field in the sidebar."""
    with st.sidebar:
        st.text_input(
            "You act as",
            value=default_name(),
            key=KEY,
            help="This name is written to the audit log. Whoever proposed cannot approve.",
        )


def acting() -> Actor:
    name = str(st.session_state.get(KEY) or "").strip() or default_name()
    return Actor(name, Role.ADMIN)
