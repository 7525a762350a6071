"""What the dialogs and buttons of the pages to act share: buttons that open dialogs and say why
they are off, the field for a reason, and the button that works once nothing is missing.

A dialog is safe against a stray keystroke: Enter in a field does nothing, its button is off
until what it needs stands there, and it says what is missing.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec

import streamlit as st

from dashboard import current_user
from dashboard.text import html
from harness.domain.errors import SwapgateError
from harness.domain.operations.access import Actor, Role

log = logging.getLogger("swapgate.dashboard")

Fields = ParamSpec("Fields")
Width = Literal["small", "medium", "large"]

REASON = "Reason (required; the audit log keeps it)"
NOT_NOW = "This cannot be asked now"
UNCHANGED = "Nothing was changed."
RELOAD = "Reload the page: it shows what holds now."
OUR_ERROR = "An unexpected error; its details are in the dashboard's log."
REASON_MISSING = "The button works once a reason stands here."


def dialog(
    title: str, *, width: Width = "small"
) -> Callable[[Callable[Fields, None]], Callable[Fields, None]]:
    """Makes a dialog of a function. An error in it is shown in words, and leaves the page as it
    is.
    """

    def make(show: Callable[Fields, None]) -> Callable[Fields, None]:
        @wraps(show)
        def guarded(*args: Fields.args, **kwargs: Fields.kwargs) -> None:
            # It draws itself anew without the page, which asked who may read.
            current_user.require_reader()
            try:
                show(*args, **kwargs)
            except SwapgateError as error:
                why = str(error)
                st.html(html.failure(NOT_NOW, why, UNCHANGED, docs_page=error.docs_page))
            except Exception:
                # The last resort, as of a page: our error belongs in the log.
                log.exception("dialog_failed: %s", title)
                st.html(html.failure("This failed", OUR_ERROR, RELOAD))

        # The one place that opens a dialog of Streamlit's, which would show a traceback.
        return st.dialog(title, width=width)(guarded)  # noqa: TID251

    return make


@dataclass(frozen=True, slots=True)
class Opener:
    """Describes a button that opens a dialog."""

    label: str
    icon: str
    open: Callable[[], None]
    key: str
    role: Role = Role.ADMIN
    # Why it cannot be opened for another reason than the role; empty where it can.
    missing: str = ""


def show_openers(openers: Sequence[Opener], *, explain: Sequence[Opener] | None = None) -> None:
    """Shows a row of buttons; below it, why those that are off are off.

    explain: the buttons whose reasons stand below; other rows may have their reasons here.
    """
    with st.container(horizontal=True):
        for opener in openers:
            why = current_user.why_not(opener.role) or opener.missing
            clicked = st.button(
                opener.label, icon=opener.icon, key=opener.key, disabled=bool(why)
            )
            if clicked or st.session_state.pop(_reopen_key(opener.key), False):
                opener.open()
    refusals = describe_refusals(openers if explain is None else explain)
    if refusals:
        st.html(html.note(refusals))


def describe_refusals(openers: Sequence[Opener]) -> str:
    """Says why buttons are off: each reason once, and of several roles which button needs
    which; empty where none is off.
    """
    refused: dict[Role, list[str]] = {}
    for opener in openers:
        if current_user.why_not(opener.role):
            refused.setdefault(opener.role, []).append(opener.label.removesuffix(" …"))
    missing = dict.fromkeys(
        opener.missing for opener in openers if opener.missing and opener.role not in refused
    )
    actor = current_user.signed_in()
    if actor is None or len(refused) < 2:
        reasons = dict.fromkeys(current_user.why_not(role) for role in refused)
        return " ".join((*reasons, *missing))
    needs = "; ".join(
        f"{', '.join(labels)} {'needs' if len(labels) == 1 else 'need'} {role.name.lower()}"
        for role, labels in sorted(refused.items())
    )
    return " ".join((f"{actor.name} is {actor.role.name.lower()}: {needs}.", *missing))


def reopen(key: str) -> None:
    """Lets the dialog of this button open again when the page is drawn next."""
    st.session_state[_reopen_key(key)] = True


def _reopen_key(key: str) -> str:
    return f"again-{key}"


def ask_reach(route: str, key: str) -> str | None:
    """Asks whether an act is about this route alone, or all of them: None."""
    where = st.radio("Where", [f"Route {route} alone", "All routes"], key=key)
    return None if where.startswith("All") else route


def ask_reason(key: str) -> str:
    """Shows the field for a reason; returns what stands in it, stripped."""
    return (st.text_input(REASON, key=key, live=True) or "").strip()


def submit(
    label: str,
    *,
    key: str,
    role: Role,
    missing: str,
    act: Callable[[Actor], object],
    done: Callable[[Actor], str],
    waits_for: str = "",
) -> None:
    """Shows a dialog's button, and below it what is missing.

    waits_for: what a slow act waits for.
    """

    def attempt() -> None:
        current_user.attempt(act, done)

    why = current_user.why_not(role) or missing
    if st.button(label, type="primary", key=key, disabled=bool(why)):
        if waits_for:
            with st.spinner(f"{waits_for} …"):
                attempt()
        else:
            attempt()
    if why:
        st.html(html.note(why))
