"""A message is one turn of a session as it is stored: complete, under way or interrupted, with
who answered it, its tokens and its cost. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class MessageRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(StrEnum):
    """STREAMING: its answer is under way. INTERRUPTED: the process ended before the answer did.
    FAILED: nobody answered.
    """

    STREAMING = "streaming"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MessageToolCall:
    """A tool call of an assistant's message."""

    id: str
    name: str
    arguments: str  # JSON, as the model wrote it
    extra: Mapping[str, object] = field(default_factory=dict)  # the provider's own fields


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Who answered a message."""

    asked: str = ""  # the model's name in force, as the session has it
    route: str = ""  # as the router named it
    target: str = ""  # `provider/model`
    request_id: str = ""
    # The model that was asked first, where `fallbackModel` answered; else empty.
    fallback_from: str = ""
    reason: str = ""  # why auto or the fallback chose this one; else empty


@dataclass(frozen=True, slots=True)
class MessageUsage:
    """Tokens and money of one answer."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    cost_usd: float | None = None  # None where the price is unknown


@dataclass(frozen=True, slots=True)
class SessionMessage:
    """One message of a session."""

    session: str
    position: int  # from 1, without gaps
    id: str  # `ms_…`
    role: MessageRole
    created_at: datetime
    # A text, or parts as the API has them: `{"type": "text", …}`, `{"type": "image_url", …}`.
    content: str | Sequence[Mapping[str, object]] = ""
    tool_calls: tuple[MessageToolCall, ...] = ()
    response_to: str = ""  # of a tool's message, the call that it answers
    state: MessageState = MessageState.COMPLETE
    served: ServedBy = ServedBy()
    usage: MessageUsage = MessageUsage()
    # What of the provider's goes back to it with the conversation, such as its reasoning.
    extra: Mapping[str, object] = field(default_factory=dict)
    error: str = ""  # of a failed or interrupted one, as the client was told
    done_at: datetime | None = None  # None while the answer is under way

    @property
    def is_in_context(self) -> bool:
        """Whether the model is shown it: a message without an answer is not."""
        return self.state is MessageState.COMPLETE
