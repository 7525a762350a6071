"""Writes agents' sessions as HTML: the page's first line, a line per session, messages with the
model that wrote each, switches, and what each model cost and would have cost alone.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from dashboard.data.sessions import SessionsView, SessionView
from dashboard.text import html, labels
from dashboard.text.html import escape, pill, strong
from dashboard.text.labels import Label, Tone
from harness.domain.agents.agent import AgentGrant, AgentSession, SessionState
from harness.domain.agents.message import MessageRole, MessageState, SessionMessage
from harness.domain.agents.model_figures import ModelUsage, cost_alone, sum_costs
from harness.domain.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    switch_lines,
    switch_question,
    visible_text,
)
from harness.domain.formatting import format_age, format_quantity, format_usd
from harness.domain.routing.target import Price

# Of one text; the rest is a note.
SHOWN_CHARACTERS: Final = 4_000
SWITCH_LABELS: Final[Mapping[SwitchState, Label]] = {
    SwitchState.PENDING: Label("?", "waits for approval", Tone.UNDECIDED),
    SwitchState.APPROVED: Label("✓", "approved", Tone.BETTER),
    SwitchState.REJECTED: Label("✕", "rejected", Tone.WORSE),
    SwitchState.EXPIRED: Label("◷", "expired", Tone.NEUTRAL),
    SwitchState.CANCELLED: Label("=", "cancelled", Tone.NEUTRAL),
}
GRANTS_NOTE: Final = "The models outside of a route that people let agents use. Newest first."
_STATES: Final = {
    MessageState.STREAMING: ("◷ under way", Tone.NEUTRAL),
    MessageState.INTERRUPTED: ("✕ interrupted", Tone.WORSE),
    MessageState.FAILED: ("✕ failed", Tone.WORSE),
}
_MARK: Final = re.compile(r"([!-/:-@\[-`{-~])")
HIDDEN: Final = "not shown without signing in"
ALONE_NOTE: Final = (
    "The last column reckons at today's prices with the tokens of the models that answered; "
    "another model would count and write differently. With an unknown price there is no sum."
)


def list_title(view: SessionsView) -> tuple[str, str]:
    """The page's first line and its note, as HTML."""
    note = labels.plural(view.sessions.total, "session")
    if view.waiting:
        verb = "waits" if len(view.waiting) == 1 else "wait"
        names = ", ".join(dict.fromkeys(view.agents[request.agent] for request in view.waiting))
        many = labels.plural(len(view.waiting), "switch", "switches")
        return f"{many} {verb} for approval: {strong(names)}", note
    return ("No switch waits for a person" if view.sessions.total else "No session yet"), note


def session_title(view: SessionView) -> tuple[str, str]:
    session = view.session
    verb = "answers" if session.state is SessionState.OPEN else "answered"
    parts = [
        f"session {session.id}",
        session.state.value,
        labels.plural(view.total, "message"),
        f"cost {_cost(view.usage)}",
        f"last message {format_age(session.last_at, view.now)}",
    ]
    heading = f"{strong(view.agent)} {verb} with {strong(session.model.text)}"
    return heading, escape(" · ".join(parts))


def session_line(session: AgentSession, now: datetime, *, with_user: bool) -> str:
    user = f"user {session.user_id} · " if with_user and session.user_id else ""
    # Answers of unknown price add nothing: 0 may stand for them.
    cost = f"known cost {format_usd(session.cost_usd)}" if session.cost_usd else "no known cost"
    return html.note(
        f"{user}{session.model.text} · {session.state.value} · "
        f"{cost} · {format_age(session.last_at, now)}"
    )


def is_in_force(grant: AgentGrant, now: datetime) -> bool:
    return grant.revoked_at is None and now < grant.expires_at


def grant_cells(grant: AgentGrant, now: datetime) -> html.Row:
    if grant.revoked_at is not None:
        state = Label("✕", "revoked", Tone.NEUTRAL)
    elif is_in_force(grant, now):
        state = Label("✓", "in force", Tone.BETTER)
    else:
        state = Label("◷", "expired", Tone.NEUTRAL)
    id_ = f'<span class="note">{escape(grant.id)}</span>'
    return {
        "Model": f"{strong(grant.target_name)}<br>{id_}",
        "Agent": escape(grant.agent),
        "For": escape(f"session {grant.session}" if grant.session else "all its sessions"),
        "State": html.state(state),
        "Until": escape(labels.date_time(grant.expires_at)),
        "By": escape(grant.granted_by),
        "Why": escape(grant.reason),
    }


def link_label(agent: str, session: AgentSession) -> str:
    """Names a session in a link, whose label is Markdown: a name that a client chose would load
    pictures there.
    """
    return _MARK.sub(r"\\\1", visible_text(f"{agent} · {session.id}"))


