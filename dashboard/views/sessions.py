"""The Sessions page answers: which agents wait for me, and what did they do? It refreshes every
2 s.

A transcript is private: it is shown only to visitors who may read content. Texts of agents and
users are escaped in HTML and in Markdown. Deciding a switch uses the same texts as the approval
pages.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import REASON, Form, dialog, show_openers
from dashboard.labels import Label, Tone
from dashboard.markup import escape, noted, pill, strong
from harness.agents import agents, switches
from harness.agents.message import MessageRole, MessageState, SessionMessage
from harness.agents.records import Agents, SessionMessages, Sessions
from harness.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    switch_lines,
    switch_question,
    visible_text,
)
from harness.frame.errors import NotFound
from harness.frame.formatting import format_age, format_quantity, format_usd
from harness.frame.pagination import MOST_LISTED, PageRequest
from harness.frame.people.access import Role
from harness.routing.agent import AgentGrant, AgentSession, SessionState

# Limited, because each message may be as long as `agents.max_message_bytes`.
MOST_MESSAGES: Final = 30
MOST_SWITCHES: Final = 100
# The page cuts longer texts, and notes their full length.
SHOWN_CHARACTERS: Final = 4_000
SWITCH_LABELS: Final[Mapping[SwitchState, Label]] = {
    SwitchState.PENDING: Label("?", "waits for approval", Tone.UNDECIDED),
    SwitchState.APPROVED: Label("✓", "approved", Tone.BETTER),
    SwitchState.REJECTED: Label("✕", "rejected", Tone.WORSE),
    SwitchState.EXPIRED: Label("◷", "expired", Tone.NEUTRAL),
    SwitchState.CANCELLED: Label("=", "cancelled", Tone.NEUTRAL),
}
_STATES: Final = {
    MessageState.STREAMING: ("◷ under way", Tone.NEUTRAL),
    MessageState.INTERRUPTED: ("✕ interrupted", Tone.WORSE),
    MessageState.FAILED: ("✕ failed", Tone.WORSE),
}
HIDDEN: Final = "not shown without signing in"
GONE: Final = (
    "It may be deleted with its transcript: Swapgate keeps a session for agents.keep_days "
    "after its last message, and deletes a user's sessions on request."
)


def known_cost(session: AgentSession) -> str:
    # Answers of unknown price add nothing, so 0 may mean unknown.
    return f"known cost {format_usd(session.cost_usd)}" if session.cost_usd else "no known cost"


def _switch_cells(request: ModelSwitchRequest, now: datetime, *, readable: bool) -> markup.Row:
    """Builds a switch request's row. readable: the visitor may read the agent's words."""
    model = f"sub-tasks on {request.wanted}" if request.for_children else request.wanted
    by = escape(f", by {request.decided_by}") if request.decided_by else ""
    return {
        "Model": noted(strong(model), f"asked {labels.date_time(request.asked_at)}"),
        "State": markup.state(SWITCH_LABELS[request.state_at(now)]) + by,
        "The agent's reason": escape(visible_text(request.reason) if readable else HIDDEN),
    }


def _head(message: SessionMessage) -> str:
    """Renders a message's author, state and figures."""
    served, used = message.served, message.usage
    who = strong(message.role.value)
    if message.role is MessageRole.ASSISTANT:
        who += f" {strong(served.target or served.model_requested)}"
    if message.state in _STATES:
        who += f" {pill(*_STATES[message.state])}"
    if served.fallback_from:
        who += f" {pill(f'▼ instead of {served.fallback_from}', Tone.UNDECIDED)}"
    figures = [f"#{message.position}", labels.time_of_day(message.created_at)]
    if served.target:
        figures.append(f"{used.input_tokens:,} + {used.output_tokens:,} tokens")
        figures.append(format_usd(used.cost_usd, "price unknown"))
    return f"<span>{who}</span><span>{escape(' · '.join(figures))}</span>"


