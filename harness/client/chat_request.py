"""Builds the bodies and headers of requests to a router, in the form of OpenAI's API. Pure.

The bodies omit fields that a request does not set, so that the target's own defaults apply. The
router translates for other protocols; `response_parsing` reads the answers.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.client.types import (
    Caller,
    CompletionRequest,
    EmbeddingRequest,
    Image,
    Message,
    Text,
    ToolDefinition,
    ToolRequest,
)
from harness.frame.errors import InputError

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
_CHOICE_WORDS: Final = ("auto", "none", "required")


def chat_body(request: CompletionRequest, *, stream: bool = False) -> dict[str, object]:
    """Builds the body of a chat completion.

    Args:
        stream: whether to request a stream, with usage in its last event.

    Raises InputError for an `extra` field that has a parameter of its own.
    """
    body: dict[str, object] = {
        "model": request.asked_route,
        "messages": _build_messages(request),
        **_drop_unset(
            {
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "stop": list(request.stop) or None,
                "seed": request.seed,
                "reasoning_effort": request.effort or None,
                "response_format": _build_response_format(request),
                "prompt_cache_key": request.cache_key or None,
                "user": request.user or None,
                "parallel_tool_calls": request.parallel_tools if request.tools else None,
                "tools": [_build_tool(tool) for tool in request.tools] or None,
                "tool_choice": _build_choice(request.tool_choice),
                "logprobs": None if request.top_logprobs is None else True,
                "top_logprobs": request.top_logprobs or None,
            }
        ),
    }
    if request.thinking_tokens is not None:
        body["thinking"] = {
            "type": "enabled",
            "budget_tokens": request.thinking_tokens,
        }
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return _add_extra(body, request.extra)


def embedding_body(request: EmbeddingRequest) -> dict[str, object]:
    """Builds the body of an embeddings request. Raises as `chat_body`."""
    body: dict[str, object] = {
        "model": request.asked_route,
        "input": list(request.inputs),
    }
    body |= _drop_unset({"dimensions": request.dimensions, "user": request.user or None})
    return _add_extra(body, request.extra)


def request_headers(caller: Caller) -> dict[str, str]:
    """Builds the headers that only the router reads. Raises InputError for an invalid value."""
    timeout = "" if caller.timeout_s is None else f"{caller.timeout_s:g}"
    headers = {
        "x-swapproof-sticky": caller.sticky,
        "x-swapproof-task": caller.task,
        "x-swapproof-kind": caller.kind,
        "x-swapproof-timeout": timeout,
    }
    for name, value in headers.items():
        if not value.isprintable():
            raise InputError(f"caller: {name} must be one printable line, not {value!r}")
    return {name: value for name, value in headers.items() if value}


def _drop_unset(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _add_extra(body: dict[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    """Adds the request's further fields. Raises InputError for a field that the body has
    already.
    """
    duplicates = sorted(body.keys() & extra.keys())
    if duplicates:
        raise InputError(
            f"extra: {', '.join(duplicates)} is a parameter too; give it only as the parameter"
        )
    return {**body, **extra}


def _build_messages(request: CompletionRequest) -> list[dict[str, object]]:
    """Builds the messages; the request's `system` comes first."""
    system = (Message("system", request.system),) if request.system else ()
    return [_build_message(message) for message in (*system, *request.messages)]


def _build_message(message: Message) -> dict[str, object]:
    content: object = message.content
    if not isinstance(message.content, str):
        content = [_build_part(part) for part in message.content]
    chat: dict[str, object] = {"role": message.role, "content": content}
    if message.tool_requests:
        chat["content"] = content or None
        chat["tool_calls"] = _build_calls(message.tool_requests)
    if message.response_to:
        chat["tool_call_id"] = message.response_to
    return {**chat, **message.extra}


def _build_part(part: Text | Image) -> dict[str, object]:
    if isinstance(part, Image):
        image = {"url": part.url, "detail": part.detail or None}
        return {"type": "image_url", "image_url": _drop_unset(image)}
    text: dict[str, object] = {"type": "text", "text": part.text}
    if part.cache:
        text["cache_control"] = {"type": "ephemeral"}
    return text


def _build_calls(requests: Sequence[ToolRequest]) -> list[dict[str, object]]:
    return [
        {
            **request.extra,
            "id": request.id,
            "type": "function",
            "function": {
                "name": request.name,
                "arguments": request.arguments_text or "{}",
            },
        }
        for request in requests
    ]


def _build_tool(tool: ToolDefinition) -> dict[str, object]:
    function = {
        "name": tool.name,
        "description": tool.description or None,
        "parameters": dict(tool.parameters),
        "strict": tool.strict,
    }
    return {"type": "function", "function": _drop_unset(function)}


def _build_choice(choice: str) -> object:
    """Builds the tool choice. Any word besides OpenAI's three is the name of a tool."""
    if choice in _CHOICE_WORDS or not choice:
        return choice or None
    return {"type": "function", "function": {"name": choice}}


def _build_response_format(request: CompletionRequest) -> object:
    """Builds the form of structured output; None for plain text."""
    if request.json_output:
        return {"type": "json_object"}
    output = request.output_schema
    if output is None:
        return None
    schema = {
        "name": output.name,
        "schema": dict(output.schema),
        "strict": output.strict,
    }
    return {"type": "json_schema", "json_schema": schema}
