"""Inspect AI's model provider `swapproof/<provider>/<model>`.

It sends Inspect's messages, tools and settings to the job's target, and converts the replies.
It needs no vendor's SDK. This module keeps the connection by the model's name, so that
Inspect's log contains neither key nor address.

Both conversions are pure functions below; retries and limits are in `provider_client`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolFunction, ToolInfo

from evals.runner.chat_completions import ChatReply, request_body
from evals.runner.provider_client import (
    EvalProviderClient,
    ItemRefused,
    ProviderFailed,
)
from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.providers.target import SentTarget

SECONDS = "swapproof_seconds"
SERVED = "swapproof_served"
FALLBACK = "swapproof_fallback"  # a gateway's fallback answered
CALLS = "swapproof_calls"
MEASURED_ANSWERS: Final = 10
MIN_LIMIT_TOKENS: Final = 512


class MeasuredLimit:
    """The token limit for a suite with `max_output_tokens: auto`: four times the longest of the
    first `MEASURED_ANSWERS` answers, at least `MIN_LIMIT_TOKENS`.
    """

    def __init__(self) -> None:
        self._first_lengths: list[int] = []

    @property
    def tokens(self) -> int | None:
        """The limit; None for the first answers, which have the model's own limit."""
        if len(self._first_lengths) < MEASURED_ANSWERS:
            return None
        return max(MIN_LIMIT_TOKENS, 4 * max(self._first_lengths))

    def learn(self, output_tokens: int) -> None:
        """Notes the length of an answer, in tokens. Later answers change nothing."""
        if len(self._first_lengths) < MEASURED_ANSWERS:
            self._first_lengths.append(output_tokens)


@dataclass(frozen=True, slots=True)
class TargetConnection:
    """A target of this process, and how to reach it."""

    target: SentTarget
    client: EvalProviderClient
    failures: set[str]  # texts of errors that left a sample without an answer
    limit: MeasuredLimit | None = None  # None if the suite has a fixed limit


_connections: dict[str, TargetConnection] = {}


def open_model(connection: TargetConnection) -> Model:
    """Returns the Inspect model for this target. The caller closes the client."""
    name = f"{connection.target.provider}/{connection.target.model}"
    _connections[name] = connection
    return get_model(f"swapproof/{name}", memoize=False)


@modelapi(name="swapproof")
class TargetAPI(ModelAPI):
    """Lets Inspect ask the job's target. Raises InputError for another model."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        try:
            self._connection = _connections[model_name]
        except KeyError:
            targets = ", ".join(_connections) or "none"
            raise InputError(
                f"swapproof/{model_name} is not the target of this run ({targets}); in a task, "
                "call get_model() without a name"
            ) from None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's own signature
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Asks the target. Raises ProviderFailed without an answer, InputError for content that
        is neither text nor image. A refused item is an empty answer.
        """
        settings = generation_settings(config)
        limit = self._connection.limit
        if limit is not None and limit.tokens is not None:
            settings["max_tokens"] = limit.tokens
        if tools:
            settings["tool_choice"] = tool_choice_of(tool_choice)
        request = request_body(
            self._connection.target,
            [message_of(message) for message in input],
            settings,
            [tool_of(tool) for tool in tools],
        )
        try:
            reply_and_seconds = await self._connection.client.ask(request)
        except ItemRefused as error:
            return refusal_of(self._connection.target.model, error)
        except ProviderFailed as error:
            self._connection.failures.add(str(error))
            raise
        if limit is not None:
            limit.learn(reply_and_seconds[0].output_tokens)
        return output_of(*reply_and_seconds)

    def connection_key(self) -> str:
        return self.model_name


def generation_settings(config: GenerateConfig) -> dict[str, Any]:
    """Translates Inspect's settings into fields of a chat completion. Leaves out unset
    fields.
    """
    settings: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "temperature",
            "top_p",
            "max_tokens",
            "seed",
            "frequency_penalty",
            "presence_penalty",
            "logprobs",
            "top_logprobs",
            "reasoning_effort",
        )
        if getattr(config, name) is not None
    }
    settings |= config.extra_body or {}
    if config.stop_seqs:
        settings["stop"] = list(config.stop_seqs)
    if config.response_schema is not None:
        schema = config.response_schema
        settings["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": schema.name,
                "schema": schema.json_schema.model_dump(exclude_none=True, by_alias=True),
                "strict": schema.strict,
            },
        }
    return settings


