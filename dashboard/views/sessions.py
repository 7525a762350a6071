"""The Sessions page answers: which agents wait for me, and what did they do? It refreshes every
2 s.

A transcript is private: it is shown only to visitors who may read content. Texts of agents and
users are escaped in HTML and in Markdown. Deciding a switch uses the same texts as the approval
pages.
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
from dashboard.markup import escape, noted, pill, strong
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


@dataclass(frozen=True, slots=True)
class SessionsView:
    """What the list of sessions shows."""

    sessions: Page[AgentSession]  # those that no session spawned, the newest first
    waiting: Sequence[ModelSwitchRequest]  # switches that wait for a person
    grants: Page[AgentGrant]
    agents: Mapping[str, str]  # the agents' names, by id
    now: datetime


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the page of a session shows. session: None if Swapgate does not have it."""

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
    first = PageRequest(MOST_SESSIONS, address.get("after"))
    sessions = ctx.store.lists.sessions(first, parent="")
    waiting = ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), pending_at=now)
    grants = ctx.store.lists.agent_grants(PageRequest(MOST_GRANTS))
    ids = {session.agent for session in sessions} | {r.agent for r in waiting}
    return SessionsView(sessions, waiting.items, grants, _names(ctx, ids), now)


def load_session(ctx: Context, address: Mapping[str, str]) -> SessionView:
    """Loads a session with `MOST_MESSAGES` of its messages, the newest by default."""
    id_ = address["session"]
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            session = Sessions(tx).get(id_)
            total = SessionMessages(tx).last_position(id_)
    except NotFound:
        return SessionView(None, (), (), (), 0, 0, {}, now)
    behind = address.get("behind", "")
    known = behind.isascii() and behind.isdigit() and len(behind) < 10
    start = min(int(behind), total) if known else max(0, total - MOST_MESSAGES)
    page = PageRequest(MOST_MESSAGES, str(start))
    children = ctx.store.lists.sessions(PageRequest(MOST_LISTED), parent=id_).items
    return SessionView(
        session=session,
        switches=ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), session=id_).items,
        children=children,
        messages=ctx.store.lists.session_messages(page, session=id_).items,
        start=start,
        total=total,
        agents=_names(ctx, {session.agent, *(child.agent for child in children)}),
        now=now,
    )


def _names(ctx: Context, ids: Collection[str]) -> Mapping[str, str]:
    with ctx.store.read() as tx:
        return {id_: Agents(tx).get(id_).name for id_ in ids}


def known_cost(session: AgentSession) -> str:
    # Answers of unknown price add nothing, so 0 may mean unknown.
    return f"known cost {format_usd(session.cost_usd)}" if session.cost_usd else "no known cost"


def _switch_cells(view: SessionView, request: ModelSwitchRequest) -> markup.Row:
    """Builds a switch request's row. Not every visitor may read the agent's words."""
    readable = current_user.may_read_content()
    model = f"sub-tasks on {request.wanted}" if request.for_children else request.wanted
    by = escape(f", by {request.decided_by}") if request.decided_by else ""
    return {
        "Model": noted(strong(model), f"asked {labels.date_time(request.asked_at)}"),
        "State": markup.state(SWITCH_LABELS[request.state_at(view.now)]) + by,
        "The agent's reason": escape(visible_text(request.reason) if readable else HIDDEN),
    }


def _head(message: SessionMessage) -> str:
    """Renders a message's author, state and figures."""
    served = message.served
    used = message.usage
    who = strong(message.role.value)
    if message.role is MessageRole.ASSISTANT:
        who += f" {strong(served.target or served.model_requested)}"
    if message.state in _STATES:
        who += f" {pill(*_STATES[message.state])}"
    if served.fallback_from:
        who += f" {pill(f'▼ instead of {served.fallback_from}', Tone.UNDECIDED)}"
    figures = [
        f"#{message.position}",
        labels.time_of_day(message.created_at),
    ]
    if served.target:
        figures.append(f"{used.input_tokens:,} + {used.output_tokens:,} tokens")
        figures.append(format_usd(used.cost_usd, "price unknown"))
    return f"<span>{who}</span><span>{escape(' · '.join(figures))}</span>"


def _content(message: SessionMessage) -> str:
    """Renders a message's text, tool calls and remarks."""
    text = message.content
    kind = "call" if message.role is MessageRole.TOOL else ""
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


def decide(
    verb: str,
    request: ModelSwitchRequest,
    agent: str,
) -> None:
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
            f"{verb} the switch",
            done_text,
            act,
            request.id,
            reason,
            fingerprint=request.hash,
        )

    ask(request)


@dialog(
    "Revoke a grant",
    Role.APPROVER,
    "grant",
    "block",
    label="Revoke a grant …",
    width="medium",
)
def revoke_grant(form: Form, grants: Sequence[AgentGrant]) -> None:
    lacks = "Choose a grant and give a reason."
    choices = {f"{grant.target_name} · {grant.agent} · {grant.id}": grant for grant in grants}
    choice = form.choose(
        "which",
        "Which",
        choices,
        need=lacks,
        placeholder="Choose a grant",
    )
    st.html(markup.note(GRANT_ENDS))
    id_ = choices[choice].id if choice else ""
    reason = form.text("why", REASON, need=lacks)
    form.submit("Revoke it", f"revoked {id_}.", agents.revoke_grant, id_, reason)


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
    found = st.query_params.to_dict()
    st.query_params.from_dict(found)
    return found


