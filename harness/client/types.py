"""What a caller gets: the answer, what it took, and which target served it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.client.messages import Message, ToolRequest


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. cached_tokens: of the input. reasoning_tokens: of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered, in the router's words; empty where nobody did.

    arm: incumbent, canary, holdback or keep_warm. revision: of the routing table. attempts: how
    often a provider was asked. degraded: what the request asked for and was done without.
    switch: the kill switch that ruled. kind: of the override by which `route` served; empty
    where the route that was asked did.
    """

    request_id: str = ""
    route: str = ""
    arm: str = ""
    target: str = ""
    revision: int | None = None
    attempts: int = 0
    degraded: tuple[str, ...] = ()
    switch: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """logprob: natural logarithm. top: the likeliest tokens at this place, if asked for."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    """finish_reason: stop, length, tool_calls, content_filter or the provider's own word.

    model: as the router says, mostly the route's name. usage: None where the provider said
    nothing. message_extra: what of the provider's goes back to it with the conversation. raw:
    the answer as it came, for fields that have no name here; empty of a stream.
    """

    text: str
    finish_reason: str
    served: Served
    tool_requests: tuple[ToolRequest, ...] = ()
    usage: Usage | None = None
    model: str = ""
    reasoning: str = ""
    refusal: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    message_extra: Mapping[str, object] = field(default_factory=dict)
    raw: Mapping[str, object] = field(default_factory=dict)

    @property
    def message(self) -> Message:
        """For the next request of this conversation."""
        extra = self.message_extra
        return Message("assistant", self.text, self.tool_requests, extra=extra)


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool request. index: which of the answer's. id, name: in its first piece."""

    index: int
    id: str = ""
    name: str = ""
    arguments_text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a streamed answer. finish_reason, usage: in one of the last ones."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_deltas: tuple[ToolDelta, ...] = ()
    finish_reason: str = ""
    usage: Usage | None = None
    model: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    vectors: tuple[tuple[float, ...], ...]
    served: Served
    usage: Usage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ToolRun:
    """What a loop of tools came to.

    messages: the whole conversation, the last answer included. turns: how often the model was
    asked. usage: of all turns.
    """

    response: CompletionResponse
    messages: Sequence[Message]
    turns: int
    usage: Usage

    @property
    def text(self) -> str:
        return self.response.text
