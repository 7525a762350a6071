"""Data types of the client."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.frame.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    # A provider with a prompt cache may keep the conversation up to this part.
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    url: str  # `https://…`, or `data:image/png;base64,…`
    detail: str = ""  # `low` or `high`; empty leaves it to the provider


Content = str | Sequence[Text | Image]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    name: str
    description: str = ""
    # JSON Schema of an object.
    parameters: Mapping[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    # Arguments are to follow the schema to the letter, where the provider can.
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolRequest:
    id: str
    name: str
    arguments_text: str = "{}"  # as it wrote them; mostly a JSON object
    # Further fields of the provider's, which go back to it with the conversation.
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, object]:
        try:
            found = json.loads(self.arguments_text or "{}")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"tool {self.name!r}: the model's arguments are no JSON ({error})"
            ) from None
        if not isinstance(found, dict):
            raise InputError(f"tool {self.name!r}: the model's arguments are no JSON object")
        return found


@dataclass(frozen=True, slots=True)
class ToolResponse:
    id: str  # of its ToolRequest
    content: str
    is_error: bool = False  # the model is told so


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: Content = ""
    tool_requests: Sequence[ToolRequest] = ()  # of an assistant
    response_to: str = ""  # of a tool, the ToolRequest's id
    # Further fields, sent as they are.
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def user(cls, content: Content) -> "Message":
        return cls("user", content)

    @classmethod
    def assistant(
        cls, content: Content = "", tool_requests: Sequence[ToolRequest] = ()
    ) -> "Message":
        return cls("assistant", content, tuple(tool_requests))

    @classmethod
    def tool(cls, response: ToolResponse) -> "Message":
        """An error begins with `Error: `, for chats have no other mark of one."""
        text = f"Error: {response.content}" if response.is_error else response.content
        return cls("tool", text, response_to=response.id)


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    reasoning_tokens: int = 0  # of the output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """Says who answered, in the router's words; empty where nobody did."""

    request_id: str = ""
    route: str = ""
    arm: str = ""  # incumbent, canary, holdback or keep_warm
    target: str = ""
    revision: int | None = None  # of the routing table
    attempts: int = 0  # how often a provider was asked
    degraded: tuple[str, ...] = ()  # what the request asked for and was done without
    switch: str = ""  # the kill switch in force
    # Of request, where an override of the asked route made `route` serve; else empty.
    kind: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: str
    logprob: float  # natural logarithm
    top: tuple[tuple[str, float], ...] = ()  # the likeliest tokens at this place, if asked for


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    text: str
    finish_reason: str  # stop, length, tool_calls, content_filter or the provider's own word
    served: Served
    tool_requests: tuple[ToolRequest, ...] = ()
    usage: Usage | None = None  # None where the provider said nothing
    model: str = ""  # as the router says, mostly the route's name
    reasoning: str = ""
    refusal: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    # What of the provider's goes back to it with the conversation.
    message_extra: Mapping[str, object] = field(default_factory=dict)
    # The answer as it came, for fields that have no name here; empty of a stream.
    raw: Mapping[str, object] = field(default_factory=dict)

    @property
    def message(self) -> Message:
        extra = self.message_extra
        return Message("assistant", self.text, self.tool_requests, extra=extra)


@dataclass(frozen=True, slots=True)
class ToolDelta:
    index: int  # which of the answer's
    id: str = ""  # id, name: in its first piece
    name: str = ""
    arguments_text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_deltas: tuple[ToolDelta, ...] = ()
    finish_reason: str = ""  # finish_reason, usage: in one of the last ones
    usage: Usage | None = None
    model: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    # What of the provider's goes back to it with the conversation.
    message_extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    vectors: tuple[tuple[float, ...], ...]
    served: Served
    usage: Usage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ToolRun:
    response: CompletionResponse
    messages: Sequence[Message]  # the whole conversation, the last answer included
    turns: int  # how often the model was asked
    usage: Usage  # of all turns

    @property
    def text(self) -> str:
        return self.response.text


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """Structured output: the answer's text is JSON of this JSON Schema."""

    schema: Mapping[str, object]
    name: str = "answer"
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How one request is to be treated by the router; nothing of it reaches a provider."""

    sticky: str = ""  # callers with the same one stay on the same arm
    task: str = ""  # picks the route that has this task
    # What the request is, such as `subagent`, for the route's overrides; empty: the router sees
    # for itself.
    kind: str = ""
    timeout_s: float | None = None  # for everything, at most what the route allows


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressedRequest:
    """Names exactly one of `route` and `model_tier` (a route as well: `fast`, `frontier`)."""

    route: str = ""
    model_tier: str = ""
    user: str = ""  # who is behind the request
    caller: Caller = field(default_factory=Caller)
    # Further fields of the body, passed through untouched.
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.route) == bool(self.model_tier):
            both = "both are given" if self.route else "none of the two is given"
            raise InputError(f"route, model_tier: {both}; name one route, or one tier")

    @property
    def asked_route(self) -> str:
        return self.route or self.model_tier


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest(AddressedRequest):
    """Asks a model to go on with a chat. Raises InputError, naming the field."""

    messages: Sequence[Message]
    system: str = ""
    max_tokens: int | None = None  # of the answer
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    tools: Sequence[ToolDefinition] = ()
    tool_choice: str = ""  # `auto`, `none`, `required` or a tool's name
    # Several tool requests at once; None leaves it to the model.
    parallel_tools: bool | None = None
    effort: str = ""  # of thinking, such as `low`, `medium`, `high`
    thinking_tokens: int | None = None  # a budget, for models that take one
    output_schema: OutputSchema | None = None
    json_output: bool = False  # any JSON object
    seed: int | None = None
    top_logprobs: int | None = None  # 0 for the chosen tokens' alone, None for none
    cache_key: str = ""  # requests with the same one share a provider's prompt cache

    def __post_init__(self) -> None:
        AddressedRequest.__post_init__(self)
        if not self.messages:
            raise InputError("messages: there is none; give at least one Message")
        if self.output_schema is not None and self.json_output:
            raise InputError("json_output: output_schema says it already; give one of the two")
        if self.tool_choice and not self.tools:
            raise InputError("tool_choice: there are no tools to choose from; give `tools` too")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest(AddressedRequest):
    """Asks for one vector per text, in order. Raises InputError, naming the field."""

    inputs: Sequence[str]
    dimensions: int | None = None  # None for the model's own

    def __post_init__(self) -> None:
        AddressedRequest.__post_init__(self)
        if isinstance(self.inputs, str):
            raise InputError("inputs: one text was given; give a list of texts")
        if not self.inputs:
            raise InputError("inputs: there is none; give at least one text")
