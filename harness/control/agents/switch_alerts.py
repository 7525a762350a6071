"""Puts a switch request's facts, and a link at which a person decides, into its alert when it
is sent: the stored alert is kept longer than a transcript.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.control.context import Context
from harness.domain.agents.switch_request import SwitchState
from harness.domain.agents.switch_text import (
    AGENTS_WORDS,
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
    """The message as it is sent; unchanged where it asks nothing any more."""
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
