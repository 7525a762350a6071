"""A switch request asks a person to approve another model for a session, or models for its
sub-tasks. The command line, the dashboard, approval pages and chats show it with these texts.

Text from agents and clients is data. `visible_text` removes characters that are invisible or
change the text's direction; `inert_text` also removes links, mentions and markup of chats.

Pure. `switches` stores requests and applies decisions.
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
from harness.providers.target import ModelFigures

MAX_REASON_CHARS: Final = 1_000
MAX_CHAT_CHARS: Final = 300  # characters of a text in a chat
REASON: Final = "The agent's reason"
TASK: Final = "Sub-task"
LEFT_OUT: Final = "Left out"
# Facts whose values an agent wrote.
AGENT_WRITTEN_FACTS: Final = frozenset({REASON, TASK})
# The Unicode category of control, format, surrogate and private characters.
_INVISIBLE_CATEGORY: Final = "C"
# Chats turn host names into links, and a dot before a letter may be part of a host name.
_DOT_BEFORE_LETTER: Final = re.compile(r"\.(?=[^\W\d_])")
_MARKUP_CHARACTERS: Final = re.compile(r"[^\w .,;!?'\"()%+=$/:\u2013-]")
Fact = Mapping[str, str]  # its `name` and `text`


class SwitchState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"  # its session was closed, or its agent was deleted


@dataclass(frozen=True, slots=True)
class ModelSwitchRequest:
    id: str  # `sw_…`
    agent: str
    session: str
    model_requested: str  # the agent's name of the model
    targets: tuple[str, ...]  # `provider/model`; several for sub-tasks, empty for a route
    reason: str  # the agent's own words: data, never markup
    asked_at: datetime
    expires_at: datetime
    for_children: bool = False  # the targets are for sub-tasks; the session keeps its model
    facts: tuple[Fact, ...] = ()  # about the models and the conversation at `asked_at`
    state: SwitchState = SwitchState.PENDING
    decided_at: datetime | None = None
    decided_by: str = ""  # principal
    decided_with: str | None = None  # the management key's id; None for the local operator
    decision_reason: str = ""

    @property
    def wanted(self) -> str:
        """The models that the request asks for, as people read them."""
        return ", ".join(self.targets) or self.model_requested

    @property
    def hash(self) -> str:
        """Hash of everything that the request shows. Approvals are bound to it."""
        return digest(
            [
                self.id,
                self.agent,
                self.session,
                self.model_requested,
                list(self.targets),
                self.reason,
                self.for_children,
                self.asked_at.isoformat(),
                self.expires_at.isoformat(),
                list(self.facts),
            ]
        )

    def state_at(self, now: datetime) -> SwitchState:
        """Returns the state at that time. An overdue request counts as expired, even if its row
        does not say so yet.
        """
        is_over = self.state is SwitchState.PENDING and now >= self.expires_at
        return SwitchState.EXPIRED if is_over else self.state

    def end(
        self,
        state: SwitchState,
        now: datetime,
        reason: str,
        actor: Actor | None = None,
    ) -> "ModelSwitchRequest":
        """Returns the decided request.

        Args:
            actor: None if no person decided.
        """
        return replace(
            self,
            state=state,
            decided_at=now,
            decision_reason=reason,
            decided_by=actor.name if actor else "",
            decided_with=actor.key if actor else None,
        )


def visible_text(text: str, max_chars: int = MAX_REASON_CHARS) -> str:
    """Returns the text in one line, without invisible characters.

    Args:
        max_chars: the limit of characters, including the ellipsis.
    """
    visible = "".join(c if category(c)[0] != _INVISIBLE_CATEGORY else " " for c in text)
    line = " ".join(visible.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 1]}…"


def inert_text(text: str) -> str:
    """Returns a text that no chat turns into a link, a mention or markup, in at most
    `MAX_CHAT_CHARS` characters.
    """
    without_markup = (
        _MARKUP_CHARACTERS.sub("·", visible_text(text, MAX_CHAT_CHARS))
        .replace("_", "·")
        .replace("://", " //")
    )
    return _DOT_BEFORE_LETTER.sub(". ", without_markup)


def switch_question(request: ModelSwitchRequest, agent: str) -> str:
    """Asks for the approval in one sentence.

    Args:
        agent: the agent's name, which the agent's owner chose.
    """
    name = visible_text(agent, 200) or request.agent
    action = "run sub-tasks on" if request.for_children else "switch to"
    return f"{name} wants to {action} {visible_text(request.wanted)}. Approve?"


def switch_facts(
    now_on: ModelFigures,
    candidates: Iterable[ModelFigures],
    omissions: Iterable[str] = (),
    tasks: Iterable[tuple[str, str]] = (),
) -> tuple[Fact, ...]:
    """Builds the facts that a request stores.

    Args:
        tasks: task and model of each sub-task.
    """
    facts: list[tuple[str, str]] = []
    for figures in candidates:
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
    """Lists the titles and texts that a person reads before the decision."""
    left_s = (request.expires_at - now).total_seconds()
    return [
        *((fact["name"], fact["text"]) for fact in request.facts),
        (REASON, visible_text(request.reason) or "none given"),
        ("Time left", format_span(left_s) if left_s > 0 else "none"),
    ]


def decision_text(request: ModelSwitchRequest, state: SwitchState) -> str:
    """Describes the decision for the agent; empty while the request is pending."""
    action = "sub-tasks on" if request.for_children else "the switch to"
    action = f"{action} {request.wanted}"
    reason_suffix = (
        f": {visible_text(request.decision_reason)}" if request.decision_reason else ""
    )
    match state:
        case SwitchState.PENDING:
            return ""
        case SwitchState.APPROVED:
            scope = "" if request.for_children else " It is in force from the next message on."
            return f"{request.decided_by} approved {action}{reason_suffix}.{scope}"
        case SwitchState.REJECTED:
            return f"{request.decided_by} rejected {action}{reason_suffix}. The model stays."
        case SwitchState.EXPIRED:
            return f"No person decided about {action} in time. The model stays."
        case _:
            return f"The request for {action} was cancelled. The model stays."
