"""The Sessions page answers: which agents wait for me, and how did they act? It refreshes every
2 s.

A transcript is private: only visitors who may read content see it. The page escapes texts of
agents and users in HTML and in Markdown. The dialog for a switch has the same texts as the
approval pages.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import (
    REASON,
    Action,
    Form,
    Opener,
    PageLink,
    dialog,
    show_openers,
)
from dashboard.labels import Label, Tone
from dashboard.markup import escape, noted, pill, rich, strong
from dashboard.resource_page import Cards, ResourceList, ResourcePage
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
from harness.frame.pagination import MOST_LISTED, Page, PageRequest
from harness.frame.people.access import Role
from harness.operations.context import Context
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
_STATE_PILLS: Final = {
    MessageState.STREAMING: ("◷ under way", Tone.NEUTRAL),
    MessageState.INTERRUPTED: ("✕ interrupted", Tone.WORSE),
    MessageState.FAILED: ("✕ failed", Tone.WORSE),
}
HIDDEN: Final = "not shown without signing in"
GONE: Final = (
    "It may be deleted with its transcript: Swapproof keeps a session for agents.keep_days "
    "after its last message, and deletes a user's sessions on request."
)


@dataclass(frozen=True, slots=True)
class SessionsView:
    """The data of the list of sessions."""

    sessions: Page[AgentSession]  # without spawned sessions, the newest first
    waiting: Sequence[ModelSwitchRequest]  # switches that wait for a person
    grants: Page[AgentGrant]
    agents: Mapping[str, str]  # the agents' names, by id
    now: datetime


@dataclass(frozen=True, slots=True)
class SessionView:
    """The data of a session's page. session: None if Swapproof does not have it."""

    session: AgentSession | None
    switches: Sequence[ModelSwitchRequest]
    children: Sequence[AgentSession]  # the sessions that this one spawned
    messages: Sequence[SessionMessage]
    start: int  # number of messages before the shown ones
    total: int  # number of messages
    agents: Mapping[str, str]  # the agents' names, by id
    now: datetime

    @property
    def waiting(self) -> Sequence[ModelSwitchRequest]:
        return [
            request
            for request in self.switches
            if request.state_at(self.now) is SwitchState.PENDING
        ]


def load_list(ctx: Context, address: Mapping[str, str]) -> SessionsView:
    """Loads a page of sessions, the switches that wait for a person, and the grants."""
    now = ctx.clock.now()
    page_request = PageRequest(MOST_SESSIONS, address.get("after"))
    sessions = ctx.store.lists.sessions(page_request, parent="")
    waiting = ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), pending_at=now)
    grants = ctx.store.lists.agent_grants(PageRequest(MOST_GRANTS))
    ids = {session.agent for session in sessions} | {request.agent for request in waiting}
    return SessionsView(sessions, waiting.items, grants, _load_agent_names(ctx, ids), now)


def load_session(ctx: Context, address: Mapping[str, str]) -> SessionView:
    """Loads a session with `MOST_MESSAGES` of its messages, the newest by default."""
    session_id = address["session"]
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            session = Sessions(tx).get(session_id)
            total = SessionMessages(tx).last_position(session_id)
    except NotFound:
        return SessionView(None, (), (), (), 0, 0, {}, now)
    start_text = address.get("behind", "")
    is_number = start_text.isascii() and start_text.isdigit() and len(start_text) < 10
    start = min(int(start_text), total) if is_number else max(0, total - MOST_MESSAGES)
    page = PageRequest(MOST_MESSAGES, str(start))
    children = ctx.store.lists.sessions(PageRequest(MOST_LISTED), parent=session_id).items
    return SessionView(
        session=session,
        switches=ctx.store.lists.switch_requests(
            PageRequest(MOST_SWITCHES), session=session_id
        ).items,
        children=children,
        messages=ctx.store.lists.session_messages(page, session=session_id).items,
        start=start,
        total=total,
        agents=_load_agent_names(ctx, {session.agent, *(child.agent for child in children)}),
        now=now,
    )


def _load_agent_names(ctx: Context, ids: Collection[str]) -> Mapping[str, str]:
    with ctx.store.read() as tx:
        return {id_: Agents(tx).get(id_).name for id_ in ids}


def known_cost(session: AgentSession) -> str:
    # Answers of unknown price add nothing, so 0 may mean unknown.
    return f"known cost {format_usd(session.cost_usd)}" if session.cost_usd else "no known cost"


