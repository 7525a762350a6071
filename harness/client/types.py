"""Data types of the client: messages, tools, requests (checked when they are made), answers,
chunks, usage, and who served (`Served`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.domain.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """cache: a provider with a prompt cache may keep the conversation up to this part."""

    text: str
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """url: `https://…`, or `data:image/png;base64,…`."""

    url: str


Content = str | Sequence[Text | Image]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the model may ask for. parameters: JSON Schema of an object.

    strict: arguments are to follow the schema to the letter, where the provider can.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The model asks for a tool. arguments_text: as it wrote them; mostly a JSON object.

    extra: further fields of the provider's, which go back to it with the conversation.
    """

    id: str
    name: str
    arguments_text: str = "{}"
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, object]:
        """Raises InputError where the model wrote no JSON object."""
        try:
            found = json.loads(self.arguments_text or "{}")
        except ValueError as error:
            raise InputError(
                f"tool {self.name!r}: the model's arguments are no JSON ({error})"
            ) from None
        if not isinstance(found, dict):
            raise InputError(f"tool {self.name!r}: the model's arguments are no JSON object")
        return found


@dataclass(frozen=True, slots=True)
class ToolResponse:
    """What a tool answered. id: of its ToolRequest. is_error: the model is told so."""

    id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. tool_requests: of an assistant. response_to: of a tool, the ToolRequest's id.

    extra: further fields, sent as they are.
    """

    role: Role
    content: Content = ""
    tool_requests: Sequence[ToolRequest] = ()
    response_to: str = ""
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
    switch: the kill switch in force. kind: of request, where an override of the asked route
    made `route` serve; else empty.
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
    """The result of a tool loop.

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


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """Structured output: the answer's text is JSON of this JSON Schema."""

    schema: Mapping[str, object]
    name: str = "answer"
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How one request is to be treated by the router; nothing of it reaches a provider.

    sticky: callers with the same one stay on the same arm. task: picks the route that has this
    task. kind: what the request is, such as `subagent`, for the route's overrides; empty: the
    router sees for itself. timeout_s: for everything, at most what the route allows.
    """

    sticky: str = ""
    task: str = ""
    kind: str = ""
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A chat. Exactly one of `route` and `model_tier` (a route as well: `fast`, `frontier`).

    max_tokens: of the answer. tool_choice: `auto`, `none`, `required` or a tool's name.
    parallel_tools: several tool requests at once; None leaves it to the model. effort: of
    thinking, such as `low`, `medium`, `high`. thinking_tokens: a budget, for models that take
    one. json_output: any JSON object. top_logprobs: 0 for the chosen tokens' alone, None for
    none. cache_key: requests with the same one share a provider's prompt cache. user: who is
    behind the request. extra: further fields of the body, passed through untouched.

    Raises InputError, naming the field, for what is missing or contradicts itself.
    """

    messages: Sequence[Message]
    route: str = ""
    model_tier: str = ""
    system: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    tools: Sequence[ToolDefinition] = ()
    tool_choice: str = ""
    parallel_tools: bool | None = None
    effort: str = ""
    thinking_tokens: int | None = None
    output_schema: OutputSchema | None = None
    json_output: bool = False
    seed: int | None = None
    top_logprobs: int | None = None
    cache_key: str = ""
    user: str = ""
    caller: Caller = field(default_factory=Caller)
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_one_route(self.route, self.model_tier)
        if not self.messages:
            raise InputError("messages: there is none; give at least one Message")
        if self.output_schema is not None and self.json_output:
            raise InputError("json_output: output_schema says it already; give one of the two")
        if self.tool_choice and not self.tools:
            raise InputError("tool_choice: there are no tools to choose from; give `tools` too")

    @property
    def asked_route(self) -> str:
        return self.route or self.model_tier


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """One vector per text, in order. dimensions: None for the model's own.

    Raises InputError, naming the field, for what is missing or contradicts itself.
    """

    inputs: Sequence[str]
    route: str = ""
    model_tier: str = ""
    dimensions: int | None = None
    user: str = ""
    caller: Caller = field(default_factory=Caller)
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_one_route(self.route, self.model_tier)
        if isinstance(self.inputs, str):
            raise InputError("inputs: one text was given; give a list of texts")
        if not self.inputs:
            raise InputError("inputs: there is none; give at least one text")

    @property
    def asked_route(self) -> str:
        return self.route or self.model_tier


def require_one_route(route: str, model_tier: str) -> None:
    """Raises InputError."""
    if bool(route) == bool(model_tier):
        both = "both are given" if route else "none of the two is given"
        raise InputError(f"route, model_tier: {both}; name one route, or one tier")