def _content(message: SessionMessage) -> str:
    """Renders a message's text, tool calls and remarks."""
    text, kind = message.content, "call" if message.role is MessageRole.TOOL else ""
    if not isinstance(text, str):
        text = "\n".join(map(_part, text))
    parts = [markup.scrolled_text(escape(_cut(text)), kind)] if text else []
    parts += [
        markup.scrolled_text(f"→ {escape(call.name)} {escape(_cut(call.arguments))}", "call")
        for call in message.tool_calls
    ]
    parts += [_note(remark) for remark in (message.served.reason, message.error) if remark]
    return "".join(parts) or _note("(empty)")


def _part(part: Mapping[str, object]) -> str:
    """Formats a part of a message. Loads no picture, because a client chose its address."""
    if "text" in part:
        return str(part["text"])
    image = part.get("image_url")
    url = str(image.get("url", "")) if isinstance(image, Mapping) else ""
    if url.startswith("data:"):
        kind = url.removeprefix("data:").partition(";")[0]
        return f"[image: {kind}, {format_quantity(len(url), 'character')}]"
    return f"[image: {url}]" if url else f"[{part.get('type', 'part')}]"


def _cut(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]} … ({len(text):,} characters in all)"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


DECISIONS: Final[Mapping[str, tuple[Callable[..., ModelSwitchRequest], str]]] = {
    "Approve": (switches.approve_switch, "approved"),
    "Reject": (switches.reject_switch, "rejected"),
}


def decide(verb: str, request: ModelSwitchRequest, agent: str) -> None:
    """Opens the dialog that approves or rejects a switch. The decision names the request as the
    person saw it, so that a changed request is refused.
    """
    act, done = DECISIONS[verb]

    @dialog(f"{verb} the switch?", Role.APPROVER, verb, width="medium")
    def ask(form: Form, request: ModelSwitchRequest) -> None:
        now = page_frame.context().clock.now()
        # Facts, because a narrow screen would cut a table.
        facts = "".join(
            f'<span class="neutral">{escape(name)}</span><span>{escape(value)}</span>'
            for name, value in switch_lines(request, now)
        )
        question = f"<p>{strong(switch_question(request, agent))}</p>"
        st.html(markup.block(question) + markup.block(facts, kind="sg-facts"))
        reason = form.text("why", "Your reason (optional; the agent reads it)")
        done_text = f"{done} the switch that {agent} asked for."
        form.submit(
            f"{verb} the switch", done_text, act, request.id, reason, fingerprint=request.hash
        )

    ask(request)


@dialog(
    "Revoke a grant", Role.APPROVER, "grant", "block", label="Revoke a grant …", width="medium"
)
def revoke_grant(form: Form, grants: Sequence[AgentGrant]) -> None:
    lacks = "Choose a grant and give a reason."
    choices = {f"{grant.target_name} · {grant.agent} · {grant.id}": grant for grant in grants}
    choice = form.choose("which", "Which", choices, need=lacks, placeholder="Choose a grant")
    st.html(markup.note(GRANT_ENDS))
    id_ = choices[choice].id if choice else ""
    reason = form.text("why", REASON, need=lacks)
    form.submit("Revoke it", f"revoked {id_}.", agents.revoke_grant, id_, reason)


GRANTS_NOTE: Final = "Models outside a route that people let agents use. Newest first."
GRANT_ENDS: Final = (
    "Routers refuse the model within seconds. A session that uses it answers again after a "
    "switch to another model."
)
EVERY: Final = "2s"
MOST_SESSIONS: Final = 50
MOST_GRANTS: Final = 50
DECISION: Final = "switch_decision"
_MARK: Final = re.compile(r"([!-/:-@\[-`{-~])")


def show() -> None:
    """Shows the waiting switches and the sessions, or one session; the grants below the
    list.
    """
    with st.container():
        page_frame.show_done_message()
    decision = st.session_state.pop(DECISION, None)
    if decision is not None:
        decide(*decision)
    address = st.query_params.to_dict()
    # A Streamlit link to the current page does not update the browser's address.
    st.query_params.from_dict(address)
    live(address)
    if "session" not in address:
        _show_grants()
    page_frame.copy_as_cli(["agent", "requests"])


