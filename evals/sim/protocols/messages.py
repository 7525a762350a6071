"""`POST /v1/messages` reads requests and writes answers in Anthropic's shapes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from evals.sim.protocols.chat_completions import PIECE, Completion
from evals.sim.protocols.dialect import named_event
from evals.sim.protocols.requests import (
    ChatRequest,
    invalid,
    model_name,
    parse_limit,
    parse_tool_choice,
    text_of,
)

PING = named_event({"type": "ping"})
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def parse(data: Mapping[str, Any]) -> ChatRequest:
    """Parses the body of a request for messages. Raises Refused (400) where the API would."""
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        invalid("messages: at least one message is required", "messages")
    if not all(
        isinstance(m, dict) and m.get("role") in {"user", "assistant"} for m in messages
    ):
        invalid("messages: each needs a role, which is 'user' or 'assistant'", "messages")
    limit = parse_limit(data, "max_tokens")
    if limit is None:
        invalid("max_tokens: Field required", "max_tokens")
    texts = tuple(text_of(message.get("content")) for message in messages)
    asked = [t for m, t in zip(messages, texts, strict=True) if m["role"] == "user"]
    system = text_of(data.get("system"))
    tools = parse_tools(data.get("tools"))
    choice, forced = parse_tool_choice(chats_choice(data.get("tool_choice")), tools)
    output = data.get("output_config")
    return ChatRequest(
        model=model_name(data),
        prompt=asked[-1] if asked else texts[-1],
        texts=(system, *texts) if system else texts,
        system=system,
        stream=data.get("stream") is True,
        include_usage=True,
        max_tokens=limit,
        seed=0,
        json_asked=isinstance(output, dict) and output.get("format") is not None,
        tools=tools,
        tool_choice=choice,
        forced_tool=forced,
        after_tool=has_result(messages[-1].get("content")),
        given=frozenset(data),
    )


def parse_tools(tools: object) -> dict[str, Mapping[str, Any]]:
    if tools is None:
        return {}
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        invalid("tools: must be a list of objects", "tools")
    parsed: dict[str, Mapping[str, Any]] = {}
    for n, tool in enumerate(tools):
        if not isinstance(tool.get("name"), str):
            invalid(f"tools.{n}.name: Field required", "tools")
        schema = tool.get("input_schema")
        parsed[tool["name"]] = schema if isinstance(schema, dict) else {}
    return parsed


def chats_choice(choice: object) -> object:
    """The choice the way a chat has it."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return {"any": "required"}.get(str(choice.get("type")), choice.get("type"))


def has_result(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )


def body(answer: Completion) -> dict[str, Any]:
    """The answer to a request that does not stream. Its id says that it is simulated."""
    return {
        **frame(answer),
        "content": [block(answer)],
        "stop_reason": STOP_REASONS[answer.finish_reason],
        "usage": usage(answer.prompt_tokens, answer.completion_tokens),
    }


def frame(answer: Completion) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.fingerprint}_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(answer.prompt_tokens, 1),
    }


def usage(given: int, made: int) -> dict[str, int]:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": made,
    }


def block(answer: Completion) -> dict[str, Any]:
    if answer.call is None:
        return {"type": "text", "text": answer.text}
    arguments = json.loads(answer.call.arguments)
    return {
        "type": "tool_use",
        "id": answer.call.id,
        "name": answer.call.name,
        "input": arguments,
    }


def error(status: int, message: str, code: str | None, _param: str | None) -> dict[str, Any]:
    """Writes an error as Anthropic does. code: the type, where it is not the status's own."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    if code and code.endswith("_error"):
        kind = code
    return {"type": "error", "error": {"type": kind, "message": message}}


def error_event(error_: Mapping[str, Any]) -> bytes:
    return named_event(error_)


class MessageStreamEvents:
    """The stream of one answer: its head, a delta for each word, its end."""

    def __init__(self, answer: Completion, _request: ChatRequest) -> None:
        self._answer = answer

    def opening(self) -> bytes:
        empty: dict[str, Any] = {"input": {}} if self._answer.call else {"text": ""}
        start = {"index": 0, "content_block": block(self._answer) | empty}
        return (
            named_event({"type": "message_start", "message": frame(self._answer)})
            + named_event({"type": "content_block_start", **start})
            + PING
        )

    def content(self) -> Iterator[bytes]:
        call = self._answer.call
        for piece in PIECE.findall(call.arguments if call else self._answer.text):
            delta = (
                {"type": "input_json_delta", "partial_json": piece}
                if call
                else {"type": "text_delta", "text": piece}
            )
            yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def finish(self) -> bytes:
        answer = self._answer
        stop = {"stop_reason": STOP_REASONS[answer.finish_reason], "stop_sequence": None}
        end = usage(answer.prompt_tokens, answer.completion_tokens)
        return (
            named_event({"type": "content_block_stop", "index": 0})
            + named_event({"type": "message_delta", "delta": stop, "usage": end})
            + named_event({"type": "message_stop"})
        )
