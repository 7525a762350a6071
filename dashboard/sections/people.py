"""The Keys page's section of people: who is one person, and who is signed in?"""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialog_forms import REASON, Form, dialog, show_openers
from dashboard.text import html, labels
from dashboard.text.html import escape, faint, noted, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.context import Context
from harness.control.operations import dashboard_sessions, people
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.people import PersonView
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.principals import PrincipalKind

_WAYS: Final = {
    "key": "a management key",
    "link": "a one-time link",
    "oidc": "single sign-on",
}
_KINDS: Final = {
    PrincipalKind.LOCAL: "the command line of this machine",
    PrincipalKind.SERVICE: "a key, as a service",
    PrincipalKind.PERSON: "a key",
}


def _cells(view: PersonView) -> html.Row:
    way = f"single sign-on at {view.issuer}" if view.issuer else _KINDS[view.kind]
    if view.person:
        said = "nobody else here" if view.person == view.name else f"the same as {view.person}"
        declared = noted(escape(said), f"said by {view.declared_by}: {view.reason}")
    elif view.issuer:
        declared = state(Label("?", "not declared yet", Tone.UNDECIDED))
    else:
        declared = faint("as named")
    return {"Name": strong(view.name), "Acts by": escape(way), "Is": declared}


def _urgency(view: PersonView) -> tuple[bool, str]:
    """Orders principals: first those of whom an admin has to say who they are, then by name."""
    return (bool(view.person) or view.issuer is None, view.folded)


def _session_cells(view: SignedInSession) -> html.Row:
    return {
        "Name": strong(view.name),
        "Signed in": escape(labels.date_time(view.opened_at)),
        "By": escape(_WAYS[view.by]),
        "Until (UTC)": escape(labels.date_time(view.expires_at)),
    }


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
    ctx, actor = page_frame.context(), current_user.signed_in()
    known = people.list_people(ctx, actor)
    going_on = dashboard_sessions.list_open(ctx, actor)
    others = [view for view in known if view.kind is not PrincipalKind.LOCAL]
    st.html(html.section("People", NOTE))
    nobody = "" if others else "There is nobody but the operator of this machine."
    none = "" if going_on else "Nobody is signed in."
    show_openers(
        [declare.opener(known, missing=nobody), end_session.opener(going_on, missing=none)]
    )
    if actor is None or actor.role < Role.ADMIN:
        st.html(html.note(OWN))
    if not known:
        return
    rows = [_cells(view) for view in sorted(known, key=_urgency)[:MOST_ROWS]]
    st.html(html.table(rows, stacked=True))
    if len(known) > MOST_ROWS:
        st.html(html.note(f"{MOST_ROWS} of {len(known):,}; swapgate person list has all."))
    if going_on:
        st.html(html.listing("Signed in now", "", map(_session_cells, going_on[:MOST_ROWS])))


@dialog("Declare who somebody is", Role.ADMIN, "declaration", "group", width="medium")
def declare(form: Form, known: Sequence[PersonView]) -> None:
    lacks = "Choose two names and give a reason: the audit log keeps it."
    names = [view.name for view in known if view.kind is not PrincipalKind.LOCAL]
    name = form.choose("name", "Who", names, placeholder="Choose a name")
    persons = [NOBODY_ELSE, *(view.name for view in known if view.name != name)]
    person = form.choose("person", "Is the same person as", persons)
    form.need(name and person, lacks)
    reason = form.text("why", REASON, need=lacks)
    one = f"{name} and {person} are one person."
    form.says = f"{name} is nobody else here." if person == NOBODY_ELSE else one
    form.submit("Declare it", "", _declare, name or "", person or "", reason)


def _declare(ctx: Context, actor: Actor, name: str, person: str, reason: str) -> None:
    if person == NOBODY_ELSE:
        people.separate(ctx, actor, name, reason)
    else:
        people.link(ctx, actor, name, person, reason)


@dialog("End a session", Role.ADMIN, "session", "logout", width="medium")
def end_session(form: Form, going_on: Sequence[SignedInSession]) -> None:
    lacks = "Choose a session and give a reason."
    choices = {
        f"{view.name} · since {labels.date_time(view.opened_at)} · {view.id}": view
        for view in going_on
    }
    view = choices.get(form.choose("whose", "Whose", choices, need=lacks) or "")
    reason = form.text("why", REASON, need=lacks)
    form.says = f"{view.name} is signed out of that browser." if view else ""
    ended = view.id if view else ""
    form.submit("End the session", "", dashboard_sessions.end_another, ended, reason)
