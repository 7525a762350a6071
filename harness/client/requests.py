"""What a caller asks for: the route, the conversation, and the providers' levers by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.client.messages import Message, ToolDefinition
from harness.domain.errors import InputError


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
    thinking, such as `low`, `medium`, `high`. thinking_tokens: a budget, for who takes
    one. json_output: any JSON object. top_logprobs: 0 for the chosen tokens' alone, None for
    none. cache_key: requests with the same one share a provider's prompt cache. user: who is
    behind the request. extra: further fields of the body, passed through untouched.

    Raises InputError, with the field, for what cannot be meant.
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

    Raises InputError, with the field, for what cannot be meant.
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