@st.fragment(run_every=EVERY)
def live(address: Mapping[str, str]) -> None:
    """Refreshes all but the dialog, in which a person may be typing. Parts that appear and
    disappear are in containers, so that Streamlit does not redraw the parts below them.
    """
    # styles.css selects this key, to prevent fading during refreshes.
    with st.container(key="live-sessions"), current_user.live_part("The sessions"):
        if session := address.get("session"):
            behind = address.get("behind", "")
            known = behind.isascii() and behind.isdigit() and len(behind) < 10
            _show_session(session, int(behind) if known else None)
        else:
            _show_list(address.get("after"))


def _show_list(after: str | None) -> None:
    """Shows the switches that wait for a person, then the sessions that no session spawned."""
    ctx = page_frame.context()
    with page_frame.loading("the sessions"):
        sessions = ctx.store.lists.sessions(PageRequest(MOST_SESSIONS, after), parent="")
        first, now = PageRequest(MOST_SWITCHES), ctx.clock.now()
        waiting = ctx.store.lists.switch_requests(first, pending_at=now)
        with ctx.store.read() as tx:
            ids = {session.agent for session in sessions} | {r.agent for r in waiting}
            names_of = {id_: Agents(tx).get(id_).name for id_ in ids}
    heading = "No switch waits for a person" if sessions.total else "No session yet"
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        names = ", ".join(dict.fromkeys(names_of[request.agent] for request in waiting))
        many = labels.plural(len(waiting), "switch", "switches")
        heading = f"{many} {verb} for approval: {strong(names)}"
    st.html(markup.title(heading, labels.plural(sessions.total, "session")))
    with st.container():
        for request in waiting:
            _show_waiting(request, names_of[request.agent], now)
    if not sessions:
        page_frame.show_empty(
            "No agent has opened a session yet. This page of the docs shows how:",
            "swapgate docs open agents",
        )
    for session in sessions:
        _show_session_link(session, names_of[session.agent], now)
    if sessions.next is not None:
        page_frame.link("sessions", "Older", "history", after=sessions.next)


def _show_waiting(request: ModelSwitchRequest, agent: str, now: datetime) -> None:
    """Omits the agent's own words, which not every visitor may read."""
    why = current_user.why_not(Role.APPROVER)
    with st.container(border=True, key=f"switch-{request.id}"):
        session = markup.link("sessions", escape(request.session), session=request.session)
        when = f"asked {format_age(request.asked_at, now)}"
        left = labels.left(request.expires_at, now)
        facts = f'<p class="note">session {session} · {escape(f"{when} · {left}")}</p>'
        st.html(markup.block(f"<p>{strong(switch_question(request, agent))}</p>", facts))
        with st.container(horizontal=True, vertical_alignment="center"):
            for verb in DECISIONS:
                if st.button(
                    f"{verb} …",
                    type="primary" if verb == "Approve" else "secondary",
                    key=f"{verb}-{request.id}",
                    disabled=bool(why),
                ):
                    # The dialog opens outside of the fragment, whose refresh would close it.
                    st.session_state[DECISION] = (verb, request, agent)
                    st.rerun()
            if why:
                st.html(markup.note(why), width="content")


def _show_session_link(session: AgentSession, agent: str, now: datetime) -> None:
    readable = current_user.may_read_content()
    cost = known_cost(session)
    parts = [
        *([f"user {session.user_id}"] if readable and session.user_id else []),
        *(session.model.text, session.state.value, cost, format_age(session.last_at, now)),
    ]
    # The label is Markdown, in which a client's name could load pictures.
    label = _MARK.sub(r"\\\1", visible_text(f"{agent} · {session.id}"))
    with st.container(horizontal=True, vertical_alignment="center"):
        page_frame.link("sessions", label, "forum", session=session.id)
        st.html(markup.note(" · ".join(parts)), width="content")


