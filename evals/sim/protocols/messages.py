"""`POST /v1/messages` reads requests and writes answers in Anthropic's shapes."""

import json
from collections.abc import Mapping
from typing import Any

from evals.sim.protocols.chat_completions import PIECE, Completion, StreamFrames, event
from evals.sim.protocols.requests import ChatRequest, chat_tools, invalid, parse_chat

PING = event({"type": "ping"})
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
CHOICES = {"any": "required", "auto": "auto", "none": "none"}
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
    """Reads the body of a request for messages as a chat's. Raises Refused (400)."""
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        invalid("messages: at least one message is required", "messages")
    if not all(
        isinstance(m, dict) and m.get("role") in {"user", "assistant"} for m in messages
    ):
        invalid("messages: each needs a role, which is 'user' or 'assistant'", "messages")
    if data.get("max_tokens") is None:
        invalid("max_tokens: Field required", "max_tokens")
    said = [{**m, "role": "tool"} if _has_result(m) else m for m in messages]
    system = [{"role": "system", "content": data["system"]}] if data.get("system") else []
    choice, output = data.get("tool_choice"), data.get("output_config")
    if isinstance(choice, dict):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        choice = named if choice.get("type") == "tool" else CHOICES.get(str(choice.get("type")))
    chat = {
        "model": data.get("model"),
        "messages": [*system, *said],
        "max_tokens": data["max_tokens"],
        "stream": data.get("stream"),
        "stream_options": {"include_usage": True},
        "tools": chat_tools(data.get("tools"), "input_schema"),
        "tool_choice": choice,
    }
    if isinstance(output, dict) and output.get("format") is not None:
        chat["response_format"] = {"type": "json_schema"}
    return parse_chat(chat)


def _has_result(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
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


def stream(answer: Completion, _request: ChatRequest) -> StreamFrames:
    """The stream of one answer: its head, a delta for each word, its end."""
    call = answer.call
    empty: dict[str, Any] = {"input": {}} if call else {"text": ""}
    key, kind = ("partial_json", "input_json") if call else ("text", "text")
    stop = {"stop_reason": STOP_REASONS[answer.finish_reason], "stop_sequence": None}
    end = usage(answer.prompt_tokens, answer.completion_tokens)
    opening = (
        event({"type": "message_start", "message": frame(answer)})
        + event(
            {"type": "content_block_start", "index": 0, "content_block": block(answer) | empty}
        )
        + PING
    )
    deltas = [
        {"type": f"{kind}_delta", key: piece}
        for piece in PIECE.findall(call.arguments if call else answer.text)
    ]
    finish = (
        event({"type": "content_block_stop", "index": 0})
        + event({"type": "message_delta", "delta": stop, "usage": end})
        + event({"type": "message_stop"})
    )
    pieces = [event({"type": "content_block_delta", "index": 0, "delta": d}) for d in deltas]
    return StreamFrames(opening, pieces, finish)
