"""A message is one part of a session as it is stored: complete, under way or interrupted, with
who answered it, its tokens and its cost. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final


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


Content = str | tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """What a client sends to a session, in the right form: a user's text and images, or the
    result of a function that the model asked the client to run.
    """

    role: MessageRole
    content: Content
    response_to: str = ""  # of a tool's message, the id of the call that it answers


@dataclass(frozen=True, slots=True)
class MessageToolCall:
    id: str
    name: str
    arguments: str  # JSON, as the model wrote it
    extra: Mapping[str, object] = field(default_factory=dict)  # the provider's own fields


@dataclass(frozen=True, slots=True)
class ServedBy:
    model_requested: str = ""  # the model's name in force, as the session has it
    route: str = ""  # as the router named it
    target: str = ""  # `provider/model`
    request_id: str = ""
    # The model that was asked first, where `fallbackModel` answered; else empty.
    fallback_from: str = ""
    reason: str = ""  # why auto or the fallback chose this one; else empty


@dataclass(frozen=True, slots=True)
class MessageUsage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    cost_usd: float | None = None  # None where the price is unknown

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "MessageUsage") -> "MessageUsage":
        """The sum; without a cost where one of both is not known."""
        costs = (self.cost_usd, other.cost_usd)
        return MessageUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            None if None in costs else sum(cost or 0.0 for cost in costs),
        )


FREE: Final = MessageUsage(cost_usd=0.0)
REFUSED: Final = "refused"  # in `extra` of a failed message


@dataclass(frozen=True, slots=True)
class SessionMessage:
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
    # Why it failed or was interrupted, as the client was told; of a complete one, what cut it
    # short.
    error: str = ""
    done_at: datetime | None = None  # None while the answer is under way
    turn: str = ""  # the id of the turn that it belongs to

    @property
    def is_whole(self) -> bool:
        return self.state is MessageState.COMPLETE

    @property
    def is_refusal(self) -> bool:
        """Whether the model refused what it was sent, and will again."""
        return self.state is MessageState.FAILED and bool(self.extra.get(REFUSED))
