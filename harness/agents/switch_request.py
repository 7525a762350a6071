"""A switch request asks a person to let a session, or a set of sub-tasks, go on with another
model; here is also how command line, dashboard, approval page and chats show it.

What an agent or its client wrote is data. `visible_text` takes out what nobody sees or what
turns the line around; `inert_text` also what a chat would make a link, a mention or bold of.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from unicodedata import category

from harness.frame.formatting import format_span
from harness.frame.people.access import Actor
from harness.frame.plain_data import digest
from harness.providers.models.model_figures import ModelFigures

MAX_REASON: Final = 1_000
MAX_SHOWN: Final = 300  # in a chat
REASON: Final = "The agent's reason"
TASK: Final = "Sub-task"
LEFT_OUT: Final = "Left out"
# Facts whose values an agent wrote.
AGENTS_WORDS: Final = frozenset({REASON, TASK})
# Controls, formats (such as those that turn text around), surrogates and private characters.
_UNSEEN: Final = "C"
# Before a letter a dot makes names of hosts, which chats turn into links.
_HOST_DOT: Final = re.compile(r"\.(?=[^\W\d_])")
_MARKUP: Final = re.compile(r"[^\w .,;!?'\"()%+=$/:\u2013-]")
Fact = Mapping[str, str]  # its `name` and `text`


class SwitchState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"  # its session was closed, or its agent deleted


@dataclass(frozen=True, slots=True)
class ModelSwitchRequest:
    id: str  # `sw_…`
    agent: str
    session: str
    model_requested: str  # the model as the agent named it
    # `provider/model`: one, several for sub-tasks, none for a route.
    targets: tuple[str, ...]
    reason: str  # the agent's own words: data, never markup
    asked_at: datetime
    expires_at: datetime
    # Its targets are for sub-tasks; the session itself stays on its model.
    for_children: bool = False
    # About both models and the conversation, as they stood when the agent asked.
    facts: tuple[Fact, ...] = ()
    state: SwitchState = SwitchState.PENDING
    decided_at: datetime | None = None
    decided_by: str = ""  # principal
    decided_with: str | None = None  # the management key's id; None for the local operator
    decision_reason: str = ""

    @property
    def wanted(self) -> str:
        return ", ".join(self.targets) or self.model_requested

    @property
    def hash(self) -> str:
        """A request that shows anything else has another hash. Approvals are bound to it."""
        return digest([
            self.id, self.agent, self.session, self.model_requested, list(self.targets),
            self.reason, self.for_children, self.asked_at.isoformat(),
            self.expires_at.isoformat(), list(self.facts),
        ])  # fmt: skip

    def state_at(self, now: datetime) -> SwitchState:
        is_over = self.state is SwitchState.PENDING and now >= self.expires_at
        return SwitchState.EXPIRED if is_over else self.state

    def end(
        self, state: SwitchState, now: datetime, reason: str, actor: Actor | None = None
    ) -> "ModelSwitchRequest":
        return replace(
            self,
            state=state,
            decided_at=now,
            decision_reason=reason,
            decided_by=actor.name if actor else "",
            decided_with=actor.key if actor else None,
        )


def visible_text(text: str, most: int = MAX_REASON) -> str:
    shown = "".join(c if category(c)[0] != _UNSEEN else " " for c in text)
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def inert_text(text: str, most: int = MAX_SHOWN) -> str:
    plain = _MARKUP.sub("·", visible_text(text, most)).replace("_", "·").replace("://", " //")
    return _HOST_DOT.sub(". ", plain)


def switch_question(request: ModelSwitchRequest, agent: str) -> str:
    name = visible_text(agent, 200) or request.agent
    what = "run sub-tasks on" if request.for_children else "switch to"
    return f"{name} wants to {what} {visible_text(request.wanted)}. Approve?"


def switch_facts(
    now_on: ModelFigures,
    wanted: Iterable[ModelFigures],
    omissions: Iterable[str] = (),
    tasks: Iterable[tuple[str, str]] = (),
) -> tuple[Fact, ...]:
    """What a request stores about the models. tasks: task and model of each sub-task."""
    facts: list[tuple[str, str]] = []
    for figures in wanted:
        facts += [
            ("Model", figures.name),
            ("Price", figures.price_text),
            ("Quality", figures.quality_text),
            ("Context window", figures.window_text),
        ]
    facts += [
        ("Model now", now_on.name),
        ("Price now", now_on.price_text),
        ("Quality now", now_on.quality_text),
    ]
    facts += [(LEFT_OUT, visible_text(omission)) for omission in omissions]
    facts += [(TASK, f"{model}: {visible_text(task)}") for task, model in tasks]
    return tuple({"name": name, "text": text} for name, text in facts)


def switch_lines(request: ModelSwitchRequest, now: datetime) -> Sequence[tuple[str, str]]:
    left_s = (request.expires_at - now).total_seconds()
    return [
        *((fact["name"], fact["text"]) for fact in request.facts),
        (REASON, visible_text(request.reason) or "none given"),
        ("Time left", format_span(left_s) if left_s > 0 else "none"),
    ]


def decision_text(request: ModelSwitchRequest, state: SwitchState) -> str:
    """Words the decision for the agent; empty before it."""
    what = "sub-tasks on" if request.for_children else "the switch to"
    what = f"{what} {request.wanted}"
    why = f": {visible_text(request.decision_reason)}" if request.decision_reason else ""
    match state:
        case SwitchState.PENDING:
            return ""
        case SwitchState.APPROVED:
            begins = "" if request.for_children else " It is in force from the next message on."
            return f"{request.decided_by} approved {what}{why}.{begins}"
        case SwitchState.REJECTED:
            return f"{request.decided_by} rejected {what}{why}. The model stays."
        case SwitchState.EXPIRED:
            return f"Nobody decided about {what} in time. The model stays."
        case _:
            return f"The request for {what} was taken back. The model stays."