def waiting_switch(request: ModelSwitchRequest, agent: str, now: datetime) -> str:
    """Shows a waiting switch without the agent's own words, which not everybody may read."""
    session = html.link("sessions", escape(request.session), session=request.session)
    asked = escape(f"asked {format_age(request.asked_at, now)}")
    left = escape(labels.left(request.expires_at, now))
    question = f"<p>{strong(switch_question(request, agent))}</p>"
    facts = f'<p class="note">session {session} · {asked} · {left}</p>'
    return html.block(question, facts)


def switch_details(request: ModelSwitchRequest, agent: str, now: datetime) -> str:
    """All that a person should know before the answer."""
    # Nothing of it may be out of sight on a narrow screen.
    facts = "".join(
        f'<span class="neutral">{escape(name)}</span><span>{escape(value)}</span>'
        for name, value in switch_lines(request, now)
    )
    question = f"<p>{strong(switch_question(request, agent))}</p>"
    return html.block(question) + html.block(facts, kind="sg-facts")


def switches(requests: Sequence[ModelSwitchRequest], now: datetime, *, readable: bool) -> str:
    if not requests:
        return ""
    rows = [
        {
            "Model": strong(_wanted(request))
            + _note(f"asked {labels.date_time(request.asked_at)}"),
            "State": html.state(SWITCH_LABELS[request.state_at(now)]) + _by(request),
            "The agent's reason": escape(visible_text(request.reason) if readable else HIDDEN),
        }
        for request in requests
    ]
    return html.section("Switches") + html.table(rows)


def _by(request: ModelSwitchRequest) -> str:
    return escape(f", by {request.decided_by}") if request.decided_by else ""


def _wanted(request: ModelSwitchRequest) -> str:
    models = ", ".join(request.targets) or request.model_requested
    return f"sub-tasks on {models}" if request.for_children else models


def transcript(view: SessionView, *, readable: bool) -> str:
    """A page of messages, with the switches that were approved between them."""
    begins = view.messages[0].created_at if view.after and view.messages else None
    approved = sorted(
        (request.decided_at, _switched(request))
        for request in view.switches
        if request.state is SwitchState.APPROVED
        and request.decided_at is not None
        and (begins is None or begins <= request.decided_at)
        and request.decided_at < view.until
    )
    parts: list[str] = []
    for message in view.messages:
        while approved and approved[0][0] <= message.created_at:
            parts.append(approved.pop(0)[1])
        parts.append(_message(message, readable=readable))
    return html.block(*parts, *(text for _, text in approved), kind="sg-transcript")


def _switched(request: ModelSwitchRequest) -> str:
    what = "Approved" if request.for_children else "From here on"
    return f'<p class="switched">⇄ {what} {strong(_wanted(request))}{_by(request)}</p>'


def _message(message: SessionMessage, *, readable: bool) -> str:
    return (
        f'<section class="message {message.role}"><header>{_head(message)}</header>'
        f"{_content(message) if readable else _note(HIDDEN)}</section>"
    )


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
    text = _text(message.content)
    kind = "call" if message.role is MessageRole.TOOL else ""
    parts = [html.scrolled_text(escape(_cut(text)), kind)] if text else []
    parts += [
        html.scrolled_text(f"→ {escape(call.name)} {escape(_cut(call.arguments))}", "call")
        for call in message.tool_calls
    ]
    parts += [_note(remark) for remark in (message.served.reason, message.error) if remark]
    return "".join(parts) or _note("(empty)")


def _text(content: str | Sequence[Mapping[str, object]]) -> str:
    """Pictures are named, never loaded: the address may be anybody's."""
    if isinstance(content, str):
        return content
    return "\n".join(_part(part) for part in content)


def _part(part: Mapping[str, object]) -> str:
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


def costs(usage: Sequence[ModelUsage], prices: Mapping[str, Price | None]) -> str:
    """Tokens and cost by model; beside them, what one model alone would have cost."""
    if not usage:
        return ""
    rows = [
        {
            "Model": strong(model.target),
            "Answers · tokens in + out": (
                f"{model.answers:,} · {model.input_tokens:,} + {model.output_tokens:,}"
            ),
            "Cost": escape(_cost([model])),
            "If it had answered all": escape(_alone(usage, prices[model.target])),
        }
        for model in usage
    ]
    note = "This session with all that it spawned."
    return html.listing("What it cost", note, rows) + html.note(ALONE_NOTE)


def _cost(usage: Sequence[ModelUsage]) -> str:
    unpriced = sum(model.unpriced for model in usage)
    known = labels.usd(sum(model.cost_usd for model in usage))
    if not unpriced:
        return known
    if unpriced == sum(model.answers for model in usage):
        return "price unknown"
    return f"{known}, and {labels.plural(unpriced, 'answer')} of unknown price"


def _alone(usage: Sequence[ModelUsage], price: Price | None) -> str:
    cost, total = cost_alone(usage, price), sum_costs(usage)
    if price is None or cost is None:
        return "price unknown"
    given, answered = price.input_usd_per_mtok, price.output_usd_per_mtok
    each = f"{labels.usd(given)} / {labels.usd(answered)} per 1M"
    instead = f" instead of {labels.usd(total)}" if total is not None else ""
    return f"{labels.usd(cost)}{instead} ({each})"
