"""`StrictFieldsTransport` takes out of a chat request the fields that its provider (OpenAI,
Azure, Groq, Mistral) would refuse as unknown, and names them in the reply's `dropped`.

A conversation that began elsewhere carries what only its first provider understands: marks for
a cache, signed thoughts. Where there is none of it every byte goes through as it came.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from router.upstream.transport import (
    BegunCall,
    Transport,
    UpstreamReply,
    UpstreamRequest,
    begin_call,
)

FOREIGN: Final = (
    "cache_control",
    "thinking_blocks",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
)
_QUOTED: Final = tuple((name, f'"{name}"'.encode()) for name in FOREIGN)


class StrictFieldsTransport:
    """Leaves out fields on the way to a strict provider. wire: what carries the request. The
    reply's `dropped` names what was taken out.
    """

    def __init__(self, wire: Transport) -> None:
        self._wire = wire

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        # Inside a text each quote has a backslash before it.
        if not any(quoted in request.body for _, quoted in _QUOTED):
            return await self._wire.send(request)
        body, dropped = without_unknown_fields(request.body)
        reply = await self._wire.send(replace(request, body=body))
        return PlainReply(reply, dropped) if dropped else reply

    def begin(self, request: UpstreamRequest) -> BegunCall | None:
        """Begins a call as `begin_call` does; None for a request that has such fields."""
        if any(quoted in request.body for _, quoted in _QUOTED):
            return None
        return begin_call(self._wire, request)

    async def aclose(self) -> None:
        """The wire is another's to close."""


def without_unknown_fields(body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The chat without what is foreign to it, and the names of that."""
    chat = json.loads(body)
    found: dict[str, None] = {}
    messages = chat.get("messages")
    for message in messages if isinstance(messages, list) else ():
        _cleared(message, found)
        if isinstance(message, dict):
            for part in _items(message.get("content")) + _items(message.get("tool_calls")):
                _cleared(part, found)
    for tool in _items(chat.get("tools")):
        _cleared(tool, found)
        if isinstance(tool, dict):
            _cleared(tool.get("function"), found)
    _cleared(chat, found)
    if not found:
        return body, ()
    return json.dumps(chat, separators=(",", ":")).encode(), tuple(found)


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _cleared(value: object, found: dict[str, None]) -> None:
    if isinstance(value, dict):
        for name in FOREIGN:
            if value.pop(name, None) is not None:
                found[name] = None


class PlainReply:
    """The provider's reply as it came, with the names of the fields that were taken out."""

    def __init__(self, reply: UpstreamReply, dropped: tuple[str, ...]) -> None:
        self.dropped = dropped
        self._reply = reply

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return self._reply.headers

    async def body(self) -> bytes:
        return await self._reply.body()

    def chunks(self) -> AsyncIterator[bytes]:
        return self._reply.chunks()

    async def aclose(self) -> None:
        await self._reply.aclose()