def _build_switch_row(view: SessionView, request: ModelSwitchRequest) -> markup.Row:
    """Builds a switch request's row. Not every visitor may read the agent's words."""
    may_read = current_user.may_read_content()
    model = f"sub-tasks on {request.wanted}" if request.for_children else request.wanted
    decider = escape(f", by {request.decided_by}") if request.decided_by else ""
    return {
        "Model": noted(strong(model), f"asked {labels.date_time(request.asked_at)}"),
        "State": markup.state(SWITCH_LABELS[request.state_at(view.now)]) + decider,
        "The agent's reason": escape(visible_text(request.reason) if may_read else HIDDEN),
    }


def _render_head(message: SessionMessage) -> str:
    """Renders a message's author, state and figures."""
    served = message.served
    usage = message.usage
    author = strong(message.role.value)
    if message.role is MessageRole.ASSISTANT:
        author += f" {strong(served.target or served.model_requested)}"
    if message.state in _STATE_PILLS:
        author += f" {pill(*_STATE_PILLS[message.state])}"
    if served.fallback_from:
        author += f" {pill(f'▼ instead of {served.fallback_from}', Tone.UNDECIDED)}"
    figures = [
        f"#{message.position}",
        labels.time_of_day(message.created_at),
    ]
    if served.target:
        figures.append(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens")
        figures.append(format_usd(usage.cost_usd, "price unknown"))
    return f"<span>{author}</span><span>{escape(' · '.join(figures))}</span>"


def _render_content(message: SessionMessage) -> str:
    """Renders a message's text, tool calls and remarks."""
    text = message.content
    css_class = "call" if message.role is MessageRole.TOOL else ""
    if not isinstance(text, str):
        text = "\n".join(map(_format_part, text))
    parts = [markup.scrolled_text(escape(_shorten(text)), css_class)] if text else []
    parts += [
        markup.scrolled_text(
            f"→ {escape(call.name)} {escape(_shorten(call.arguments))}", "call"
        )
        for call in message.tool_calls
    ]
    parts += [
        _render_note(remark) for remark in (message.served.reason, message.error) if remark
    ]
    return "".join(parts) or _render_note("(empty)")


def _format_part(part: Mapping[str, object]) -> str:
    """Formats a part of a message. Loads no picture, because a client chose its address."""
    if "text" in part:
        return str(part["text"])
    image = part.get("image_url")
    url = str(image.get("url", "")) if isinstance(image, Mapping) else ""
    if url.startswith("data:"):
        kind = url.removeprefix("data:").partition(";")[0]
        return f"[image: {kind}, {format_quantity(len(url), 'character')}]"
    return f"[image: {url}]" if url else f"[{part.get('type', 'part')}]"


def _shorten(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]} … ({len(text):,} characters in all)"


def _render_note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


DECISIONS: Final[Mapping[str, tuple[Callable[..., ModelSwitchRequest], str]]] = {
    "Approve": (switches.approve_switch, "approved"),
    "Reject": (switches.reject_switch, "rejected"),
}


def decide(
    verb: str,
    request: ModelSwitchRequest,
    agent: str,
) -> None:
    """Opens the dialog that approves or rejects a switch. The decision has the fingerprint of
    the request that the person saw, so that the use case refuses a changed request.
    """
    use_case, past_verb = DECISIONS[verb]

    @dialog(f"{verb} the switch?", Role.APPROVER, verb, width="medium")
    def ask_confirmation(form: Form, request: ModelSwitchRequest) -> None:
        now = page_frame.context().clock.now()
        # Facts, because a narrow screen would cut a table.
        facts = "".join(
            f'<span class="neutral">{escape(name)}</span><span>{escape(value)}</span>'
            for name, value in switch_lines(request, now)
        )
        question = f"<p>{strong(switch_question(request, agent))}</p>"
        st.html(markup.block(question) + markup.block(facts, kind="sg-facts"))
        reason = form.text("why", "Your reason (optional; the agent reads it)")
        done_text = f"{past_verb} the switch that {agent} asked for."
        form.submit(
            f"{verb} the switch",
            done_text,
            use_case,
            request.id,
            reason,
            fingerprint=request.hash,
        )

    ask_confirmation(request)


