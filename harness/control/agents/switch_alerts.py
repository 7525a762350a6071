"""Puts a switch request's facts, and a link at which a person decides, into its alert when it
is sent: the stored alert is kept longer than a transcript. Shows a request by command line and
REST, and tells its agent what became of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.domain.agents.switch_request import (
    AGENTS_WORDS,
    ModelSwitchRequest,
    SwitchState,
    decision_text,
    inert_text,
    switch_lines,
    switch_question,
)
from harness.domain.errors import NotFound
from harness.domain.operations.alert_record import AlertRecord, Notified
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.delivery import AlertMessage

# As Slack has them, of one section.
MOST_FIELDS: Final = 10
Block = Mapping[str, object]


def with_question(ctx: Context, record: AlertRecord, message: AlertMessage) -> AlertMessage:
    """Adds the question to the message of a switch that still waits."""
    if record.kind is not AlertKind.MODEL_SWITCH or message.state is not Notified.RAISED:
        return message
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            request = tx.switch_requests.get(record.key.partition(":")[2])
            name = tx.agents.get(request.agent).name
    except NotFound:
        return message
    if request.state_at(now) is not SwitchState.PENDING:
        return message
    link = ctx.approval_links.link(request) if ctx.approval_links is not None else ""
    facts = switch_lines(request, now)
    text = [message.text]
    text += [
        f"{title}: {inert_text(value) if title in AGENTS_WORDS else value}"
        for title, value in facts
    ]
    text += [f"Decide: {link}"] if link else []
    blocks = tuple(_blocks(switch_question(request, name), facts, link))
    return replace(message, text="\n".join(text), blocks=blocks)


def _blocks(question: str, facts: Sequence[tuple[str, str]], link: str) -> Iterator[Block]:
    """Every text is `plain_text`: Slack makes no link and no mention of what is in it."""
    yield {"type": "section", "text": _plain(question)}
    for first in range(0, len(facts), MOST_FIELDS):
        part = facts[first : first + MOST_FIELDS]
        yield {"type": "section", "fields": [_plain(f"{name}: {text}") for name, text in part]}
    if link:
        button = {"type": "button", "text": _plain("Look and decide"), "url": link}
        yield {"type": "actions", "elements": [{**button, "action_id": "decide"}]}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}


@dataclass(frozen=True, slots=True)
class SwitchRequestView(ModelSwitchRequest):
    """A request with its question, in the state that it has now."""

    question: str = ""
    facts: tuple[Mapping[str, str], ...] = ()  # name and text of each
    fingerprint: str = ""  # an approver sends it back: another request has another


def view_switch(ctx: Context, request: ModelSwitchRequest) -> SwitchRequestView:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        name = tx.agents.get(request.agent).name
    shown = replace(request, state=request.state_at(now))
    lines = switch_lines(request, now)
    return SwitchRequestView(
        **{field.name: getattr(shown, field.name) for field in fields(ModelSwitchRequest)},
        question=switch_question(request, name),
        facts=tuple({"name": title, "text": text} for title, text in lines),
        fingerprint=request.hash,
    )


def list_notes(ctx: Context, session: str, since: datetime) -> Sequence[str]:
    """What became of the session's requests since that time, a sentence each, for its agent."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        known = tx.switch_requests.of_session(session)
    return [
        text
        for request in reversed(known)
        if (request.decided_at or request.expires_at) >= since
        and (text := decision_text(request, request.state_at(now)))
    ]
