"""The Keys page's section of people: who of the principals is one person, who is signed in, and
the dialogs to declare the one and to end the other.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialogs import action_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels
from dashboard.text.html import escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.operations import dashboard_sessions, people
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.people import PersonView
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.principals import PrincipalKind

HEADS: Final = ("Name", "Acts by", "Is")
SESSION_HEADS: Final = ("Name", "Signed in", "By", "Until (UTC)")
_WAYS: Final = {
    "key": "a management key",
    "link": "a one-time link",
    "oidc": "single sign-on",
}


def cells(view: PersonView) -> list[str]:
    """Renders a principal's row as cells of HTML, in the order of HEADS."""
    return [strong(view.name), escape(_way(view)), _declared(view)]


def urgency(view: PersonView) -> tuple[bool, str]:
    """Orders principals: first those of whom an admin has to say who they are, then by name."""
    return (bool(view.person) or view.issuer is None, view.folded)


def _way(view: PersonView) -> str:
    if view.issuer is not None:
        return f"single sign-on at {view.issuer}"
    return {
        PrincipalKind.LOCAL: "the command line of this machine",
        PrincipalKind.SERVICE: "a key, as a service",
        PrincipalKind.PERSON: "a key",
    }[view.kind]


def _declared(view: PersonView) -> str:
    if not view.person:
        if view.issuer is not None:
            return state(Label("?", "not declared yet", Tone.UNDECIDED))
        return '<span class="note">as named</span>'
    said = "nobody else here" if view.person == view.name else f"the same as {view.person}"
    why = f"said by {view.declared_by}: {view.reason}"
    return f'{escape(said)}<br><span class="note">{escape(why)}</span>'


def session_cells(view: SignedInSession) -> list[str]:
    """Renders a session's row as cells of HTML, in the order of SESSION_HEADS."""
    return [
        strong(view.name),
        escape(labels.date_time(view.opened_at)),
        escape(_WAYS[view.by]),
        escape(labels.date_time(view.expires_at)),
    ]


def session_choice(view: SignedInSession) -> str:
    """Names a session in a list to choose from."""
    return f"{view.name} · since {labels.date_time(view.opened_at)} · {view.id}"


NOBODY_ELSE: Final = "Nobody else here"
# With more of them, the command line lists all.
MOST_ROWS: Final = 50
OWN: Final = "An admin sees everybody here; whoever else is signed in sees himself."
NOTE: Final = (
    "Who approves is another person than who proposed. If somebody has a key and uses single "
    "sign-on, declare that both are one person. Until an admin has declared who somebody of "
    "single sign-on is, he and people with keys approve nothing of each other's."
)


def show_people() -> None:
    """Shows who is who, and who is signed in."""
    ctx, actor = page_frame.context(), current_user.signed_in()
    known = people.list_people(ctx, actor)
    going_on = dashboard_sessions.list_open(ctx, actor)
    others = [view for view in known if view.kind is not PrincipalKind.LOCAL]
    st.html(html.section("People", NOTE))
    action_dialogs.show_openers(
        [
            Opener(
                "Declare who somebody is",
                ":material/group:",
                partial(declare, known),
                "declare",
                missing="" if others else "There is nobody but the operator of this machine.",
            ),
            Opener(
                "End a session",
                ":material/logout:",
                partial(end_session, going_on),
                "end-session",
                missing="" if going_on else "Nobody is signed in.",
            ),
        ]
    )
    if actor is None or actor.role < Role.ADMIN:
        st.html(html.note(OWN))
    if not known:
        return
    rows = [cells(view) for view in sorted(known, key=urgency)[:MOST_ROWS]]
    st.html(html.table(HEADS, rows, stacked=True))
    if len(known) > MOST_ROWS:
        st.html(html.note(f"{MOST_ROWS} of {len(known):,}; swapgate person list has all."))
    if going_on:
        st.html(html.section("Signed in now"))
        rows = [session_cells(view) for view in going_on[:MOST_ROWS]]
        st.html(html.table(SESSION_HEADS, rows, stacked=True))


@action_dialogs.dialog("Declare who somebody is", width="medium")
def declare(known: Sequence[PersonView]) -> None:
    """Asks which two principals are one person, and why that is known."""
    names = [view.name for view in known if view.kind is not PrincipalKind.LOCAL]
    name = st.selectbox("Who", names, index=None, key="declared", placeholder="Choose a name")
    persons = [NOBODY_ELSE, *(view.name for view in known if view.name != name)]
    person = st.selectbox(
        "Is the same person as", persons, index=None, key="person", placeholder="Choose"
    )
    reason = action_dialogs.ask_reason("declaration-reason")
    action_dialogs.submit(
        "Declare it",
        key="declare-it",
        role=Role.ADMIN,
        missing=""
        if name and person and reason
        else "Choose two names and give a reason: the audit log keeps it.",
        act=lambda actor: _declare(actor, name or "", person or "", reason),
        done=lambda _: (
            f"{name} is nobody else here." if person == NOBODY_ELSE
            else f"{name} and {person} are one person."
        ),
    )  # fmt: skip


def _declare(actor: Actor, name: str, person: str, reason: str) -> None:
    ctx = page_frame.context()
    if person == NOBODY_ELSE:
        people.separate(ctx, actor, name, reason)
    else:
        people.link(ctx, actor, name, person, reason)


@action_dialogs.dialog("End a session", width="medium")
def end_session(going_on: Sequence[SignedInSession]) -> None:
    """Asks whose session to end, and why."""
    choices = {session_choice(view): view for view in going_on}
    choice = st.selectbox("Whose", list(choices), key="ended", index=None, placeholder="Choose")
    reason = action_dialogs.ask_reason("session-reason")
    view = choices.get(choice or "")
    action_dialogs.submit(
        "End the session",
        key="end-it",
        role=Role.ADMIN,
        missing="" if view is not None and reason else "Choose a session and give a reason.",
        act=lambda actor: view and dashboard_sessions.end_another(
            page_frame.context(), actor, view.id, reason
        ),
        done=lambda _: f"{view.name if view else ''} is signed out of that browser.",
    )  # fmt: skip