@dialog(
    "Revoke a grant",
    Role.APPROVER,
    "grant",
    "block",
    label="Revoke a grant …",
    width="medium",
)
def revoke_grant(form: Form, grants: Sequence[AgentGrant]) -> None:
    missing_text = "Choose a grant and give a reason."
    grants_by_label = {
        f"{grant.target_name} · {grant.agent} · {grant.id}": grant for grant in grants
    }
    chosen_label = form.choose(
        "which",
        "Which",
        grants_by_label,
        need=missing_text,
        placeholder="Choose a grant",
    )
    st.html(markup.note(GRANT_ENDS))
    grant_id = grants_by_label[chosen_label].id if chosen_label else ""
    reason = form.text("why", REASON, need=missing_text)
    form.submit("Revoke it", f"revoked {grant_id}.", agents.revoke_grant, grant_id, reason)


GRANT_ENDS: Final = (
    "Routers refuse the model within seconds. A session that uses it answers again after a "
    "switch to another model."
)
MOST_SESSIONS: Final = 50
MOST_GRANTS: Final = 50


def address() -> Mapping[str, str]:
    """Returns the page's address, and writes it: a Streamlit link to the current page does not
    update the browser's address.
    """
    parameters = st.query_params.to_dict()
    st.query_params.from_dict(parameters)
    return parameters


def _write_list_title(view: SessionsView) -> tuple[str, str]:
    heading = "No switch waits for a person" if view.sessions.total else "No session yet"
    if waiting := view.waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        names = ", ".join(dict.fromkeys(view.agents[request.agent] for request in waiting))
        count_text = labels.plural(len(waiting), "switch", "switches")
        heading = f"{count_text} {verb} for approval: {strong(names)}"
    return heading, labels.plural(view.sessions.total, "session")


def _write_session_title(view: SessionView) -> tuple[str, str]:
    session = view.session
    if session is None:
        return "There is no such session", escape(GONE)
    facts = [
        f"session {session.id}",
        session.state.value,
        labels.plural(view.total, "message"),
        known_cost(session),
        f"last message {format_age(session.last_at, view.now)}",
    ]
    verb = "answers" if session.state is SessionState.OPEN else "answered"
    agent = view.agents[session.agent]
    heading = f"{strong(agent)} {verb} with {strong(session.model.text)}"
    return heading, escape(" · ".join(facts))


def _list_links(view: SessionView) -> Sequence[Action]:
    links = [PageLink("sessions", "All sessions", "list")]
    if view.session is not None and view.session.parent:
        parent = {"session": view.session.parent}
        links.append(PageLink("sessions", "Spawned by", "arrow_upward", parent))
    return links


def _render_waiting_card(
    view: SessionsView | SessionView, request: ModelSwitchRequest
) -> Sequence[str]:
    """Renders a switch that waits. Omits the agent's own words, because not every visitor may
    read them.
    """
    session = markup.link("sessions", escape(request.session), session=request.session)
    asked_text = f"asked {format_age(request.asked_at, view.now)}"
    time_left = labels.left(request.expires_at, view.now)
    question = strong(switch_question(request, view.agents[request.agent]))
    facts = f'<p class="note">session {session} · {escape(f"{asked_text} · {time_left}")}</p>'
    return [markup.block(f"<p>{question}</p>", facts)]


def _list_decisions(
    view: SessionsView | SessionView, request: ModelSwitchRequest
) -> Sequence[Opener]:
    agent = view.agents[request.agent]
    return [
        Opener(
            f"{verb} …",
            "",
            partial(decide, verb, request, agent),
            f"{verb}-{request.id}",
            Role.APPROVER,
            primary=verb == "Approve",
        )
        for verb in DECISIONS
    ]


def _build_session_row(view: SessionsView | SessionView, session: AgentSession) -> markup.Row:
    """Builds a session's row. Only visitors who may read content see the session's user."""
    agent = visible_text(view.agents[session.agent])
    user = session.user_id if current_user.may_read_content() else ""
    link = markup.link("sessions", strong(f"{agent} · {session.id}"), session=session.id)
    return {
        "Session": noted(link, user and f"user {user}"),
        "Model": escape(session.model.text),
        "State": escape(session.state.value),
        "Cost": escape(known_cost(session)),
        "Last message": escape(format_age(session.last_at, view.now)),
    }


