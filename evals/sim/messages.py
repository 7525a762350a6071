"""The simulator's `POST /v1/messages`, in Anthropic's shapes.

It translates to and from the chat of `chat_completions`; `MESSAGES` is its only export.
"""

import json
from collections.abc import Mapping
from typing import Any

from evals.sim.chat_completions import (
    ChatRequest,
    Completion,
    EndpointDialect,
    Refused,
    event,
    function_tools,
    invalid,
    parse_chat,
    response_format,
)

PING = event({"type": "ping"})
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}
ROLES = ("user", "assistant", "system")
TOOL_CHOICES = {
    "any": "required",
    "auto": "auto",
    "none": "none",
}
ERROR_TYPES = {
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
    """Parses a request, and gives a message with a tool's result the role `tool`. Raises
    Refused.
    """
    messages = data.get("messages")
    if not messages or not isinstance(messages, list) or not all(map(_has_role, messages)):
        invalid(
            f"messages: send at least one, each with one of the roles {', '.join(ROLES)}",
            "messages",
        )
    if data.get("max_tokens") is None:
        invalid("max_tokens: Field required", "max_tokens")
    system = [{"role": "system", "content": data["system"]}] if data.get("system") else []
    choice = data.get("tool_choice")
    output = data.get("output_config")
    is_serial = False
    if isinstance(choice, dict):
        is_serial = choice.get("disable_parallel_tool_use") is True
        named_tool = {"function": {"name": choice.get("name")}}
        choice = (
            named_tool
            if choice.get("type") == "tool"
            else TOOL_CHOICES.get(str(choice.get("type")))
        )
    return parse_chat(
        {
            "model": data.get("model"),
            "messages": [*system, *map(_message, messages)],
            "max_tokens": data["max_tokens"],
            "stream": data.get("stream"),
            "tools": function_tools(data.get("tools"), "input_schema"),
            "tool_choice": choice,
            "parallel_tool_calls": not is_serial,
            "response_format": response_format(
                output.get("format") if isinstance(output, dict) else None
            ),
        }
    )


def _has_role(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ROLES


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else ()
    kinds = [block.get("type") for block in blocks if isinstance(block, dict)]
    return {**message, "role": "tool"} if "tool_result" in kinds else message


def body(answer: Completion) -> dict[str, Any]:
    """Writes a whole answer."""
    return {
        "id": f"msg_{answer.fingerprint}_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": blocks(answer),
        "stop_reason": STOP_REASONS[answer.finish_reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": answer.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answer.completion_tokens,
        },
    }


def blocks(answer: Completion) -> list[dict[str, Any]]:
    return [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": json.loads(call.arguments),
        }
        for call in answer.calls
    ] or [{"type": "text", "text": answer.text}]


def error(refusal: Refused) -> dict[str, Any]:
    """Writes an error. Its type is the code if that ends in `_error`, and otherwise follows
    from the status.
    """
    kind = ERROR_TYPES.get(
        refusal.status,
        "invalid_request_error" if refusal.status < 500 else "api_error",
    )
    if refusal.code and refusal.code.endswith("_error"):
        kind = refusal.code
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}


def block_event(
    phase: str,
    index: int,
    **fields: object,
) -> bytes:
    return event(
        {
            "type": f"content_block_{phase}",
            "index": index,
            **fields,
        }
    )


def stream(answer: Completion, _request: ChatRequest) -> list[bytes]:
    """Writes the events of a streamed answer: one block for the text or for each call, then the
    final events.
    """
    message = body(answer)
    empty_content: dict[str, Any] = {"input": {}} if answer.calls else {"text": ""}
    key, kind = ("partial_json", "input_json") if answer.calls else ("text", "text")
    start_fields: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "usage": {**message["usage"], "output_tokens": 1},
    }
    stop_fields = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    frames: list[bytes] = []
    for index, (block, pieces) in enumerate(
        zip(message["content"], answer.pieces, strict=True)
    ):
        frames += [
            block_event("start", index, content_block=block | empty_content),
            *(
                block_event(
                    "delta",
                    index,
                    delta={"type": f"{kind}_delta", key: piece},
                )
                for piece in pieces
            ),
            block_event("stop", index),
        ]
    frames[0] = (
        event({"type": "message_start", "message": message | start_fields}) + frames[0] + PING
    )
    end = {
        "type": "message_delta",
        "delta": stop_fields,
        "usage": message["usage"],
    }
    frames[-1] += event(end) + event({"type": "message_stop"})
    return frames


MESSAGES = EndpointDialect(parse, body, stream, error, ping=PING)
