"""Puts a switch request's question into the alert that carries it, when it is sent: the facts,
the agent's reason as data, and a link at which a person decides. None of this is stored with
the alert, which is kept longer than a transcript.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.control.context import Context
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.agents.switch_text import (
    AGENTS_WORDS,
    inert_text,
    switch_lines,
    switch_question,
)
from harness.domain.errors import NotFound
from harness.domain.operations.alerts import AlertKind, AlertRecord, Notified
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
    lines = switch_lines(request, now)
    facts = "\n".join(
        f"{title}: {inert_text(value) if title in AGENTS_WORDS else value}"
        for title, value in lines
    )
    decide = f"\nDecide: {link}" if link else ""
    return replace(
        message,
        text=f"{message.text}\n{facts}{decide}",
        blocks=tuple(_blocks(request, name, lines, link)),
    )


def _blocks(
    request: ModelSwitchRequest, agent: str, lines: Sequence[tuple[str, str]], link: str
) -> Iterator[Block]:
    """Every text is `plain_text`: Slack makes no link and no mention of what is in it."""
    yield {"type": "section", "text": _plain(switch_question(request, agent))}
    for first in range(0, len(lines), MOST_FIELDS):
        part = lines[first : first + MOST_FIELDS]
        fields = [_plain(f"{title}: {value}") for title, value in part]
        yield {"type": "section", "fields": fields}
    if link:
        button = {"type": "button", "text": _plain("Look and decide"), "url": link}
        yield {"type": "actions", "elements": [{**button, "action_id": "decide"}]}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}
