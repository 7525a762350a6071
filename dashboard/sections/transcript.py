"""Loads one session of an agent, and writes its switches and messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dashboard.text import html, labels
from dashboard.text.html import escape, noted, pill, strong
from dashboard.text.labels import Label, Tone
from harness.control.context import Context
from harness.domain.agents.agent import AgentSession, SessionState
from harness.domain.agents.message import MessageRole, MessageState, SessionMessage
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState, visible_text
from harness.domain.formatting import format_age, format_quantity, format_usd
from harness.domain.pagination import MOST_LISTED, Page, PageRequest

# Each may be as long as `agents.max_message_bytes`.
MOST_MESSAGES: Final = 30
MOST_SWITCHES: Final = 100
# Of one text; the rest is a note.
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


@dataclass(frozen=True)
class SessionView:
    session: AgentSession
    agent: str  # its name
    messages: Sequence[SessionMessage]  # a page of them
    after: int  # the position that the page goes on behind
    total: int  # how many messages the session has
    switches: Page[ModelSwitchRequest]
    children: Page[AgentSession]
    now: datetime

    @property
    def last(self) -> int:
        return self.after + len(self.messages)

    @property
    def waiting(self) -> Sequence[ModelSwitchRequest]:
        return [s for s in self.switches if s.state_at(self.now) is SwitchState.PENDING]


def load_session(ctx: Context, id_: str, after: int | None = None) -> SessionView:
    """Loads a session with its messages. after: the position to go on behind; None for the
    newest messages. Raises NotFound.
    """
    with ctx.store.read() as tx:
        session = tx.sessions.get(id_)
        agent = tx.agents.get(session.agent).name
        total = tx.session_messages.last_position(id_)
    start = max(0, total - MOST_MESSAGES) if after is None else min(after, total)
    page = PageRequest(MOST_MESSAGES, str(start))
    return SessionView(
        session=session,
        agent=agent,
        messages=ctx.store.lists.session_messages(page, session=id_).items,
        after=start,
        total=total,
        switches=ctx.store.lists.switch_requests(PageRequest(MOST_SWITCHES), session=id_),
        children=ctx.store.lists.sessions(PageRequest(MOST_LISTED), parent=id_),
        now=ctx.clock.now(),
    )


def headline(view: SessionView) -> tuple[str, str]:
    session = view.session
    verb = "answers" if session.state is SessionState.OPEN else "answered"
    parts = [
        f"session {session.id}",
        session.state.value,
        labels.plural(view.total, "message"),
        known_cost(session),
        f"last message {format_age(session.last_at, view.now)}",
    ]
    heading = f"{strong(view.agent)} {verb} with {strong(session.model.text)}"
    return heading, escape(" · ".join(parts))


def known_cost(session: AgentSession) -> str:
    # Answers of unknown price add nothing: 0 may stand for them.
    return f"known cost {format_usd(session.cost_usd)}" if session.cost_usd else "no known cost"


def render_switches(view: SessionView, *, readable: bool) -> str:
    rows = []
    for request in view.switches:
        wanted = f"sub-tasks on {request.wanted}" if request.for_children else request.wanted
        by = escape(f", by {request.decided_by}") if request.decided_by else ""
        rows.append(
            {
                "Model": noted(strong(wanted), f"asked {labels.date_time(request.asked_at)}"),
                "State": html.state(SWITCH_LABELS[request.state_at(view.now)]) + by,
                "The agent's reason": escape(
                    visible_text(request.reason) if readable else HIDDEN
                ),
            }
        )
    return html.section("Switches") + html.table(rows) if rows else ""


def render_transcript(view: SessionView, *, readable: bool) -> str:
    parts = [
        f'<section class="message {message.role}"><header>{_head(message)}</header>'
        f"{_content(message) if readable else _note(HIDDEN)}</section>"
        for message in view.messages
    ]
    return html.block(*parts, kind="sg-transcript")


def _head(message: SessionMessage) -> str:
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
    text, kind = message.content, "call" if message.role is MessageRole.TOOL else ""
    if not isinstance(text, str):
        text = "\n".join(map(_part, text))
    parts = [html.scrolled_text(escape(_cut(text)), kind)] if text else []
    parts += [
        html.scrolled_text(f"→ {escape(call.name)} {escape(_cut(call.arguments))}", "call")
        for call in message.tool_calls
    ]
    parts += [_note(remark) for remark in (message.served.reason, message.error) if remark]
    return "".join(parts) or _note("(empty)")


def _part(part: Mapping[str, object]) -> str:
    """Writes a part of a message. Pictures are never loaded: the address may be anybody's."""
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
