"""Data types of the client: requests, messages, answers and tools.

The types are frozen and know no transport. Empty fields mean unknown or not set. A constructor
raises InputError only for a contradiction; the router and the provider check values.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.frame.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    cache: bool = False  # lets the provider cache the conversation up to this part


@dataclass(frozen=True, slots=True)
class Image:
    url: str  # `https://…`, or `data:image/png;base64,…`
    detail: str = ""  # `low` or `high`; empty for the provider's choice


Content = str | Sequence[Text | Image]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the model may call."""

    name: str
    description: str = ""
    # JSON Schema of an object.
    parameters: Mapping[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    strict: bool | None = None  # whether arguments must follow the schema, if the provider can


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A model's request to call a tool."""

    id: str
    name: str
    arguments_text: str = "{}"  # exactly as the model wrote them
    # The provider's further fields, which go back to it with the conversation.
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, object]:
        """The parsed arguments. Raises InputError if the model wrote no JSON object."""
        try:
            value = json.loads(self.arguments_text or "{}")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"tool {self.name!r}: the model's arguments are not JSON ({error})"
            ) from None
        if not isinstance(value, dict):
            raise InputError(f"tool {self.name!r}: the model's arguments are not a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class ToolResponse:
    """A tool's result for the model."""

    id: str  # the ToolRequest's id
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: Content = ""
    tool_requests: Sequence[ToolRequest] = ()  # only for the role assistant
    response_to: str = ""  # the ToolRequest's id, for the role tool
    # Further fields, which the client sends unchanged.
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
        """Builds a tool's message. An error's text begins with `Error: `, because the protocol
        has no other mark.
        """
        text = f"Error: {response.content}" if response.is_error else response.content
        return cls("tool", text, response_to=response.id)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or several answers, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # part of the input
    reasoning_tokens: int = 0  # part of the output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """The target that answered, and how the router chose it; empty fields are unknown."""

    request_id: str = ""
    route: str = ""
    arm: str = ""  # incumbent, canary, holdback or keep_warm
    target: str = ""
    revision: int | None = None  # revision of the routing table
    attempts: int = 0  # number of calls to providers
    degraded: tuple[str, ...] = ()  # features of the request that the target did not support
    switch: str = ""  # the kill switch in force
    kind: str = ""  # the kind of request, if its override chose `route`; else empty


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer with its log probability."""

    token: str
    logprob: float  # natural logarithm
    top: tuple[tuple[str, float], ...] = ()  # the likeliest tokens here, for `top_logprobs`


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    """A whole answer to a CompletionRequest."""

    text: str
    finish_reason: str  # stop, length, tool_calls, content_filter or the provider's own reason
    served: Served
    tool_requests: tuple[ToolRequest, ...] = ()
    usage: Usage | None = None  # None if the provider sent no usage
    model: str = ""  # usually the route's name
    reasoning: str = ""
    refusal: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    # The provider's own fields, which go back to it with the conversation.
    message_extra: Mapping[str, object] = field(default_factory=dict)
    # The parsed answer, for fields without a name here; empty for a stream.
    raw: Mapping[str, object] = field(default_factory=dict)

    @property
    def message(self) -> Message:
        """The answer as a message, to continue the conversation."""
        extra = self.message_extra
        return Message("assistant", self.text, self.tool_requests, extra=extra)


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool request in a stream. Pieces with the same index form one request."""

    index: int  # position among the answer's tool requests
    id: str = ""  # only in the request's first piece
    name: str = ""  # only in the request's first piece
    arguments_text: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of an answer; empty fields are no part of it."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_deltas: tuple[ToolDelta, ...] = ()
    finish_reason: str = ""  # only in one of the last chunks
    usage: Usage | None = None  # only in one of the last chunks
    model: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    # The provider's own fields, which go back to it with the conversation.
    message_extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingResponse:
    """An answer to an EmbeddingRequest: vectors in the order of its inputs."""

    vectors: tuple[tuple[float, ...], ...]
    served: Served
    usage: Usage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ToolRun:
    """The result of a tool loop that ended with an answer."""

    response: CompletionResponse
    messages: Sequence[Message]  # the whole conversation, with the last answer
    turns: int  # number of the model's answers
    usage: Usage  # of all turns

    @property
    def text(self) -> str:
        return self.response.text


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """Structured output: the answer's text is JSON that fits this JSON Schema."""

    schema: Mapping[str, object]
    name: str = "answer"
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Settings of a request for the router. Providers do not get them."""

    sticky: str = ""  # requests with the same value stay on the same arm
    task: str = ""  # chooses the route with this task
    # The kind of request, such as `subagent`, for the route's overrides. If empty, the router
    # detects the kind.
    kind: str = ""
    timeout_s: float | None = None  # for the whole request, within the route's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressedRequest:
    """A request to either `route` or `model_tier`. A tier is a route, such as `fast`."""

    route: str = ""
    model_tier: str = ""
    user: str = ""  # your id of the end user
    caller: Caller = field(default_factory=Caller)
    # Further fields of the body, which reach the provider unchanged.
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.route) == bool(self.model_tier):
            fault = "both are given" if self.route else "both are missing"
            raise InputError(f"route, model_tier: {fault}; name one route, or one tier")

    @property
    def asked_route(self) -> str:
        """The name that the request's `model` field gets: the route, or the tier."""
        return self.route or self.model_tier


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest(AddressedRequest):
    """A request to continue a chat. Raises InputError with the field's name."""

    messages: Sequence[Message]
    system: str = ""
    max_tokens: int | None = None  # limit of the answer
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    tools: Sequence[ToolDefinition] = ()
    tool_choice: str = ""  # `auto`, `none`, `required` or a tool's name
    parallel_tools: bool | None = None  # whether an answer may have several tool requests
    effort: str = ""  # effort of thinking, such as `low`, `medium`, `high`
    thinking_tokens: int | None = None  # a budget, for models that accept a budget
    output_schema: OutputSchema | None = None
    json_output: bool = False  # any JSON object
    seed: int | None = None
    top_logprobs: int | None = None  # 0 for the chosen tokens only, None for no logprobs
    cache_key: str = ""  # requests with the same key share a provider's prompt cache

    def __post_init__(self) -> None:
        AddressedRequest.__post_init__(self)
        if not self.messages:
            raise InputError("messages: the list is empty; give at least one Message")
        if self.output_schema is not None and self.json_output:
            raise InputError("json_output: give only one of json_output and output_schema")
        if self.tool_choice and not self.tools:
            raise InputError("tool_choice: there are no tools to choose from; give `tools` too")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest(AddressedRequest):
    """A request for one vector per text, in order. Raises InputError with the field's name."""

    inputs: Sequence[str]
    dimensions: int | None = None  # None for the model's own

    def __post_init__(self) -> None:
        AddressedRequest.__post_init__(self)
        if isinstance(self.inputs, str):
            raise InputError("inputs: one text was given; give a list of texts")
        if not self.inputs:
            raise InputError("inputs: the list is empty; give at least one text")
