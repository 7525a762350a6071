"""A switch request as people see it by command line and REST: the question, its facts, and the
state that it has now; and what its agent is told of the decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from harness.control.context import Context
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.agents.switch_text import decision_text, switch_lines, switch_question


@dataclass(frozen=True, slots=True)
class SwitchRequestView(ModelSwitchRequest):
    """A request with its question."""

    agent_name: str = ""
    question: str = ""
    facts: tuple[Mapping[str, str], ...] = ()  # name and text of each
    fingerprint: str = ""  # what an approver names as `seen`: of another request another
    time_left_s: float = 0.0


def view_switch(ctx: Context, request: ModelSwitchRequest) -> SwitchRequestView:
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        name = tx.agents.get(request.agent).name
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    return SwitchRequestView(
        **{**values, "state": request.state_at(now)},
        agent_name=name,
        question=switch_question(request, name),
        facts=tuple(
            {"name": title, "text": text} for title, text in switch_lines(request, now)
        ),
        fingerprint=request.hash,
        time_left_s=max(0.0, (request.expires_at - now).total_seconds()),
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
