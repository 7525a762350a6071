"""The simulator's `POST /v1/chat/completions`, with errors in OpenAI's shape.

`ChatRequest` is a parsed request of any endpoint; each endpoint writes a `Completion`. The
other endpoints translate their requests into it, so that a model answers alike in all
protocols.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, Field, PositiveInt, ValidationError
from pydantic_core import from_json


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(eq=False)
class Refused(Exception):
    """A request that the simulator answers with an error. status: HTTP."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None


def error_body(refusal: Refused) -> dict[str, Any]:
    """Writes an error as OpenAI does."""
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    kind = "rate_limit_error" if refusal.status == 429 else kind
    error = {
        "message": refusal.message,
        "type": kind,
        "param": refusal.param,
        "code": refusal.code,
    }
    return {"error": error}


def invalid(message: str, param: str | None = None) -> NoReturn:
    """Raises Refused with status 400.

    Args:
        param: the field at fault.
    """
    raise Refused(400, message, param=param)


def no_such_model(name: str) -> Refused:
    message = f"The model `{name}` does not exist or you do not have access to it."
    return Refused(
        404,
        message,
        code="model_not_found",
        param="model",
    )


class ChatMessage(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        return text_of(self.content)


class NamedFunction(BaseModel):
    name: str
    parameters: dict[str, Any] | None = None


class FunctionTool(BaseModel):
    function: NamedFunction


class ChatRequest(BaseModel):
    """A request to any endpoint as a chat, with the fields that the simulator reads."""

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    seed: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(message.text for message in self.messages)

    @cached_property
    def prompt(self) -> str:
        """The newest text of a user. Without one, the last text of any role."""
        prompts = [message.text for message in self.messages if message.role == "user"]
        return prompts[-1] if prompts else self.texts[-1]

    @property
    def turn_number(self) -> int:
        """The number of the user's messages: 1 for the first turn of a conversation."""
        return max(1, sum(message.role == "user" for message in self.messages))

    @property
    def system(self) -> str:
        texts = (
            message.text for message in self.messages if message.role in ("system", "developer")
        )
        return "\n".join(texts)

    @property
    def include_usage(self) -> bool:
        return (self.stream_options or {}).get("include_usage") is True

    @property
    def limit(self) -> int | None:
        """The answer's token limit; None without one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def after_tool(self) -> bool:
        return self.messages[-1].role == "tool"

    @property
    def tool_results(self) -> list[str]:
        """The texts of the tool messages at the conversation's end, in order."""
        last = takewhile(lambda message: message.role == "tool", reversed(self.messages))
        return [message.text for message in last][::-1]

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        return {tool.function.name: tool.function.parameters or {} for tool in self.tools or ()}

    @property
    def forced_tool(self) -> str | None:
        """The tool that `tool_choice` forces: a named tool, or the first if it requires any."""
        if self.tool_choice == "required":
            return next(iter(self.schemas), "")
        choice = self.tool_choice if isinstance(self.tool_choice, dict) else None
        return None if choice is None else str((choice.get("function") or {}).get("name"))

    @property
    def answer_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of the answer; None for an answer in text."""
        answer_format = self.response_format or {"type": "text"}
        if answer_format.get("type") == "text":
            return None
        schema = (answer_format.get("json_schema") or {}).get("schema")
        return schema or {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
        }


def decoded(body: bytes) -> dict[str, Any]:
    """Parses a request's body. Raises Refused if it is not a JSON object."""
    try:
        data = from_json(body)
    except ValueError:
        invalid("We could not parse the JSON body of your request.")
    if not isinstance(data, dict):
        invalid("The body of your request must be a JSON object.")
    return data


def model_name(data: Mapping[str, Any]) -> str:
    """Returns the model's name. Raises Refused without one."""
    name = data.get("model")
    if not isinstance(name, str) or not name:
        invalid("you must provide a model parameter", "model")
    return name


def parse_chat(data: Mapping[str, Any]) -> ChatRequest:
    """Parses a chat request. Raises Refused for an invalid field, and for a forced tool that
    the request does not offer.
    """
    try:
        request = ChatRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        invalid(f"Invalid '{place}': {first['msg']}.", str(first["loc"][0]))
    forced = request.forced_tool
    if forced is not None and forced not in request.schemas:
        invalid(
            f"'tool_choice' names {forced!r}, which is not among 'tools'.",
            "tool_choice",
        )
    return request


def text_of(content: object) -> str:
    """Joins the texts of a message's content, in the forms of all three protocols."""
    if not isinstance(content, list):
        return str(content or "")
    parts = [part for part in content if isinstance(part, dict)]
    texts = (
        text_of(part.get("content")) if part.get("type") == "tool_result" else part.get("text")
        for part in parts
    )
    return "\n".join(text for text in texts if isinstance(text, str))


def function_tools(tools: object, schema: str) -> object:
    """Converts another protocol's tools into a chat's.

    Args:
        schema: the key of a tool's schema.
    """
    if not isinstance(tools, list):
        return tools
    return [
        {
            "function": {
                "name": tool.get("name"),
                "parameters": tool.get(schema),
            }
        }
        for tool in tools
        if isinstance(tool, dict) and tool.get("type", "function") in ("function", "custom")
    ]


def response_format(form: object) -> dict[str, Any] | None:
    """Converts another protocol's format of the answer into a chat's; None without one."""
    return {**form, "json_schema": form} if isinstance(form, dict) else None


PIECE = re.compile(r"\s*\S+\s*")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class SimulatedToolCall:
    """A tool call of the answer."""

    id: str
    name: str
    arguments: str  # as JSON text, as in the API


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer and its metadata. text: empty if the model calls tools."""

    id: str
    created: int
    model: str
    fingerprint: str
    text: str
    calls: Sequence[SimulatedToolCall]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def pieces(self) -> list[list[str]]:
        """The pieces in which a stream sends the text, or the arguments of each call."""
        texts = [call.arguments for call in self.calls] or [self.text]
        return [PIECE.findall(text) for text in texts]


def body(answer: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or None,
    }
    if answer.calls:
        message["tool_calls"] = [
            build_call_entry(call, call.arguments) for call in answer.calls
        ]
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": answer.fingerprint,
        "choices": [choice("message", message, answer.finish_reason)],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def choice(
    name: str,
    content: Mapping[str, Any],
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "index": 0,
        name: content,
        "logprobs": None,
        "finish_reason": reason,
    }


def build_call_entry(call: SimulatedToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {
        "id": call.id,
        "type": "function",
        "function": function,
    }


def event(data: Mapping[str, Any]) -> bytes:
    """Writes an event. The `type` of its data, if any, is the event's name."""
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + encode(data) + b"\n\n"


def stream(answer: Completion, request: ChatRequest) -> list[bytes]:
    """Writes the events of a streamed answer: the role, one for each piece, and the end."""
    frame = body(answer) | {"object": "chat.completion.chunk"}
    usage = frame.pop("usage")
    no_usage = {"usage": None} if request.include_usage else {}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return event(
            {
                **frame,
                "choices": [choice("delta", delta, reason)],
                **no_usage,
            }
        )

    deltas: list[dict[str, Any]] = []
    if not answer.calls:
        deltas = [{"content": piece} for piece in answer.pieces[0]]
    for number, call in enumerate(answer.calls):
        pieces = answer.pieces[number]
        parts = [
            build_call_entry(call, ""),
            *({"function": {"arguments": piece}} for piece in pieces),
        ]
        deltas += [{"tool_calls": [{"index": number, **part}]} for part in parts]
    end = chunk({}, answer.finish_reason)
    if request.include_usage:
        end += event(
            {
                **frame,
                "choices": [],
                "usage": usage,
            }
        )
    opening = chunk({"role": "assistant", "content": None if answer.calls else ""})
    return [opening, *map(chunk, deltas), end + DONE]


@dataclass(frozen=True)
class EndpointDialect:
    """How one protocol reads requests, and writes answers and errors."""

    parse: Callable[[Mapping[str, Any]], ChatRequest]  # raises Refused
    body: Callable[[Completion], dict[str, Any]]
    # Returns the events before the content, one for each piece of it, and the events after it.
    stream: Callable[[Completion, ChatRequest], list[bytes]]
    error: Callable[[Refused], dict[str, Any]] = error_body
    # Writes an error's body as the last event of a stream.
    error_event: Callable[[Mapping[str, Any]], bytes] = event
    ping: bytes = b": ping\n\n"


CHAT = EndpointDialect(parse_chat, body, stream)
