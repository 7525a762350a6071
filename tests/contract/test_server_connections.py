import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from harness.frame.calm_server import CalmServer
from router.frame.asgi import (
    BODY,
    HEAD_FACTS,
    ON_LEAVING,
    Message,
    Receive,
    Scope,
    Send,
    piece_writer,
)
from router.server.connection import Connection, ConnectionState
from tests.support.router.event_loops import on_both_loops

Ask = Callable[[Scope, Receive, Send], Awaitable[None]]
GET = b"GET /a%20b?c=d HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
CLOSING = GET.replace(b"host", b"connection: close\r\nhost")
LARGE = 8 * 1024 * 1024


@dataclass
class Served:
    """One server with one application. ended: how each request's call of it ended."""

    port: int
    server: CalmServer
    ended: list[BaseException | None] = field(default_factory=list)

    async def talk(self, *parts: bytes) -> bytes:
        """All that comes until the server closes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)


@asynccontextmanager
async def serving(protocol: type[asyncio.Protocol], app: Ask) -> AsyncIterator[Served]:
    async def noted(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as error:
            served.ended.append(error)
            raise
        served.ended.append(None)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        noted,
        http=protocol,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=10,
    )
    served = Served(listener.getsockname()[1], CalmServer(config))
    served.server.server_state = ConnectionState()  # as the router's own server has
    running = asyncio.create_task(served.server.serve([listener]))
    async with asyncio.timeout(60):
        await until(lambda: served.server.started)
        try:
            yield served
        finally:
            served.server.should_exit = True
            await running


async def answer(
    send: Send,
    body: bytes,
    *headers: tuple[bytes, bytes],
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [*headers, length],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def whole(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def echo(
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    body = await whole(receive)
    said = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {len(body)} "
    await answer(send, said.encode() + body[:20])


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for knows no events
        await asyncio.sleep(0.01)


@on_both_loops
async def test_a_client_that_does_not_read_holds_the_application_up() -> None:
    sent = 0

    async def flood(
        scope: Scope,  # noqa: ARG001
        receive: Receive,  # noqa: ARG001
        send: Send,
    ) -> None:
        nonlocal sent
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [],
            }
        )
        while sent < 1000:
            await send(
                {
                    "type": "http.response.body",
                    "body": b"x" * 65536,
                    "more_body": True,
                }
            )
            sent += 1
        await send({"type": "http.response.body", "body": b"END"})

    async with serving(Connection, flood) as served:
        connected = socket.create_connection(("127.0.0.1", served.port))
        connected.sendall(GET)
        await asyncio.sleep(0.5)
        held = sent
        before = -1
        while before != held:
            before = held
            await asyncio.sleep(0.2)
            held = sent
        assert held < 1000
        connected.settimeout(0)
        loop = asyncio.get_running_loop()
        tail = b""
        while b"END" not in tail:
            tail = tail[-10:] + await loop.sock_recv(connected, 1 << 20)
        connected.close()
    assert sent == 1000


@on_both_loops
async def test_a_body_that_nobody_reads_is_left_to_the_network() -> None:
    go = asyncio.Event()

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async with serving(Connection, app) as served:
        _, writer = await served.connect()
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(POST % LARGE + b"x" * LARGE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.drain()
        go.set()
        await writer.drain()
        await until(lambda: served.ended)
        writer.close()
    assert served.ended == [None]


@on_both_loops
async def test_an_answer_before_the_bodys_end_leaves_the_connection_in_step() -> None:
    async def hasty(
        scope: Scope,
        receive: Receive,  # noqa: ARG001
        send: Send,
    ) -> None:
        await answer(send, scope["method"].encode())

    async with serving(Connection, hasty) as served:
        reader, writer = await served.connect()
        writer.write(POST % 300_000)
        await reader.readuntil(b"\r\n\r\nPOST")
        writer.write(b"GET / HTTP/1.1\r\n" * 18_750)  # the body, whatever it looks like
        writer.write(GET)
        rest = await reader.readuntil(b"\r\n\r\nGET")
        writer.close()
    assert rest.count(b"HTTP/1.1 200") == 1


@on_both_loops
@pytest.mark.req("B8")
async def test_an_answer_that_breaks_off_is_never_made_to_look_whole() -> None:
    async def broken(
        scope: Scope,  # noqa: ARG001
        receive: Receive,  # noqa: ARG001
        send: Send,
    ) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [],
            }
        )
        await send(
            {
                "type": "http.response.body",
                "body": b"abc",
                "more_body": True,
            }
        )
        raise ValueError("a bug")

    async def short(
        scope: Scope,  # noqa: ARG001
        receive: Receive,  # noqa: ARG001
        send: Send,
    ) -> None:
        headers = [(b"content-length", b"10")]
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": headers,
            }
        )
        await send({"type": "http.response.body", "body": b"abc"})

    for app, error in ((broken, ValueError), (short, RuntimeError)):
        async with serving(Connection, app) as served:
            out = await served.talk(GET)
        assert not out.endswith(b"0\r\n\r\n")
        assert [type(error_) for error_ in served.ended] == [error]


@on_both_loops
async def test_what_is_broken_is_told_so_after_the_answers_before_it() -> None:
    async def slow(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        await asyncio.sleep(0.05)
        await echo(scope, receive, send)

    async with serving(Connection, slow) as served:
        out = await served.talk(POST % 1 + b"1" + b"nonsense\r\n\r\n")

    assert out.count(b"HTTP/1.1 ") == 2
    assert out.index(b"POST /  1 1") < out.index(b"HTTP/1.1 400")


@on_both_loops
async def test_who_wants_to_be_told_of_a_client_leaving_is_told_once() -> None:
    told: list[str] = []
    event = asyncio.Event()

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        assert scope[BODY] == b"x"
        assert await whole(receive) == b"x"
        left = asyncio.Event()

        def note() -> None:
            told.append("left")
            left.set()

        scope[ON_LEAVING](note)
        event.set()
        await left.wait()
        scope[ON_LEAVING](None)
        scope[ON_LEAVING](lambda: told.append("left before"))
        await answer(send, b"too late")

    async with serving(Connection, app) as served:
        _, writer = await served.connect()
        writer.write(POST % 1 + b"x")
        await event.wait()
        writer.close()
        await until(lambda: served.ended)

    assert told == ["left", "left before"]
    assert served.ended == [None]


@on_both_loops
async def test_a_piece_is_written_at_once_only_after_the_head_and_past_no_other_send() -> None:
    written: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - an Ask
        async def changing_send(message: Message) -> None:
            await send(message)

        write = piece_writer(send)
        start = {"type": "http.response.start", "status": 200, "headers": []}
        written.append(write(b"too early"))
        await send(start)
        written.append(write(b"the head is not sent"))
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        written.append(write(b"2"))
        written.append(piece_writer(changing_send)(b"past it"))
        await send({"type": "http.response.body", "body": b"3"})
        written.append(write(b"too late"))

    async with serving(Connection, app) as served:
        answered = await served.talk(CLOSING)

    assert written == [False, False, True, False, False]
    assert answered.endswith(b"1\r\n1\r\n1\r\n2\r\n1\r\n3\r\n0\r\n\r\n")


@on_both_loops
async def test_requests_that_wait_are_not_joined_by_ever_more() -> None:
    go = asyncio.Event()

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        scope[ON_LEAVING](lambda: None)
        await go.wait()
        await echo(scope, receive, send)

    async with serving(Connection, app) as served:
        reader, writer = await served.connect()
        writer.transport.set_write_buffer_limits(high=0)
        many = LARGE // len(GET)
        writer.write(GET * many)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.drain()
        go.set()
        for _ in range(1000):
            await reader.readuntil(b"c=d 0 ")
        writer.transport.abort()


SAME: Final = b"POST /same HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nContent-Length: %d\r\n\r\n"
OTHER: Final = SAME.replace(b"X-A: 1", b"X-A: 2")
CHUNKED: Final = SAME.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")


def post(body: bytes, head: bytes = SAME) -> bytes:
    return head % len(body) + body


# Each packet is read by itself.
PACKETS: Final = (
    post(b"one"),
    post(b"of another length"),
    post(b""),
    post(b"in two")[:-2],
    b"wo",
    post(b"head and body") + b"POST /sa",  # the next begins with it
    post(b"x")[len(b"POST /sa") :],
    post(b"again"),
    post(b"two", OTHER),
    post(b"back"),
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    post(b"after chunks"),
    post(b"piped") + post(b"piped on"),
    GET,
    post(b"after none"),
    post(b"\r\n\r\nContent-Length: 3\r\n\r\n"),
    post(b"one more"),
    b"\r\n" + post(b"after an empty line"),
    post(b"last", SAME.replace(b"X-A: 1", b"Connection: close")),
)


async def read_of(protocol: Any) -> list[tuple[Any, ...]]:
    """What an application gets of all packets, sent one by one over one connection."""
    got: list[tuple[Any, ...]] = []

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        body = await whole(receive)
        names = ("method", "path", "query_string", "http_version")
        got.append((*(scope[name] for name in names), list(scope["headers"]), body))
        await answer(send, body)

    async with serving(protocol, app) as served:
        await served.talk(*PACKETS)
    return got


@on_both_loops
async def test_a_connection_reads_a_head_that_it_knows_as_one_that_it_parses() -> None:
    ours = await read_of(Connection)
    uvicorns = await read_of(HttpToolsProtocol)

    assert len(ours) == 19
    assert ours == uvicorns


@on_both_loops
async def test_requests_with_one_head_share_what_was_worked_out_from_it_and_no_others() -> None:
    facts: list[Any] = []

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        facts.append(scope[HEAD_FACTS])
        await echo(scope, receive, send)

    async with serving(Connection, app) as served:
        await served.talk(
            post(b"one"),
            post(b"two"),
            post(b"three", OTHER),
            post(b"four"),
            CLOSING,
        )
        await served.talk(post(b"five"), CLOSING)

    one, two, three, four, _, five, _ = map(id, facts)
    assert one == two
    assert len({one, three, four, five}) == 4
