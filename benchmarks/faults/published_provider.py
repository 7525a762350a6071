"""A provider that breaks as a published catalogue of fault scenarios says (failoverbench v0.1).

The fault is chosen by the model's name, `s01` to `s16`; `ok` always answers. Its own account of
what it was asked is in `asked`.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

WORDS: Final = tuple(f"word{number}" for number in range(60))
CUT_AFTER, STALL_AFTER, BAD_AT = 40, 20, 10
SLOW_S, STALL_S, SILENT_S, DOWN_S, TOKEN_S = 20.0, 30.0, 120.0, 60.0, 0.015
BAD_EVENT: Final = b'data: {"id": "c", "choices": [{"delta": {"content": \n\n'
OVERLOADED: Final = (503, "overloaded", "")
LIMITED: Final = (429, "rate_limit_exceeded", "")


class Provider:
    """asked: model and seconds since `reset`, of requests of users; checks are left out."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.answered: list[tuple[str, float]] = []
        self._began = time.monotonic()
        self._tries: Counter[str] = Counter()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def times(self, model: str) -> list[float]:
        return [at for name, at in self.asked if name == model]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                if not await self._answer(body, reader, writer):
                    break
        writer.close()

    async def _answer(
        self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection can be used again."""
        model = body["model"]
        if body.get("max_tokens") != 1:  # a health check is nobody's request
            self.asked.append((model, self.now_s))
        self._tries[model] += 1
        refusal = self._refusal(model, first=self._tries[model] == 1)
        if refusal is not None:
            _refuse(writer, *refusal)
            return True
        if model == "s05" and self._tries[model] == 1:
            writer.transport.abort()
            return False
        if model == "s06":
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), SILENT_S)
            return False
        self.answered.append((model, self.now_s))
        if body.get("stream"):
            return await _stream(model, body, writer)
        answer = {"id": "c", "object": "chat.completion", "model": model, "choices": [
            {"index": 0, "finish_reason": "stop",
             "message": {"role": "assistant", "content": " ".join(WORDS)}}]}  # fmt: skip
        _send(writer, 200, json.dumps(answer).encode())
        return True

    def _refusal(self, model: str, *, first: bool) -> tuple[int, str, str] | None:
        """Status, code and Retry-After."""
        always = {
            "s02": LIMITED,
            "s04": OVERLOADED,
            "s12": (400, "context_length_exceeded", ""),
            "s13": (400, "content_policy_violation", ""),
            "s16": OVERLOADED,
        }
        once = {"s01": (429, "rate_limit_exceeded", "2"), "s03": (500, "server_error", "")}
        if model == "s15" and self.now_s < DOWN_S:
            return OVERLOADED
        return always.get(model) or (once.get(model) if first else None)


def _refuse(writer: asyncio.StreamWriter, status: int, code: str, retry_after: str) -> None:
    error = {"message": code, "type": "error", "code": code, "param": None}
    more = f"retry-after: {retry_after}\r\n" if retry_after else ""
    _send(writer, status, json.dumps({"error": error}).encode(), more)


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, more: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def _stream(model: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
    def send(piece: bytes) -> None:
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def event(delta: dict[str, str], **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
        return _data({"id": "c", "object": "chat.completion.chunk", "model": model,
                      "choices": [choice]})  # fmt: skip

    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n")
    if model == "s07":
        await asyncio.sleep(SLOW_S)
    send(event({"role": "assistant", "content": ""}))
    for number, word in enumerate(WORDS):
        if model in ("s08", "s14") and number == CUT_AFTER:
            return False
        if model == "s09" and number == STALL_AFTER:
            await asyncio.sleep(STALL_S)
            return False
        if model == "s10" and number == BAD_AT:
            send(BAD_EVENT)
        send(event({"content": f"{' ' if number else ''}{word}"}))
        await writer.drain()
        await asyncio.sleep(TOKEN_S)
    send(event({}, finish_reason="stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": 60, "total_tokens": 69}
        send(_data({"id": "c", "model": model, "choices": [], "usage": usage}))
    if model != "s11":
        send(b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
