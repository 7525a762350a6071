import asyncio
import gc
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.failures import FailureClass
from harness.providers.target import Provider
from router.frame.failure import UpstreamFailed
from router.upstream import origin_pool
from router.upstream.pool import UpstreamPool
from router.upstream.pool_connection import HIGH_WATER_BYTES
from router.upstream.transport import UpstreamReply, UpstreamRequest
from tests.support.providers.raw_server import (
    OK,
    RawServer,
    ServerConnection,
    answer_forever,
    raw_server,
)
from tests.support.router.event_loops import on_both_loops
from tests.support.router.live_router import QUICK

pytestmark = pytest.mark.req("A5")


async def whole(reply: UpstreamReply) -> bytes:
    try:
        return b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.aclose()


@pytest.fixture
def pool() -> UpstreamPool:
    return UpstreamPool(QUICK)


async def ask(pool: UpstreamPool, server: RawServer) -> bytes:
    return await whole(await pool.send(server.ask()))


@on_both_loops
async def test_a_connection_is_used_again(pool: UpstreamPool) -> None:
    async with raw_server(answer_forever) as server:
        replies = []
        for _ in range(5):
            replies.append(await pool.send(server.ask()))
            assert await whole(replies[-1]) == b"ok"
        assert len(server.lines) == 1
    assert [reply.opening_s > 0.0 for reply in replies] == [True] + [False] * 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + OK,  # one that nobody asked for must not answer the next request
        OK + b"\x00garbage",
    ],
)
@on_both_loops
async def test_a_connection_that_is_not_clean_is_not_used_again(
    pool: UpstreamPool, answer: bytes
) -> None:
    async def play(line: ServerConnection) -> None:
        await line.request()
        await line.send(answer)
        await line.reader.read()

    async with raw_server(play) as server:
        assert [await ask(pool, server) for _ in range(3)] == [b"ok"] * 3
        assert len(server.lines) == 3


@on_both_loops
async def test_what_comes_while_idle_answers_nobody(pool: UpstreamPool) -> None:
    late = asyncio.Event()

    async def play(line: ServerConnection) -> None:
        await line.request()
        await line.send(OK)
        if line.number == 0:
            await late.wait()
            await line.send(OK.replace(b"\r\n\r\nok", b"\r\n\r\nno"))
        await answer_forever(line)

    async with raw_server(play) as server:
        await ask(pool, server)
        late.set()
        await asyncio.sleep(0.05)
        assert await ask(pool, server) == b"ok"
        assert len(server.lines) == 2


@on_both_loops
async def test_a_reused_connection_that_dies_unanswered_is_a_connect_failure(
    pool: UpstreamPool,
) -> None:
    async def play(line: ServerConnection) -> None:
        await line.request()
        await line.send(OK)
        await line.request()
        line.reset()

    async with raw_server(play) as server:
        for reply in await asyncio.gather(*(pool.send(server.ask()) for _ in range(2))):
            await whole(reply)
        with pytest.raises(UpstreamFailed) as failed:
            await ask(pool, server)
        assert failed.value.failure is FailureClass.CONNECT
        # The other idle one is as old: the second try wants a new connection.
        again = await pool.send(replace(server.ask(), fresh=True))
        assert await whole(again) == b"ok"
        assert len(server.lines) == 3


@on_both_loops
async def test_fresh_connections_take_an_idle_ones_place() -> None:
    pool = UpstreamPool(replace(QUICK, upstream_connections=1))
    async with raw_server(answer_forever) as server:
        for _ in range(3):
            reply = await pool.send(replace(server.ask(), fresh=True))
            assert await whole(reply) == b"ok"
        assert await ask(pool, server) == b"ok"
        first, second, third = server.lines
        await first.ended.wait()
        await second.ended.wait()
        assert not third.ended.is_set()
    await pool.aclose()


@on_both_loops
async def test_idle_connections_are_closed_in_time(
    pool: UpstreamPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_pool, "IDLE_S", 0.05)

    async with raw_server(answer_forever) as server:
        await ask(pool, server)
        await server.lines[0].ended.wait()


@on_both_loops
async def test_cancelling_closes_the_connection(pool: UpstreamPool) -> None:
    asked = asyncio.Event()

    async def play(line: ServerConnection) -> None:
        await line.request()
        if line.number:
            await line.send(OK)
        asked.set()
        await line.reader.read()

    async with raw_server(play) as server:
        sending = asyncio.create_task(pool.send(server.ask()))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await server.lines[0].ended.wait()
        assert await ask(pool, server) == b"ok"


