"""Puts a switch request's facts, and a link at which a person decides, into its alert when it
is sent: the stored alert is kept longer than a transcript. Shows a request by command line and
REST, and tells its agent what became of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

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


def with_question(ctx: Context, record: AlertRecord, message: AlertMessage) -> AlertMessage:
    """Adds the question to the message of a switch that still waits."""
    if record.kind is not AlertKind.MODEL_SWITCH or message.state is not Notified.RAISED:
        return message
    now = ctx.clock.now()
    try:
        with ctx.store.read() as tx:
            request = tx.switch_requests.get(record.key.partition(":")[2])
    except NotFound:
        return message
    if request.state_at(now) is not SwitchState.PENDING:
        return message
    link = ctx.approval_links.link(request) if ctx.approval_links is not None else ""
    text = [message.text]
    text += [
        f"{title}: {inert_text(value) if title in AGENTS_WORDS else value}"
        for title, value in switch_lines(request, now)
    ]
    text += [f"Decide: {link}"] if link else []
    return replace(message, text="\n".join(text))


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