def _show_transcript(view: SessionView) -> None:
    """Shows the messages, with links to earlier and later ones."""
    if view.session is None:
        return
    may_read = current_user.may_read_content()
    start = view.start
    end = start + len(view.messages)
    note = f"Messages {start + 1:,} to {end:,} of {view.total:,}."
    privacy_note = (
        "" if may_read else markup.note(f"The transcript is private. {current_user.SIGN_IN}")
    )
    st.html(
        markup.section("Transcript", note if view.total else "No message yet.") + privacy_note
    )
    parts = [
        f'<section class="message {message.role}"><header>{_render_head(message)}</header>'
        f"{_render_content(message) if may_read else _render_note(HIDDEN)}</section>"
        for message in view.messages
    ]
    st.html(markup.block(*parts, kind="sg-transcript"))
    session_query = {"session": view.session.id}
    links = []
    if start:
        earlier_start = str(max(0, start - MOST_MESSAGES))
        links.append(
            PageLink(
                "sessions", "Earlier", "history", session_query | {"behind": earlier_start}
            )
        )
    if end < view.total:
        later_query = session_query | {"behind": str(end)}
        links.append(PageLink("sessions", "Later", "history", later_query))
    if links:
        show_openers(links)


def _list_grant_openers(view: SessionsView) -> Sequence[Opener]:
    in_force = [grant for grant in view.grants if _is_in_force(grant, view.now)]
    missing = "" if in_force else "No grant is in force."
    return [revoke_grant.opener(in_force, missing=missing)]


def _is_in_force(grant: AgentGrant, now: datetime) -> bool:
    return grant.revoked_at is None and now < grant.expires_at


def _build_grant_row(view: SessionsView, grant: AgentGrant) -> markup.Row:
    state = Label("◷", "expired", Tone.NEUTRAL)
    if grant.revoked_at is not None:
        state = Label("✕", "revoked", Tone.NEUTRAL)
    elif _is_in_force(grant, view.now):
        state = Label("✓", "in force", Tone.BETTER)
    return {
        "Model": noted(strong(grant.target_name), grant.id),
        "Agent": escape(grant.agent),
        "For": escape(f"session {grant.session}" if grant.session else "all its sessions"),
        "State": markup.state(state),
        "Until": rich(labels.date_time(grant.expires_at)),
        "By": escape(grant.granted_by),
        "Why": escape(grant.reason),
    }


# The decisions' dialogs open outside of the part that refreshes itself.
WAITING: Final = ResourceList[SessionsView | SessionView, ModelSwitchRequest](
    rows=lambda view: view.waiting,
    cards=Cards(
        key=lambda request: f"switch-{request.id}",
        parts=_render_waiting_card,
        actions=_list_decisions,
    ),
    live=True,
)
SESSIONS: Final = ResourceList[SessionsView, AgentSession](
    rows=lambda view: view.sessions,
    cells=_build_session_row,
    nothing="No agent has opened a session yet. This page of the docs shows how:",
    fills="swapproof docs open agents",
    what="sessions",
    page="sessions",
)
GRANTS: Final = ResourceList[SessionsView, AgentGrant](
    rows=lambda view: view.grants,
    cells=_build_grant_row,
    heading="Grants",
    note="Models outside a route that people let agents use. Newest first.",
    actions=_list_grant_openers,
    what="grants",
    lists_all="swapproof agent grants",
    live=True,
)
SWITCHES: Final = ResourceList[SessionView, ModelSwitchRequest](
    rows=lambda view: view.switches,
    cells=_build_switch_row,
    heading="Switches",
)
CHILDREN: Final = ResourceList[SessionView, AgentSession](
    rows=lambda view: view.children,
    cells=_build_session_row,
    heading="Spawned sessions",
)
LIST: Final = ResourcePage[Mapping[str, str], SessionsView](
    name="The sessions",
    ask=address,
    load=load_list,
    title=_write_list_title,
    parts=(WAITING.show, SESSIONS.show, GRANTS.show),
    commands=lambda _: [["agent", "requests"]],
    live=True,
)
DETAIL: Final = ResourcePage[Mapping[str, str], SessionView](
    name="The session",
    ask=address,
    load=load_session,
    title=_write_session_title,
    actions=_list_links,
    parts=(WAITING.show, SWITCHES.show, CHILDREN.show, _show_transcript),
    commands=lambda _: [["agent", "requests"]],
    live=True,
)

if __name__ == "__main__":
    page = DETAIL if "session" in st.query_params else LIST
    page_frame.show_page("The sessions", page.show)