@on_both_loops
async def test_a_closed_reply_reads_nothing_of_the_next_request(pool: UpstreamPool) -> None:
    async with raw_server(answer_forever) as server:
        first = await pool.send(server.ask())
        await first.aclose()
        second = await pool.send(server.ask())
        assert [chunk async for chunk in first.chunks()] == []
        await first.aclose()
        assert await whole(second) == b"ok"
        assert len(server.lines) == 1


@on_both_loops
async def test_a_slow_reader_slows_the_provider() -> None:
    pool = UpstreamPool(QUICK)
    total = 32 * 1024 * 1024
    sent = 0

    async def play(line: ServerConnection) -> None:
        nonlocal sent
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            await line.send(b"x" * 65536)
            sent += 65536

    async with raw_server(play) as server:
        reply = await pool.send(server.ask())
        await asyncio.sleep(0.3)
        # What the kernel's buffers hold comes on top of ours.
        assert sent < total / 2
        sizes = [len(chunk) async for chunk in reply.chunks()]
        await reply.aclose()
        assert sum(sizes) == total
        assert max(sizes) <= 3 * HIGH_WATER_BYTES
    await pool.aclose()


@on_both_loops
async def test_no_more_connections_than_allowed_and_a_line_with_an_end() -> None:
    pool = UpstreamPool(replace(QUICK, upstream_connections=2))
    arrived = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def play(line: ServerConnection) -> None:
        while True:
            await line.request()
            arrived.release()
            await go.wait()
            await line.send(OK)

    async with raw_server(play) as server:
        waiting = [asyncio.create_task(ask(pool, server)) for _ in range(10)]
        for _ in range(2):
            await arrived.acquire()
        with pytest.raises(UpstreamFailed) as failed:
            await ask(pool, server)
        assert failed.value.failure is FailureClass.OVERLOADED
        waiting[5].cancel()  # one in the line
        waiting[0].cancel()  # one that has a connection
        go.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results.count(b"ok") == 8
        assert len(server.lines) == 3  # the cancelled one's was closed
    await pool.aclose()


@on_both_loops
async def test_packets_are_not_held_back(pool: UpstreamPool) -> None:
    async with raw_server(answer_forever) as server:
        reply = await pool.send(server.ask())
        assert reply._wire is not None
        sock = reply._wire._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await whole(reply)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A new one for localhost, that nobody's system trusts."""
    folder = tmp_path_factory.mktemp("tls")
    key = folder / "key.pem"
    cert = folder / "cert.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(  # noqa: S603 - a certificate for this test
        ["openssl", *words.split(), *names, *files],  # noqa: S607
        check=True,
        capture_output=True,
    )
    return key, cert


@on_both_loops
async def test_tls_is_spoken_and_reused_and_a_stranger_is_refused(
    certificate: tuple[Path, Path],
) -> None:
    key, cert = certificate
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(cert, key)
    trusting = UpstreamPool(QUICK, ssl.create_default_context(cafile=str(cert)))
    strict = UpstreamPool(QUICK)

    async with raw_server(answer_forever, ours) as server:
        assert [await ask(trusting, server) for _ in range(3)] == [b"ok"] * 3
        assert len(server.lines) == 1
        with pytest.raises(UpstreamFailed, match="SSLCertVerificationError") as failed:
            await ask(strict, server)
        assert failed.value.failure is FailureClass.CONNECT
        await trusting.aclose()
        await strict.aclose()
        await asyncio.sleep(0.05)


@on_both_loops
async def test_a_server_that_never_accepts_is_a_timeout() -> None:
    pool = UpstreamPool(replace(QUICK, connect_timeout_s=0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 - the socket's own
            filler.connect_ex(("127.0.0.1", port))
        provider = Provider("full", "custom", f"http://127.0.0.1:{port}")
        with pytest.raises(UpstreamFailed) as failed:
            await pool.send(UpstreamRequest(provider, b"{}", stream=False))
        assert failed.value.failure is FailureClass.TIMEOUT
        for filler in fillers:
            filler.close()
    await pool.aclose()


@on_both_loops
async def test_every_socket_is_gone_when_the_pool_is_closed() -> None:
    async with raw_server(answer_forever) as server:
        pool = UpstreamPool(QUICK)
        lent = await pool.send(server.ask())
        assert await ask(pool, server) == b"ok"
        await pool.aclose()
        await lent.aclose()
        assert len(server.lines) == 2
        for line in server.lines:
            await line.ended.wait()
    gc.collect()
