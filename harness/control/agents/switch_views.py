"""A switch request as people see it by command line and REST, and what its agent is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from harness.control.context import Context
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.agents.switch_text import decision_text, switch_lines, switch_question


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
