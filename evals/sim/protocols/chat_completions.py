"""Writes simulated answers to `POST /v1/chat/completions`, as a body or as stream events, in
OpenAI's shapes. `Completion` is the answer that all endpoints write from, cut at `max_tokens`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evals.sim import token_count
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


def limited(request: ChatRequest, text: str) -> tuple[str, str]:
    """Cuts a text to the request's `max_tokens`: (text, finish_reason)."""
    limit = request.max_tokens
    if limit is None or token_count.estimate(text) <= limit:
        return text, "stop"
    return token_count.cut(text, limit), "length"


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


def event(data: object) -> bytes:
    return b"data: " + encoded(data) + b"\n\n"


class ChatStreamEvents:
    """The stream of one answer: role, content, finish; each method gives ready bytes."""

    def __init__(self, answer: Completion, *, include_usage: bool) -> None:
        self._answer = answer
        self._include_usage = include_usage
        self._frame: dict[str, Any] = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "system_fingerprint": answer.fingerprint,
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._frame, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return event(chunk)

    def opening(self) -> bytes:
        content = None if self._answer.call else ""
        return self._chunk({"role": "assistant", "content": content})

    def content(self) -> Iterator[bytes]:
        """Yields a chunk a word; of a tool call its head, then its arguments in pieces."""
        call = self._answer.call
        if call is None:
            for piece in PIECE.findall(self._answer.text):
                yield self._chunk({"content": piece})
            return
        head = {"index": 0, **called(call), "function": {"name": call.name, "arguments": ""}}
        yield self._chunk({"tool_calls": [head]})
        for piece in PIECE.findall(call.arguments):
            part = {"index": 0, "function": {"arguments": piece}}
            yield self._chunk({"tool_calls": [part]})

    def finish(self) -> bytes:
        """The finish reason, the usage if it was asked for, and the end mark."""
        end = self._chunk({}, self._answer.finish_reason)
        if self._include_usage:
            end += event({**self._frame, "choices": [], "usage": self._answer.usage})
        return end + DONE
