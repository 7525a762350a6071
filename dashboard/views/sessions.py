"""The Sessions page answers: which agents wait for me, and what did they do? Switches that wait
for a person come first; then the sessions, or one with its transcript, children and costs. All
of it is refreshed every 2 s.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.data import sessions
from dashboard.data.sessions import MOST_MESSAGES, SessionView
from dashboard.dialog_forms import REASON, Form, dialog, show_openers
from dashboard.text import html, labels, session_text
from harness.control.agents import agents, switches
from harness.domain.agents.agent import AgentGrant, AgentSession
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.errors import NotFound
from harness.domain.operations.access import Role
from harness.domain.pagination import PageRequest

# Of each button: what it does, and how the line after it begins.
DECISIONS: Final[Mapping[str, tuple[Callable[..., ModelSwitchRequest], str]]] = {
    "Approve": (switches.approve_switch, "approved"),
    "Reject": (switches.reject_switch, "rejected"),
}


def decide(verb: str, request: ModelSwitchRequest, agent: str) -> None:
    """Opens the dialog for a decision, which is bound to what stands there: a request that has
    changed since is refused.
    """
    act, done = DECISIONS[verb]

    @dialog(f"{verb} the switch?", Role.APPROVER, verb, width="medium")
    def ask(form: Form, request: ModelSwitchRequest) -> None:
        now = page_frame.context().clock.now()
        st.html(session_text.switch_details(request, agent, now))
        reason = form.text("why", "Your reason (optional; the agent is told)")
        said = f"{done} the switch that {agent} asked for."
        form.submit(
            f"{verb} the switch", said, act, request.id, reason, fingerprint=request.hash
        )

    ask(request)


@dialog(
    "Revoke a grant", Role.APPROVER, "grant", "block", label="Revoke a grant …", width="medium"
)
def revoke_grant(form: Form, grants: Sequence[AgentGrant]) -> None:
    """Asks which grant ends, and why. grants: those in force."""
    lacks = "Choose a grant and give a reason."
    choices = {f"{grant.target_name} · {grant.agent} · {grant.id}": grant for grant in grants}
    choice = form.choose("which", "Which", choices, need=lacks, placeholder="Choose a grant")
    st.html(html.note(GRANT_ENDS))
    id_ = choices[choice].id if choice else ""
    reason = form.text("why", REASON, need=lacks)
    form.submit("Revoke it", f"revoked {id_}.", agents.revoke_grant, id_, reason)


GRANT_ENDS = (
    "Routers refuse the model within seconds. A session on it answers again once it is "
    "switched to another model."
)
EVERY = "2s"
MOST_GRANTS = 50
DECISION = "switch_decision"


def show() -> None:
    with st.container():
        page_frame.show_done_message()
    decision = st.session_state.pop(DECISION, None)
    if decision is not None:
        decide(*decision)
    address = st.query_params.to_dict()
    # Streamlit's link to the page that is shown leaves the browser's address as it was.
    st.query_params.from_dict(address)
    live(address)
    if "session" not in address:
        _show_grants()
    page_frame.copy_as_cli(["agent", "requests"])


@st.fragment(run_every=EVERY)
def live(address: Mapping[str, str]) -> None:
    """Show what refreshes by itself: all but the dialog, in which somebody may be typing.

    What comes and goes stands in a container, so that nothing below it is drawn anew.
    """
    # Under this key it does not fade while it is read anew.
    with st.container(key="live-sessions"):
        with current_user.live_part("The sessions"):
            if session := address.get("session"):
                _show_session(session, _position(address.get("behind", "")))
            else:
                _show_list(address.get("after"))
        now = page_frame.context().clock.now()
        st.html(html.note(f"updated {labels.time_of_day(now)} UTC, every 2 s"))


def _show_list(after: str | None) -> None:
    with page_frame.loading("the sessions"):
        view = sessions.list_sessions(page_frame.context(), after)
    st.html(html.title(*session_text.list_title(view)))
    with st.container():
        for request in view.waiting:
            _show_waiting(request, view.agents[request.agent], view.now)
    if not view.sessions:
        page_frame.show_empty(
            "No agent has held a conversation yet. This page says how to open one:",
            "swapgate docs open agents",
        )
    readable = current_user.may_read_content()
    for session in view.sessions:
        line = session_text.session_line(session, view.now, with_user=readable)
        _show_session_link(session, view.agents[session.agent], line)
    if view.sessions.next is not None:
        page_frame.link("sessions", "Older", "history", after=view.sessions.next)


def _show_waiting(request: ModelSwitchRequest, agent: str, now: datetime) -> None:
    """Show one request with its buttons; disabled ones say why."""
    why = current_user.why_not(Role.APPROVER)
    with st.container(border=True, key=f"switch-{request.id}"):
        st.html(session_text.waiting_switch(request, agent, now))
        with st.container(horizontal=True, vertical_alignment="center"):
            for verb in DECISIONS:
                if st.button(
                    f"{verb} …",
                    type="primary" if verb == "Approve" else "secondary",
                    key=f"{verb}-{request.id}",
                    disabled=bool(why),
                ):
                    # The dialog opens outside of what refreshes, which would close it.
                    st.session_state[DECISION] = (verb, request, agent)
                    st.rerun()
            if why:
                st.html(html.note(why), width="content")


def _show_session_link(session: AgentSession, agent: str, line: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        page_frame.link(
            "sessions", session_text.link_label(agent, session), "forum", session=session.id
        )
        st.html(line, width="content")


def _show_session(id_: str, behind: int | None) -> None:
    try:
        with page_frame.loading("the session"):
            view = sessions.load_session(page_frame.context(), id_, behind)
    except NotFound:
        _say_gone()
        return
    readable = current_user.may_read_content()
    st.html(html.title(*session_text.session_title(view)))
    with st.container(horizontal=True):
        page_frame.link("sessions", "All sessions", "list")
        if view.session.parent:
            page_frame.link(
                "sessions", "Spawned by", "arrow_upward", session=view.session.parent
            )
    with st.container():
        for request in view.waiting:
            _show_waiting(request, view.agent, view.now)
    switched = session_text.switches(view.switches, view.now, readable=readable)
    with st.container():
        if figures := switched + session_text.costs(view.usage, view.prices):
            st.html(figures)
    with st.container():
        if view.children:
            st.html(html.section(labels.plural(len(view.children), "spawned session")))
        for child in view.children:
            line = session_text.session_line(child, view.now, with_user=readable)
            _show_session_link(child, view.agent, line)
    _show_transcript(view, readable=readable)


def _show_grants() -> None:
    """Show which literal models people granted to agents; outside of what refreshes itself."""
    ctx = page_frame.context()
    page, now = ctx.store.lists.agent_grants(PageRequest(MOST_GRANTS)), ctx.clock.now()
    page_frame.show_html(html.invalid(page.invalid))
    if not page.items:
        return
    st.html(html.section("Grants", session_text.GRANTS_NOTE))
    in_force = [grant for grant in page if session_text.is_in_force(grant, now)]
    none = "" if in_force else "No grant is in force."
    show_openers([revoke_grant.opener(in_force, missing=none)])
    rows = [session_text.grant_cells(grant, now) for grant in page]
    st.html(html.table(rows, stacked=True))
    page_frame.show_rest(page, "grants", "swapgate agent grants")


def _position(text: str) -> int | None:
    """The message that the transcript goes on behind; None for text that is no position."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _say_gone() -> None:
    st.html(html.title("There is no such session"))
    st.html(
        html.note(
            "It may have been deleted, with its transcript: a session is kept for "
            "agents.keep_days after its last message, and a user's are deleted on request."
        )
    )
    page_frame.link("sessions", "All sessions", "list")


def _show_transcript(view: SessionView, *, readable: bool) -> None:
    last = view.after + len(view.messages)
    note = f"Messages {view.after + 1:,} to {last:,} of {view.total:,}."
    heading = html.section("Transcript", note if view.total else "No message yet.")
    private = "" if readable else html.note(f"What was said is private. {current_user.SIGN_IN}")
    st.html(heading + private)
    st.html(session_text.transcript(view, readable=readable))
    with st.container(horizontal=True):
        if view.after:
            before = str(max(0, view.after - MOST_MESSAGES))
            page_frame.link(
                "sessions", "Earlier", "history", session=view.session.id, behind=before
            )
        if last < view.total:
            page_frame.link(
                "sessions", "Later", "history", session=view.session.id, behind=str(last)
            )


if __name__ == "__main__":
    page_frame.show_page("The sessions", show)