def _title_of_list(view: SessionsView) -> tuple[str, str]:
    heading = "No switch waits for a person" if view.sessions.total else "No session yet"
    if waiting := view.waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        names = ", ".join(dict.fromkeys(view.agents[request.agent] for request in waiting))
        many = labels.plural(len(waiting), "switch", "switches")
        heading = f"{many} {verb} for approval: {strong(names)}"
    return heading, labels.plural(view.sessions.total, "session")


def _title_of_session(view: SessionView) -> tuple[str, str]:
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


def _links(view: SessionView) -> Sequence[Action]:
    links = [PageLink("sessions", "All sessions", "list")]
    if view.session is not None and view.session.parent:
        parent = {"session": view.session.parent}
        links.append(PageLink("sessions", "Spawned by", "arrow_upward", parent))
    return links


def _waiting_card(
    view: SessionsView | SessionView, request: ModelSwitchRequest
) -> Sequence[str]:
    """Renders a switch that waits, without the agent's own words, which not every visitor may
    read.
    """
    session = markup.link("sessions", escape(request.session), session=request.session)
    when = f"asked {format_age(request.asked_at, view.now)}"
    left = labels.left(request.expires_at, view.now)
    question = strong(switch_question(request, view.agents[request.agent]))
    facts = f'<p class="note">session {session} · {escape(f"{when} · {left}")}</p>'
    return [markup.block(f"<p>{question}</p>", facts)]


def _decisions(
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


def _session_cells(view: SessionsView | SessionView, session: AgentSession) -> markup.Row:
    """Builds a session's row. Only visitors who may read content see whose session it is."""
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
    readable = current_user.may_read_content()
    start = view.start
    last = start + len(view.messages)
    note = f"Messages {start + 1:,} to {last:,} of {view.total:,}."
    private = (
        "" if readable else markup.note(f"The transcript is private. {current_user.SIGN_IN}")
    )
    st.html(markup.section("Transcript", note if view.total else "No message yet.") + private)
    parts = [
        f'<section class="message {message.role}"><header>{_head(message)}</header>'
        f"{_content(message) if readable else _note(HIDDEN)}</section>"
        for message in view.messages
    ]
    st.html(markup.block(*parts, kind="sg-transcript"))
    here = {"session": view.session.id}
    pages = []
    if start:
        before = str(max(0, start - MOST_MESSAGES))
        pages.append(PageLink("sessions", "Earlier", "history", here | {"behind": before}))
    if last < view.total:
        after = here | {"behind": str(last)}
        pages.append(PageLink("sessions", "Later", "history", after))
    if pages:
        show_openers(pages)


def _grant_openers(view: SessionsView) -> Sequence[Opener]:
    in_force = [grant for grant in view.grants if _is_in_force(grant, view.now)]
    missing = "" if in_force else "No grant is in force."
    return [revoke_grant.opener(in_force, missing=missing)]


def _is_in_force(grant: AgentGrant, now: datetime) -> bool:
    return grant.revoked_at is None and now < grant.expires_at


def _grant_cells(view: SessionsView, grant: AgentGrant) -> markup.Row:
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
        "Until": escape(labels.date_time(grant.expires_at)),
        "By": escape(grant.granted_by),
        "Why": escape(grant.reason),
    }


# The decisions' dialogs open outside of the part that refreshes itself.
WAITING: Final = ResourceList[SessionsView | SessionView, ModelSwitchRequest](
    rows=lambda view: view.waiting,
    cards=Cards(
        key=lambda request: f"switch-{request.id}", parts=_waiting_card, actions=_decisions
    ),
    live=True,
)
SESSIONS: Final = ResourceList[SessionsView, AgentSession](
    rows=lambda view: view.sessions,
    cells=_session_cells,
    nothing="No agent has opened a session yet. This page of the docs shows how:",
    fills="swapgate docs open agents",
    what="sessions",
    page="sessions",
)
GRANTS: Final = ResourceList[SessionsView, AgentGrant](
    rows=lambda view: view.grants,
    cells=_grant_cells,
    heading="Grants",
    note="Models outside a route that people let agents use. Newest first.",
    actions=_grant_openers,
    what="grants",
    lists_all="swapgate agent grants",
    live=True,
)
SWITCHES: Final = ResourceList[SessionView, ModelSwitchRequest](
    rows=lambda view: view.switches,
    cells=_switch_cells,
    heading="Switches",
)
CHILDREN: Final = ResourceList[SessionView, AgentSession](
    rows=lambda view: view.children,
    cells=_session_cells,
    heading="Spawned sessions",
)
LIST: Final = ResourcePage[Mapping[str, str], SessionsView](
    name="The sessions",
    ask=address,
    load=load_list,
    title=_title_of_list,
    parts=(WAITING.show, SESSIONS.show, GRANTS.show),
    commands=lambda _: [["agent", "requests"]],
    live=True,
)
DETAIL: Final = ResourcePage[Mapping[str, str], SessionView](
    name="The session",
    ask=address,
    load=load_session,
    title=_title_of_session,
    actions=_links,
    parts=(WAITING.show, SWITCHES.show, CHILDREN.show, _show_transcript),
    commands=lambda _: [["agent", "requests"]],
    live=True,
)

if __name__ == "__main__":
    page = DETAIL if "session" in st.query_params else LIST
    page_frame.show_page("The sessions", page.show)
