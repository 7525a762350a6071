"""A real HTTP provider plays a scripted turn per model, and keeps the requests."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.providers.raw_server import end_server
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)

EVENTS = {"content-type": "text/event-stream"}


@dataclass
class ReceivedRequest:
    headers: dict[str, str]
    body: bytes
    connection: int
    path: str
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def model(self) -> str:
        return str(self.json["model"])


class Upstream:
    """`turns`: by model; a function of the request, or one turn for all. It has no list of
    models.

    hangs_up: it closes every connection after its answer, without having said so.
    """

    def __init__(self) -> None:
        self.turns: dict[str, ScriptedTurn | Callable[[ReceivedRequest], ScriptedTurn]] = {}
        self.asked: list[ReceivedRequest] = []
        self.port = 0
        self.hangs_up = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked_for(self, model: str) -> list[ReceivedRequest]:
        return [request for request in self.asked if request.model == model]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")[1:-2]
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        port = writer.get_extra_info("peername")[1]
        asked = ReceivedRequest(headers, body, port, head.split(" ", 2)[1])
        if not body:
            # The control plane reads the list of models on its own, at any time.
            return await play(ScriptedTurn(404), asked, reader, writer)
        self.asked.append(asked)
        turn = self.turns[asked.model]
        chosen = turn if isinstance(turn, ScriptedTurn) else turn(asked)
        return await play(chosen, asked, reader, writer) and not self.hangs_up


async def play(
    turn: ScriptedTurn,
    asked: ReceivedRequest,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Whether the connection can be used again."""
    if turn.hang:
        return await _until_gone(asked, reader)
    if turn.steps[:1] == (ScriptedEvent.RESET,):
        writer.transport.abort()
        return False
    head = f"HTTP/1.1 {turn.status} X\r\ntransfer-encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in turn.headers.items())
    writer.write(head.encode() + b"\r\n")
    for step in turn.steps:
        match step:
            case bytes():
                writer.write(f"{len(step):x}\r\n".encode() + step + b"\r\n")
                await writer.drain()
            case ScriptedEvent.RESET:
                await asyncio.sleep(0.05)  # let what was written arrive first
                writer.transport.abort()
                return False
            case ScriptedEvent.HANG:
                return await _until_gone(asked, reader)
            case _:
                await asyncio.sleep(step)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _until_gone(asked: ReceivedRequest, reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        await reader.read()
    asked.left.set()
    return False


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    begun = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        upstream.port = server.sockets[0].getsockname()[1]
        begun.set()
        await stopping.wait()
        await end_server(server)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert begun.wait(60)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(60)
        loop.close()


def completion(
    text: str = "hello",
    *,
    model: str = "m-1",
    **more: object,
) -> ScriptedTurn:
    """A whole answer, written with odd spacing, so that equal bytes mean something."""
    extra = "".join(f', "{name}":  {json.dumps(value)}' for name, value in more.items())
    body = (
        f'{{ "id" :"c-1", "object":"chat.completion","created":1.0e9, "model" : "{model}", '
        f'"choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant",'
        f'"content":{json.dumps(text)} }} }}], '
        f'"usage":{{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}{extra} }}\n'
    )
    return ScriptedTurn(steps=(body.encode(),))


def error(
    status: int,
    message: str = "no",
    code: str | None = None,
) -> ScriptedTurn:
    body = {
        "error": {
            "message": message,
            "type": "t",
            "param": None,
            "code": code,
        }
    }
    return ScriptedTurn(status=status, steps=(json.dumps(body).encode(),))


def event(
    delta: dict[str, object] | None = None,
    finish: str | None = None,
    *,
    index: int = 0,
) -> bytes:
    choice = {
        "index": index,
        "delta": delta or {},
        "finish_reason": finish,
    }
    data = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
    }
    return f"data: {json.dumps({**data, 'choices': [choice]})}\n\n".encode()


ROLE = event({"role": "assistant", "content": ""})
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def streamed(*words: str) -> ScriptedTurn:
    deltas = [event({"content": word}) for word in words]
    return ScriptedTurn(
        headers=EVENTS,
        steps=(ROLE, *deltas, event(finish="stop"), USAGE, DONE),
    )


def broken_stream(*steps: bytes | float | ScriptedEvent) -> ScriptedTurn:
    return ScriptedTurn(headers=EVENTS, steps=steps)


def gzipped(turn: ScriptedTurn) -> ScriptedTurn:
    body = b"".join(step for step in turn.steps if isinstance(step, bytes))
    headers = {**turn.headers, "content-encoding": "gzip"}
    return ScriptedTurn(turn.status, headers, (gzip.compress(body),))
