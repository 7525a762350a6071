"""Writes simulated answers to `POST /v1/chat/completions`, as a body or as stream events, in
OpenAI's shapes. `Completion` is the answer that all endpoints write from.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.sim.answers import SimulatedToolCall
from evals.sim.protocols.http_exchange import encoded
from evals.sim.protocols.requests import ChatRequest

PIECE = re.compile(r"\s*\S+\s*")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with what frames it. text is empty when the model calls tools."""

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
        """What a stream sends one by one: the words, or those of each call's arguments."""
        texts = [call.arguments for call in self.calls] or [self.text]
        return [PIECE.findall(text) for text in texts]


def body(answer: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [called(call, call.arguments) for call in answer.calls]
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


def choice(name: str, content: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, name: content, "logprobs": None, "finish_reason": reason}


def called(call: SimulatedToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def event(data: Mapping[str, Any]) -> bytes:
    """Writes an event; its name is its data's `type`, where it has one."""
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + encoded(data) + b"\n\n"


def stream(answer: Completion, request: ChatRequest) -> list[bytes]:
    """The stream of one answer: role, a chunk for each word, finish."""
    frame = body(answer) | {"object": "chat.completion.chunk"}
    usage = frame.pop("usage")
    no_usage = {"usage": None} if request.include_usage else {}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return event({**frame, "choices": [choice("delta", delta, reason)], **no_usage})

    deltas: list[dict[str, Any]] = []
    if not answer.calls:
        deltas = [{"content": piece} for piece in answer.pieces[0]]
    for number, call in enumerate(answer.calls):
        pieces = answer.pieces[number]
        parts = [called(call, ""), *({"function": {"arguments": p}} for p in pieces)]
        deltas += [{"tool_calls": [{"index": number, **part}]} for part in parts]
    end = chunk({}, answer.finish_reason)
    if request.include_usage:
        end += event({**frame, "choices": [], "usage": usage})
    opening = chunk({"role": "assistant", "content": None if answer.calls else ""})
    return [opening, *map(chunk, deltas), end + DONE]
