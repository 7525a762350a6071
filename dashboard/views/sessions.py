"""The Sessions page answers: which agents wait for me, and what did they do? Switches that wait
for a person come first; then the sessions, or one with its transcript, children and costs.
"""

from datetime import datetime

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.data import sessions
from dashboard.data.sessions import MOST_MESSAGES, SessionView
from dashboard.model_switch_controls import show_waiting
from dashboard.text import html, labels, session_text
from harness.domain.agents.agent import AgentSession
from harness.domain.errors import NotFound


def show() -> None:
    chosen = st.query_params.get("session")
    if chosen:
        _show_session(chosen)
    else:
        _show_list()


def _show_list() -> None:
    with page_frame.loading("the sessions"):
        view = sessions.list_sessions(page_frame.context(), st.query_params.get("after"))
    st.html(html.title(*session_text.list_title(view)))
    page_frame.show_done_message()
    for request in view.waiting:
        show_waiting(request, view.agents[request.agent].name, view.now)
    if not view.sessions:
        st.html(
            html.empty(
                "No agent has held a conversation yet. This opens the first one:",
                "swapgate demo agents",
            )
        )
    for session in view.sessions:
        _session_row(session, view.agents[session.agent].name, view.now)
    if view.sessions.next is not None:
        st.page_link(
            "views/sessions.py", label="Older", icon=":material/history:",
            query_params={"after": view.sessions.next},
        )  # fmt: skip
    page_frame.copy_as_cli("agent", "requests")


def _session_row(session: AgentSession, agent: str, now: datetime) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/sessions.py", label=f"{agent} · {session.id}", icon=":material/forum:",
            query_params={"session": session.id}, width="content",
        )  # fmt: skip
        with_user = current_user.may_read_content()
        line = session_text.session_line(session, now, with_user=with_user)
        st.html(line, width="content")


def _show_session(id_: str) -> None:
    try:
        with page_frame.loading("the session"):
            view = sessions.load_session(page_frame.context(), id_, _position())
    except NotFound:
        _say_gone()
        return
    readable = current_user.may_read_content()
    st.html(html.title(*session_text.session_title(view)))
    page_frame.show_done_message()
    _links(view)
    for request in view.waiting:
        show_waiting(request, view.agent.name, view.now)
    if view.switches:
        st.html(session_text.switches(view.switches, view.now, readable=readable))
    st.html(session_text.costs(view.usage, view.alone))
    if view.children:
        heading = labels.plural(len(view.children), "spawned session")
        st.html(html.section(heading))
    for child in view.children:
        _session_row(child, view.agent.name, view.now)
    _transcript(view, readable=readable)
    page_frame.copy_as_curl(f"/agents/{view.agent.id}/sessions/{view.session.id}/messages")


def _position() -> int | None:
    """The message that the transcript goes on behind, by the address."""
    text = st.query_params.get("behind", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _say_gone() -> None:
    st.html(html.title("There is no such session"))
    st.html(
        html.note(
            "It may have been deleted, with its transcript: a session is kept for "
            "agents.keep_days after its last message, and a user's are deleted on request."
        )
    )
    st.page_link("views/sessions.py", label="All sessions", icon=":material/list:")


def _links(view: SessionView) -> None:
    with st.container(horizontal=True):
        st.page_link("views/sessions.py", label="All sessions", icon=":material/list:")
        if view.session.parent:
            st.page_link(
                "views/sessions.py", label="Spawned by", icon=":material/arrow_upward:",
                query_params={"session": view.session.parent},
            )  # fmt: skip


def _transcript(view: SessionView, *, readable: bool) -> None:
    last = view.after + len(view.messages)
    note = f"Messages {view.after + 1:,} to {last:,} of {view.total:,}."
    st.html(html.section("Transcript", note if view.total else "No message yet."))
    if not readable:
        st.html(html.note(f"What was said is private. {current_user.SIGN_IN}"))
    st.html(session_text.transcript(view, readable=readable))
    with st.container(horizontal=True):
        if view.after:
            _page_link(view, "Earlier", max(0, view.after - MOST_MESSAGES))
        if last < view.total:
            _page_link(view, "Later", last)


def _page_link(view: SessionView, label: str, behind: int) -> None:
    st.page_link(
        "views/sessions.py", label=label, icon=":material/history:",
        query_params={"session": view.session.id, "behind": str(behind)},
    )  # fmt: skip


page_frame.show_page("The sessions", show)
