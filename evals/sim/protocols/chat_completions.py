"""Writes simulated answers to `POST /v1/chat/completions`, as a body or as stream events, in
OpenAI's shapes. `Completion` is the answer that all endpoints write from, cut at `max_tokens`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from evals.sim import text_numbers
from evals.sim.protocols.http_exchange import encoded
from evals.sim.protocols.requests import ChatRequest
from evals.sim.tool_calls import SimulatedToolCall

PIECE = re.compile(r"\s*\S+\s*")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with what frames it. text is empty when the model calls a tool."""

    id: str
    created: int
    model: str
    fingerprint: str
    text: str
    call: SimulatedToolCall | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class StreamFrames(NamedTuple):
    """The bytes of one streamed answer."""

    opening: bytes
    content: list[bytes]  # an event for each piece
    finish: bytes


def limited(request: ChatRequest, text: str) -> tuple[str, str]:
    """Cuts a text to the request's `max_tokens`: (text, finish_reason)."""
    limit = request.max_tokens
    if limit is None or text_numbers.count_tokens(text) <= limit:
        return text, "stop"
    return text_numbers.cut(text, limit), "length"


def body(answer: Completion) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.call:
        message["tool_calls"] = [called(answer.call)]
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": answer.fingerprint,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
        ],
        "usage": answer.usage,
    }


def called(call: SimulatedToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def event(data: Mapping[str, Any]) -> bytes:
    """Writes an event; its name is its data's `type`, where it has one."""
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + encoded(data) + b"\n\n"


def stream(answer: Completion, request: ChatRequest) -> StreamFrames:
    """The stream of one answer: role, a chunk for each word, finish."""
    call, frame = answer.call, body(answer) | {"object": "chat.completion.chunk"}
    usage = frame.pop("usage")

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        no_usage = {"usage": None} if request.include_usage else {}
        return event({**frame, "choices": [choice], **no_usage})

    pieces = [{"content": piece} for piece in PIECE.findall(answer.text)]
    if call:
        head = {"index": 0, **called(call), "function": {"name": call.name, "arguments": ""}}
        parts = [
            {"index": 0, "function": {"arguments": p}} for p in PIECE.findall(call.arguments)
        ]
        pieces = [{"tool_calls": [part]} for part in (head, *parts)]
    end = chunk({}, answer.finish_reason)
    if request.include_usage:
        end += event({**frame, "choices": [], "usage": usage})
    opening = chunk({"role": "assistant", "content": None if call else ""})
    return StreamFrames(opening, [chunk(piece) for piece in pieces], end + DONE)