def content_of(content: str | Sequence[object]) -> str | list[dict[str, Any]]:
    """Translates Inspect's content. Raises InputError for other parts than text and images."""
    if isinstance(content, str):
        return content
    parts: list[dict[str, Any]] = []
    for part in content:
        match part:
            case ContentText():
                parts.append({"type": "text", "text": part.text})
            case ContentImage():
                image = {"url": part.image, "detail": part.detail}
                parts.append({"type": "image_url", "image_url": image})
            case _:
                raise InputError(
                    f"a message contains {type(part).__name__}; use only text and images"
                )
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def message_of(message: ChatMessage) -> dict[str, Any]:
    """Translates a message of Inspect into a chat's. Raises InputError as `content_of`."""
    match message:
        case ChatMessageTool():
            return {
                "role": "tool",
                "tool_call_id": message.tool_call_id,
                "content": message.error.message if message.error else message.text,
            }
        case ChatMessageAssistant() if message.tool_calls:
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function,
                        "arguments": json.dumps(call.arguments),
                    },
                }
                for call in message.tool_calls
            ]
            return {
                "role": "assistant",
                "content": message.text or None,
                "tool_calls": calls,
            }
        case ChatMessageAssistant():
            return {"role": "assistant", "content": message.text}
        case _:
            return {
                "role": message.role,
                "content": content_of(message.content),
            }


def tool_of(tool: ToolInfo) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters.model_dump(exclude_none=True, by_alias=True),
        },
    }


def tool_choice_of(choice: ToolChoice) -> str | dict[str, Any]:
    """Translates a tool choice: Inspect's `any` is the API's `required`."""
    match choice:
        case ToolFunction():
            return {"type": "function", "function": {"name": choice.name}}
        case "any":
            return "required"
        case _:
            return choice


STOPS: Mapping[str, StopReason] = {
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def output_of(reply: ChatReply, seconds: float) -> ModelOutput:
    """Translates a reply into Inspect's output.

    Args:
        seconds: the time of the answer.

    Inspect's output has no field for the seconds, for the serving model, and for the tool calls
    as the provider wrote them. The metadata keeps these.
    """
    message = ChatMessageAssistant(
        content=reply.text,
        model=reply.model,
        source="generate",
        tool_calls=[
            parse_tool_call(call.id, call.name, call.arguments) for call in reply.tool_calls
        ]
        or None,
    )
    return ModelOutput(
        model=reply.model,
        choices=[
            ChatCompletionChoice(message=message, stop_reason=STOPS.get(reply.finish, "stop"))
        ],
        usage=ModelUsage(
            input_tokens=reply.input_tokens - reply.cached_tokens,
            input_tokens_cache_read=reply.cached_tokens,
            output_tokens=reply.output_tokens,
            total_tokens=reply.input_tokens + reply.output_tokens,
        ),
        metadata={
            SECONDS: seconds,
            SERVED: list(reply.served.pair),
            FALLBACK: reply.is_fallback,
            # Inspect drops arguments that are not JSON, but a scorer may accept them.
            CALLS: [[call.name, call.arguments] for call in reply.tool_calls],
        },
    )


def refusal_of(model: str, refused: ItemRefused) -> ModelOutput:
    """Returns an empty answer for an item whose content or length the provider refused."""
    too_long = refused.failure is FailureClass.CONTEXT_WINDOW
    reason: StopReason = "model_length" if too_long else "content_filter"
    output = ModelOutput.from_content(model, "", stop_reason=reason)
    output.metadata = {SERVED: ["", ""]}
    return output


def parse_tool_call(
    call_id: str,
    name: str,
    arguments: str,
) -> ToolCall:
    """Parses a call. For invalid arguments, Inspect sends the model a parse error."""
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return ToolCall(id=call_id, function=name, arguments=parsed)
    return ToolCall(
        id=call_id,
        function=name,
        arguments={},
        parse_error="arguments are not a JSON object",
    )