def _show_session(id_: str, behind: int | None) -> None:
    """Shows a session. behind: the last position not shown; None shows the newest."""
    ctx, readable = page_frame.context(), current_user.may_read_content()
    try:
        with page_frame.loading("the session"), ctx.store.read() as tx:
            session = Sessions(tx).get(id_)
            agent = Agents(tx).get(session.agent).name
            total = SessionMessages(tx).last_position(id_)
    except NotFound:
        st.html(markup.title("There is no such session"))
        st.html(markup.note(GONE))
        page_frame.link("sessions", "All sessions", "list")
        return
    switches = ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), session=id_)
    children = ctx.store.lists.sessions(PageRequest(MOST_LISTED), parent=id_)
    now = ctx.clock.now()
    facts = [
        f"session {id_}",
        session.state.value,
        labels.plural(total, "message"),
        known_cost(session),
        f"last message {format_age(session.last_at, now)}",
    ]
    verb = "answers" if session.state is SessionState.OPEN else "answered"
    heading = f"{strong(agent)} {verb} with {strong(session.model.text)}"
    st.html(markup.title(heading, escape(" · ".join(facts))))
    with st.container(horizontal=True):
        page_frame.link("sessions", "All sessions", "list")
        if session.parent:
            page_frame.link("sessions", "Spawned by", "arrow_upward", session=session.parent)
    with st.container():
        for request in switches:
            if request.state_at(now) is SwitchState.PENDING:
                _show_waiting(request, agent, now)
    with st.container():
        if rows := [_switch_cells(request, now, readable=readable) for request in switches]:
            st.html(markup.section("Switches") + markup.table(rows))
    with st.container():
        if children:
            st.html(markup.section(labels.plural(len(children), "spawned session")))
        for child in children:
            _show_session_link(child, agent, now)
    start = max(0, total - MOST_MESSAGES) if behind is None else min(behind, total)
    _show_transcript(id_, start, total, readable=readable)


def _show_transcript(id_: str, start: int, total: int, *, readable: bool) -> None:
    """Shows `MOST_MESSAGES` messages from a position on, with links to earlier and
    later ones.
    """
    page = PageRequest(MOST_MESSAGES, str(start))
    messages = page_frame.context().store.lists.session_messages(page, session=id_).items
    last = start + len(messages)
    note = f"Messages {start + 1:,} to {last:,} of {total:,}."
    private = (
        "" if readable else markup.note(f"The transcript is private. {current_user.SIGN_IN}")
    )
    st.html(markup.section("Transcript", note if total else "No message yet.") + private)
    parts = [
        f'<section class="message {message.role}"><header>{_head(message)}</header>'
        f"{_content(message) if readable else _note(HIDDEN)}</section>"
        for message in messages
    ]
    st.html(markup.block(*parts, kind="sg-transcript"))
    with st.container(horizontal=True):
        if start:
            before = str(max(0, start - MOST_MESSAGES))
            page_frame.link("sessions", "Earlier", "history", session=id_, behind=before)
        if last < total:
            page_frame.link("sessions", "Later", "history", session=id_, behind=str(last))


def _show_grants() -> None:
    """Shows the grants of literal models, and the button that revokes one."""
    ctx = page_frame.context()
    page, now = ctx.store.lists.agent_grants(PageRequest(MOST_GRANTS)), ctx.clock.now()
    page_frame.show_html(markup.invalid(page.invalid))
    if not page.items:
        return
    st.html(markup.section("Grants", GRANTS_NOTE))
    in_force = [grant for grant in page if _is_in_force(grant, now)]
    missing = "" if in_force else "No grant is in force."
    show_openers([revoke_grant.opener(in_force, missing=missing)])
    rows = [_grant_cells(grant, now) for grant in page]
    st.html(markup.table(rows, stacked=True))
    page_frame.show_rest(page, "grants", "swapgate agent grants")


def _is_in_force(grant: AgentGrant, now: datetime) -> bool:
    return grant.revoked_at is None and now < grant.expires_at


def _grant_cells(grant: AgentGrant, now: datetime) -> markup.Row:
    state = Label("◷", "expired", Tone.NEUTRAL)
    if grant.revoked_at is not None:
        state = Label("✕", "revoked", Tone.NEUTRAL)
    elif _is_in_force(grant, now):
        state = Label("✓", "in force", Tone.BETTER)
    return {
        "Model": noted(strong(grant.target_name), grant.id),
        "Agent": escape(grant.agent),
        "For": escape(f"session {grant.session}" if grant.session else "all its sessions"),
        "State": markup.state(state),
        "Until": escape(labels.date_time(grant.expires_at)),
        "By": escape(grant.granted_by),
        "Why": escape(grant.reason),
    }


if __name__ == "__main__":
    page_frame.show_page("The sessions", show)
