import asyncio
import gzip
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.providers.target import Provider
from router.frame.failure import UpstreamFailed
from router.upstream.origin_pool import interleave_addresses
from router.upstream.pool import UpstreamPool, build_head
from router.upstream.pool_connection import MAX_HEAD_BYTES
from tests.support.providers.raw_server import (
    OK,
    ServerConnection,
    raw_server,
)
from tests.support.router.event_loops import on_both_loops
from tests.support.router.live_router import QUICK

pytestmark = pytest.mark.req("A5")
SMALL = replace(QUICK, max_response_bytes=100_000)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def answered(
    *pieces: bytes,
    then_reset: bool = False,
    max_bytes: int | None = None,
) -> tuple[int, bytes]:
    """Status and body of what a provider sends so. Raises UpstreamFailed."""

    async def play(line: ServerConnection) -> None:
        await line.request()
        for piece in pieces:
            await line.send(piece)
            await asyncio.sleep(0)
        if then_reset:
            await asyncio.sleep(0.02)
            line.reset()

    pool = UpstreamPool(SMALL)
    try:
        async with raw_server(play) as server, asyncio.timeout(20):
            reply = await pool.send(replace(server.ask(), max_bytes=max_bytes))
            try:
                return reply.status, b"".join([chunk async for chunk in reply.chunks()])
            finally:
                await reply.aclose()
    finally:
        await pool.aclose()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"content-length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (
            CHUNKED + b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nx-trailer: 1\r\n\r\n",
            b"abc",
        ),
        (HEAD + b"\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 3\r\n\r\nabc",
            b"abc",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + CHUNKED + b"0\r\n\r\n",
            b"",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
@on_both_loops
async def test_every_proper_framing_is_read_whole_or_byte_by_byte(
    answer: bytes, body: bytes
) -> None:
    _, found = await answered(answer)
    assert found == body
    _, found = await answered(*(answer[at : at + 1] for at in range(len(answer))))
    assert found == body


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
        HEAD + b"transfer-encoding: gzip\r\n\r\nabc",
        HEAD + b"transfer-encoding: chunked, gzip\r\n\r\nabc",
        HEAD + b"content length: 3\r\n\r\nabc",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        HEAD + b"x: " + b"y" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
        HEAD + b"x: y\r\n" * MAX_HEAD_BYTES,
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD_BYTES,
        CHUNKED + b"1;" + b"x" * 10 * MAX_HEAD_BYTES,
        CHUNKED + b"1\r\na\r\n0\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES,
        HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-encoding: br\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(bytes(50_000_000)),
        HEAD + b"content-length: 200000\r\n\r\n" + b"x" * 200_000,
    ],
)
@on_both_loops
async def test_what_is_no_answer_is_malformed(answer: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await answered(answer)
    assert failed.value.failure is FailureClass.MALFORMED


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 2",
        HEAD + b"x: y\r\n",
        HEAD + b"content-length: 3\r\n\r\n",
        HEAD + b"content-length: 3\r\n\r\nab",
        CHUNKED + b"3\r\nab",
        CHUNKED + b"2\r\nab\r\n",
        CHUNKED + b"2\r\nab\r\n0\r\n",
    ],
)
@on_both_loops
async def test_an_answer_that_breaks_off_is_a_connect_failure(
    start: bytes,
    reset: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await answered(start, then_reset=reset)
    assert failed.value.failure is FailureClass.CONNECT


@on_both_loops
async def test_a_body_without_a_length_may_end_but_not_break() -> None:
    assert await answered(HEAD + b"\r\nab") == (200, b"ab")
    with pytest.raises(UpstreamFailed) as failed:
        await answered(HEAD + b"\r\nab", then_reset=True)
    assert failed.value.failure is FailureClass.CONNECT


@on_both_loops
async def test_an_answer_before_the_request_was_read_is_an_answer() -> None:
    async def play(line: ServerConnection) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        if line.number:
            line.writer.close()

    pool = UpstreamPool(SMALL)
    try:
        async with raw_server(play) as server:
            for _ in range(3):
                reply = await pool.send(server.ask(b"x" * 8_000_000))
                assert reply.status == 413
                assert b"".join([chunk async for chunk in reply.chunks()]) == b"no"
                await reply.aclose()
            assert len(server.lines) == 3
    finally:
        await pool.aclose()


@on_both_loops
async def test_an_answer_is_bounded_by_what_its_request_allows() -> None:
    ten = HEAD + b"content-length: 10\r\n\r\n0123456789"
    assert await answered(ten, max_bytes=10) == (200, b"0123456789")
    with pytest.raises(UpstreamFailed, match="larger than 9 bytes"):
        await answered(ten, max_bytes=9)


GRAMMAR = st.sampled_from(
    [
        HEAD,
        CHUNKED,
        OK,
        b"\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"hello",
        b"\x00",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 X\r\n\r\n",
        b"connection: close\r\n",
        b"content-encoding: gzip\r\n",
        b"HTTP/1.1 101 X\r\nupgrade: y\r\n\r\n",
        b": \n",
    ]
)
NOISE = st.binary(max_size=40)


@given(
    pieces=st.lists(GRAMMAR | NOISE, max_size=8),
    cuts=st.lists(st.integers(1, 200), max_size=6),
)
@example(pieces=[OK, OK], cuts=[])
def test_no_answer_hangs_or_raises_anything_else_or_reaches_the_next_request(
    pieces: list[bytes], cuts: list[int]
) -> None:
    """Whatever a provider sends and then closes: an answer, or UpstreamFailed."""
    asyncio.run(one_after_another(split(b"".join(pieces), cuts)))


async def one_after_another(pieces: list[bytes]) -> None:
    async def play(line: ServerConnection) -> None:
        await line.request()
        if line.number == 0:
            await line.send(*pieces)
            line.writer.write_eof()
            await line.reader.read()
        else:
            await line.send(OK.replace(b"ok", b"2!"))

    pool = UpstreamPool(SMALL)
    try:
        async with raw_server(play) as server, asyncio.timeout(20):
            try:
                reply = await pool.send(server.ask())
            except UpstreamFailed:
                pass
            else:
                assert 200 <= reply.status <= 999
                try:
                    async for _ in reply.chunks():
                        pass
                except UpstreamFailed:
                    pass
                await reply.aclose()
            following = await pool.send(server.ask())
            assert [chunk async for chunk in following.chunks()] == [b"2!"]
            await following.aclose()
    finally:
        await pool.aclose()


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


def provider(base: str, **headers: str) -> Provider:
    return Provider("up", "openai", base, "UP_KEY", headers)


def test_the_head_names_host_path_key_and_length() -> None:
    call = build_head(
        provider("https://api.test/v1/", **{"X-Team": "a"}),
        "/chat",
        "s3cret",
    )

    assert (call.host, call.port, call.secure) == ("api.test", 443, True)
    assert call.heads[True].split(b"\r\n") == [
        b"POST /v1/chat HTTP/1.1",
        b"Host: api.test",
        b"accept: text/event-stream",
        b"content-type: application/json",
        b"accept-encoding: identity",
        b"user-agent: swapproof",
        b"authorization: Bearer s3cret",
        b"x-team: a",
        b"Content-Length: ",
    ]
    assert b"accept: application/json" in call.heads[False]


def test_extra_headers_win_whatever_their_case() -> None:
    call = build_head(provider("http://h", Authorization="mine"), "/chat", "s3cret")

    head = call.heads[False]
    assert b"authorization: mine\r\n" in head
    assert b"s3cret" not in head


@pytest.mark.parametrize(
    ("base", "host", "port", "line", "named"),
    [
        ("http://h:81", "h", 81, b"POST /chat ", b"Host: h:81\r\n"),
        (
            "http://[::1]:81/v1",
            "::1",
            81,
            b"POST /v1/chat ",
            b"Host: [::1]:81\r\n",
        ),
        (
            "http://bücher.test",
            "xn--bcher-kva.test",
            80,
            b"POST /chat ",
            b"Host: xn--",
        ),
        (
            "http://h/a b/ü",
            "h",
            80,
            b"POST /a%20b/%C3%BC/chat ",
            b"Host: h\r\n",
        ),
        ("http://h/a%20b", "h", 80, b"POST /a%20b/chat ", b"Host: h\r\n"),
    ],
)
def test_addresses_of_every_kind(
    base: str,
    host: str,
    port: int,
    line: bytes,
    named: bytes,
) -> None:
    call = build_head(provider(base), "/chat", "")

    assert (call.host, call.port) == (host, port)
    head = call.heads[False]
    assert head.startswith(line)
    assert named in head


@pytest.mark.parametrize(
    "base",
    [
        "",
        "h",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://u:p@h/v1",
    ],
)
def test_what_is_no_address_is_a_connect_failure_without_secrets(base: str) -> None:
    with pytest.raises(UpstreamFailed, match="provider 'up'") as failed:
        build_head(provider(base), "/chat", "s3cret")
    assert failed.value.failure is FailureClass.CONNECT
    assert "u:p" not in str(failed.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\ny: z"),
        ("x\r\ny", "z"),
        ("x y", "z"),
        ("", "z"),
        ("x", "\0"),
        ("x", "日"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_a_header_cannot_smuggle(name: str, value: str) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be sent"):
        build_head(provider("http://h", **{name: value}), "/chat", "")
    with pytest.raises(UpstreamFailed, match="'authorization'"):
        build_head(provider("http://h"), "/chat", "a\r\nx: y")


def test_the_families_take_turns() -> None:
    found = [
        (6, "a"),
        (6, "b"),
        (6, "b"),
        (4, "c"),
        (4, "d"),
    ]

    assert interleave_addresses(found) == ["a", "c", "b", "d"]
