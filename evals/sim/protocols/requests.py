"""Parses a simulated request's JSON body into a `ChatRequest` (chat completions here; the other
endpoints use its parts), and refuses a wrong one in OpenAI's words, by `Refused`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


class Refused(Exception):
    """Refuses a request with an HTTP status."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message, self.code, self.param = message, code, param


def error_body(
    status: int, message: str, code: str | None, param: str | None
) -> dict[str, Any]:
    kind = "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    elif status >= 500:
        kind = "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    raise Refused(400, message, code=code, param=param)


def no_such_model(name: str) -> Refused:
    message = f"The model `{name}` does not exist or you do not have access to it."
    return Refused(404, message, code="model_not_found", param="model")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request of any endpoint, as far as the simulator reads it."""

    model: str
    prompt: str  # the text of the last user message
    texts: tuple[str, ...]  # of every message, for the token count
    system: str  # text of the system messages
    stream: bool
    include_usage: bool
    max_tokens: int | None
    seed: int
    json_asked: bool
    tools: Mapping[str, Mapping[str, Any]]  # JSON Schema of the parameters, by name
    tool_choice: str
    forced_tool: str | None  # the one that must be called
    after_tool: bool
    schema: Mapping[str, Any] | None = None  # of the JSON that a chat asks for


def decoded(body: bytes) -> dict[str, Any]:
    """Reads the body as a JSON object. Raises Refused."""
    try:
        data = json.loads(body)
        # JSON may spell half of a surrogate pair; no text that can be sent has one.
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        invalid("We could not parse the JSON body of your request.")
    if not isinstance(data, dict):
        invalid("The body of your request must be a JSON object.")
    return data


def model_name(data: Mapping[str, Any]) -> str:
    name = data.get("model")
    if not isinstance(name, str) or not name:
        invalid("you must provide a model parameter", "model")
    return name


def parse_chat(data: Mapping[str, Any]) -> ChatRequest:
    """Parses the body of a chat completion's request. Raises Refused (400) where the API
    would.
    """
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        invalid(
            "Missing required parameter: 'messages'.", "messages", "missing_required_parameter"
        )
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        invalid("Each of 'messages' must be an object with a 'role'.", "messages")
    if data.get("n") not in (1, None):
        invalid("The simulator gives one choice: 'n' must be 1.", "n", "unsupported_value")
    texts = tuple(text_of(message.get("content")) for message in messages)
    asked = [t for m, t in zip(messages, texts, strict=True) if m["role"] == "user"]
    options = data.get("stream_options")
    response_format = data.get("response_format")
    tools = parse_tools(data.get("tools"))
    choice, forced = parse_tool_choice(data.get("tool_choice"), tools)
    return ChatRequest(
        model=model_name(data),
        prompt=asked[-1] if asked else texts[-1],
        texts=texts,
        system="\n".join(
            text
            for message, text in zip(messages, texts, strict=True)
            if message["role"] in ("system", "developer")
        ),
        stream=data.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=parse_limit(data, "max_completion_tokens")
        or parse_limit(data, "max_tokens"),
        seed=data["seed"] if isinstance(data.get("seed"), int) else 0,
        json_asked=isinstance(response_format, dict) and response_format.get("type") != "text",
        tools=tools,
        tool_choice=choice,
        forced_tool=forced,
        after_tool=messages[-1]["role"] == "tool",
        schema=parse_schema(response_format),
    )


def parse_schema(response_format: object) -> Mapping[str, Any] | None:
    """Reads the schema of a `json_schema` response format; None for any other form."""
    named = response_format.get("json_schema") if isinstance(response_format, dict) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else None


def text_of(content: object) -> str:
    """A message's text; of a list of parts the text parts and the results of tools, one per
    line.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [_part_text(part) for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    invalid("Invalid type for 'content': expected a string or a list of parts.", "messages")


def _part_text(part: Mapping[str, Any]) -> object:
    return (
        text_of(part.get("content")) if part.get("type") == "tool_result" else part.get("text")
    )


def parse_limit(data: Mapping[str, Any], param: str) -> int | None:
    limit = data.get(param)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        invalid(f"Invalid '{param}': must be an integer of at least 1.", param)
    return limit


def chat_tools(tools: object, schema: str) -> object:
    """The functions of another protocol as a chat names them. schema: where their schema is."""
    if not isinstance(tools, list):
        return tools
    return [
        {"function": {"name": tool.get("name"), "parameters": tool.get(schema)}}
        for tool in tools
        if isinstance(tool, dict) and tool.get("type", "function") in ("function", "custom")
    ]


def parse_tools(tools: object) -> dict[str, Mapping[str, Any]]:
    if tools is None:
        return {}
    if not isinstance(tools, list):
        invalid("'tools' must be a list.", "tools")
    parsed: dict[str, Mapping[str, Any]] = {}
    for n, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            invalid(f"Missing required parameter: 'tools[{n}].function.name'.", "tools")
        schema = function.get("parameters")
        parsed[function["name"]] = schema if isinstance(schema, dict) else {}
    return parsed


def parse_tool_choice(choice: object, tools: Mapping[str, object]) -> tuple[str, str | None]:
    """(mode, forced tool): a named tool, or the first one when any is required."""
    if choice is None:
        return "auto", None
    if not tools:
        invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if isinstance(choice, str) and choice in {"auto", "none"}:
        return str(choice), None
    if choice == "required":
        return "required", next(iter(tools))
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in tools:
        invalid(f"'tool_choice' names {name!r}, which is none of 'tools'.", "tool_choice")
    return "named", str(name)
