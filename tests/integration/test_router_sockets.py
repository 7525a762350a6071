import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.frame.asgi import WritePiece
from router.request.stream_relay import CommittedStream
from router.server import slow_reader
from router.server.slow_reader import SlowReader
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    ReceivedRequest,
    Upstream,
    broken_stream,
    completion,
    event,
    streamed,
)
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    QUICK,
    World,
    running_router,
    snapshot,
    wait_until,
)

CHAT = b"/v1/chat/completions"
PLAIN = b'{"model":"support","user":"u","messages":[{"role":"user","content":"hi"}]}'
STREAM = PLAIN.replace(b'"user"', b'"stream":true,"user"', 1)
LAST = b"connection: close\r\n"


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    def script_turn(asked: ReceivedRequest) -> ScriptedTurn:
        return streamed("a", "b") if asked.json.get("stream") else completion("hello")

    upstream.asked.clear()
    upstream.turns = {INCUMBENT: script_turn}
    with running_router(snapshot(upstream.url), tmp_path, QUICK) as world:
        yield world


def request(
    body: bytes = PLAIN,
    *lines: bytes,
    method: bytes = b"POST",
    path: bytes = CHAT,
    version: bytes = b"1.1",
    key: str | None = KEY,
    length: int | None = -1,
) -> bytes:
    head = [
        b"%s %s HTTP/%s\r\nhost: x\r\n" % (method, path, version),
        *lines,
    ]
    if key is not None:
        head.append(f"authorization: Bearer {key}\r\n".encode())
    if length is not None:
        head.append(b"content-length: %d\r\n" % (len(body) if length < 0 else length))
    return b"".join((*head, b"\r\n", body))


def connect(world: World) -> socket.socket:
    port = int(world.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def until_closed(found: socket.socket) -> bytes:
    out = b""
    try:
        while data := found.recv(65536):
            out += data
    except ConnectionResetError:
        pass
    return out


def exchange(world: World, *parts: bytes) -> bytes:
    with connect(world) as found:
        for part in parts:
            try:
                found.sendall(part)
            except OSError:  # it answered already and hung up
                break
            time.sleep(0.01)
        return until_closed(found)


def statuses(out: bytes) -> list[int]:
    return [int(part[:3]) for part in out.split(b"HTTP/1.1 ")[1:]]


def error_code(out: bytes) -> object:
    return json.loads(out[out.rindex(b"\r\n\r\n") :])["error"]["code"]


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    models = request(
        b"",
        LAST,
        method=b"GET",
        path=b"/v1/models",
    )

    out = exchange(world, request() + request(STREAM) + request(b"{bad") + models)

    assert statuses(out) == [200, 200, 400, 200]
    kinds = (
        b"chat.completion",
        b"[DONE]",
        b"invalid_json",
        b'"object": "list"',
    )
    places = [out.index(kind) for kind in kinds]
    assert places == sorted(places)


def test_a_body_may_come_in_chunks_and_after_a_100(world: World) -> None:
    half = len(PLAIN) // 2
    chunks = [b"%x\r\n%s\r\n" % (len(p), p) for p in (PLAIN[:half], PLAIN[half:])]
    head = request(b"", b"transfer-encoding: chunked\r\n", LAST, length=None)
    assert statuses(exchange(world, head, *chunks, b"0\r\n\r\n")) == [200]

    head = request(b"", b"expect: 100-continue\r\n", LAST, length=len(PLAIN))
    with connect(world) as found:
        found.sendall(head)
        assert found.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        found.sendall(PLAIN)
        assert statuses(until_closed(found)) == [200]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [1, 10_000])
def test_a_client_that_offers_http_2_is_answered_over_http_1(
    world: World,
    *,
    chunked: bool,
    cut: int,
) -> None:
    """Java's client does so with every request."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAM\r\n"
    sent = request(PLAIN, offer)
    if chunked:
        head = request(b"", offer, b"transfer-encoding: chunked\r\n", length=None)
        sent = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PLAIN), PLAIN)

    out = exchange(world, sent[:-cut], sent[-cut:])

    assert statuses(out) == [200]
    assert b'"hello"' in out
    assert b"connection: close" in out


def test_a_trailer_is_no_header(world: World) -> None:
    head = request(
        b"",
        b"transfer-encoding: chunked\r\n",
        LAST,
        length=None,
        key=None,
    )
    body = b"%x\r\n%s\r\n0\r\n" % (len(PLAIN), PLAIN)

    out = exchange(
        world,
        head + body + b"authorization: Bearer %s\r\n\r\n" % KEY.encode(),
    )

    assert statuses(out) == [401]


@pytest.mark.parametrize("end", [b"0\r\nx-a: ", b"1;x="])
def test_trailers_and_frames_of_chunks_without_end_are_cut(world: World, end: bytes) -> None:
    head = request(b"", b"transfer-encoding: chunked\r\n", length=None)
    with connect(world) as endless:
        endless.sendall(head + b"%x\r\n%s\r\n" % (len(PLAIN), PLAIN) + end)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            endless.sendall(b"a" * 64 * 1024 * 1024)
    assert statuses(exchange(world, request(PLAIN, LAST))) == [200]


def test_a_client_that_never_reads_is_hung_up_on(
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.server.slow_reader.STALLED_S", 0.3)
    words = [event({"content": "x" * 60_000})] * 1000
    upstream.turns = {INCUMBENT: broken_stream(*words, event(finish="stop"), DONE)}
    with (
        running_router(snapshot(upstream.url), tmp_path, QUICK) as world,
        connect(world) as deaf,
    ):
        deaf.sendall(request(STREAM))
        wait_until(lambda: world.recorder.counters["callers_gone"] == 1)
        (row,) = world.wait_for_traffic(1)
        assert row.output_tokens > 0


@pytest.mark.req("G5")
def test_a_client_that_reads_a_trickle_of_a_big_answer_is_no_deaf_one(
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system holds megabytes for it, out of the router's sight."""
    upstream.turns = {INCUMBENT: completion("x" * 20_000_000)}
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    trickle: list[int] = []  # bytes that the client read before each check
    look = SlowReader._check_stall

    def read_before_the_check(reader: SlowReader) -> None:
        if len(trickle) < 20:
            trickle.append(sum(len(slow.recv(2048)) for _ in range(8)))
        if len(trickle) == 20:  # the rest comes as fast as this machine can
            monkeypatch.setattr(slow_reader, "STALLED_S", 60.0)
        look(reader)

    monkeypatch.setattr(slow_reader, "STALLED_S", 0.1)
    monkeypatch.setattr(SlowReader, "_check_stall", read_before_the_check)
    with running_router(snapshot(upstream.url), tmp_path, QUICK) as world, slow:
        slow.connect(("127.0.0.1", int(world.url.rpartition(":")[2])))
        slow.sendall(request(PLAIN, LAST))
        wait_until(lambda: len(trickle) == 20)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        read = sum(trickle)
        while data := slow.recv(1 << 20):
            read += len(data)
    assert read > 20_000_000


def test_a_body_too_large_is_refused_before_it_is_sent(world: World) -> None:
    head = request(b"", b"expect: 100-continue\r\n", length=1 << 30)

    out = exchange(world, head)

    assert (statuses(out), error_code(out)) == ([413], "request_too_large")


@pytest.mark.req("G5")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_reads_once_all_is_sent_learns_that_it_was_too_much(
    upstream: Upstream,
    tmp_path: Path,
    *,
    chunked: bool,
) -> None:
    """As Python's clients do. Hung up on before, it would get a reset for an answer."""
    body = b"x" * (16 * 1024 * 1024)
    sent = request(body)
    if chunked:
        head = request(b"", b"transfer-encoding: chunked\r\n", length=None)
        sent = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    small = replace(QUICK, max_body_bytes=1024 * 1024)
    with (
        running_router(snapshot(upstream.url), tmp_path, small) as world,
        connect(world) as found,
    ):
        found.sendall(sent)  # a reset would raise here, or below
        out = b""
        while data := found.recv(65536):
            out += data

    assert (statuses(out), error_code(out)) == ([413], "request_too_large")
    assert b"connection: close" in out


@pytest.mark.req("G5")
@pytest.mark.parametrize("quiet", [True, False])
def test_a_client_that_sends_on_after_its_last_answer_is_read_on_for_a_while_alone(
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    quiet: bool,
) -> None:
    monkeypatch.setattr("router.server.connection.DISCARD_QUIET_S", 0.1)
    monkeypatch.setattr("router.server.connection.DISCARD_BYTES", 1024 * 1024)
    small = replace(QUICK, max_body_bytes=1024)
    with (
        running_router(snapshot(upstream.url), tmp_path, small) as world,
        connect(world) as found,
    ):
        found.sendall(request(b"x", length=1 << 30))
        if quiet:
            assert statuses(until_closed(found)) == [413]
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            found.sendall(b"x" * 64 * 1024 * 1024)


@pytest.mark.req("G5")
@pytest.mark.parametrize(
    ("sent", "end"),
    [
        (request(), b'"usage":'),
        (request(STREAM), b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        (request() + request(STREAM), b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        (request(version=b"1.0"), b'"usage":'),
    ],
)
def test_a_client_that_ended_its_own_side_gets_its_answer(
    world: World,
    upstream: Upstream,
    sent: bytes,
    end: bytes,
) -> None:
    def script_turn(asked: ReceivedRequest) -> ScriptedTurn:
        quick = streamed("a", "b") if asked.json.get("stream") else completion("hello")
        return replace(quick, steps=(0.3, *quick.steps))

    upstream.turns = {INCUMBENT: script_turn}
    with connect(world) as found:
        found.sendall(sent)
        found.shutdown(socket.SHUT_WR)
        out = until_closed(found)

    answers = [status for status in statuses(out) if status != 100]
    assert answers == [200] * sent.count(b"HTTP/1.")
    assert end in out
    assert world.recorder.counters["callers_gone"] == 0


@pytest.mark.req("G5")
@pytest.mark.parametrize("body", [PLAIN, STREAM])
def test_a_client_that_is_gone_altogether_is_not_waited_for(
    world: World,
    upstream: Upstream,
    body: bytes,
) -> None:
    upstream.turns = {INCUMBENT: ScriptedTurn(hang=True)}
    before = len(upstream.asked)
    with connect(world) as found:
        found.sendall(request(body))
        wait_until(lambda: len(upstream.asked) > before)
    assert upstream.asked[-1].left.wait(60)
    wait_until(lambda: world.recorder.counters["callers_gone"] == 1)


@pytest.mark.req("G5")
def test_a_client_that_ends_its_side_within_its_request_gets_nothing(world: World) -> None:
    with connect(world) as found:
        found.sendall(request(length=1000))
        found.shutdown(socket.SHUT_WR)
        assert until_closed(found) == b""


def test_an_answer_that_has_begun_ends_with_its_connection(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(stream: CommittedStream, write: WritePiece) -> AsyncGenerator[bytes, None]:
        async for piece in relay(stream, write):
            yield piece
            raise LookupError

    relay = CommittedStream.sent
    monkeypatch.setattr(CommittedStream, "sent", fail)
    out = exchange(world, request(STREAM))

    assert statuses(out) == [200]
    assert not out.endswith(b"0\r\n\r\n")
    assert "LookupError" in caplog.text
    assert "RuntimeError" not in caplog.text  # of the refused second head


def test_http_1_0_is_answered_and_closed(world: World) -> None:
    out = exchange(world, request(version=b"1.0"))

    assert statuses(out) == [200]
    assert b"chunked" not in out
    assert b"connection: close" in out


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /é HTTP/1.1\r\nhost: a\r\n\r\n".encode(),
        request(
            b"zz\r\n{}\r\n0\r\n\r\n",
            b"transfer-encoding: chunked\r\n",
            length=None,
        ),
        request(b"2\r\n{}\r\n0\r\n\r\n", b"transfer-encoding: chunked\r\n"),  # smuggling
        request(b"", b"content-length: 3\r\n", length=4),
    ],
)
def test_what_is_not_http_is_a_400_in_the_clients_protocol(world: World, sent: bytes) -> None:
    out = exchange(world, sent)

    assert (statuses(out), error_code(out)) == ([400], "invalid_http")
    assert statuses(exchange(world, request(PLAIN, LAST))) == [200]


@pytest.mark.parametrize(
    "lines", [(b"x-a: " + b"a" * 66_000 + b"\r\n",), (b"x-a: a\r\n",) * 9000]
)
def test_a_head_over_64_kib_is_refused(world: World, lines: tuple[bytes, ...]) -> None:
    out = exchange(world, request(PLAIN, *lines))

    assert (statuses(out), error_code(out)) == ([431], "headers_too_large")


def test_a_head_just_under_64_kib_with_a_large_body_is_served(world: World) -> None:
    body = PLAIN.replace(b"hi", b"x" * 200_000)

    out = exchange(world, request(body, b"x-a: " + b"a" * 65_000 + b"\r\n", LAST))

    assert statuses(out) == [200]


@pytest.mark.parametrize("key", [KEY, None])
def test_an_endless_head_is_cut_and_others_are_served_meanwhile(
    world: World, key: str | None
) -> None:
    with connect(world) as endless:
        endless.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nx-a: ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            endless.sendall(b"a" * 64 * 1024 * 1024)
    assert statuses(exchange(world, request(PLAIN, LAST, key=key))) == [200 if key else 401]


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /v1/chat",
        request()[:-20],
        # Answered with 401 at once; then nobody reads the body, and it must still end.
        request(b"{", key="sk-sg-wrong", length=1000),
    ],
)
def test_a_request_that_does_not_arrive_is_hung_up_on(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    begun: bytes,
) -> None:
    monkeypatch.setattr("router.server.connection.REQUEST_ARRIVES_S", 1.0)
    monkeypatch.setattr("router.frame.asgi.REQUEST_ARRIVES_S", 0.5)

    with connect(world) as slow:
        slow.sendall(begun)
        out = until_closed(slow)

    expected = {b"sk-sg-wrong": [401], b"sk-sg-good": [408]}
    assert statuses(out) == next((v for k, v in expected.items() if k in begun), [])


def test_an_idle_connection_is_kept_after_a_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.server.connection.REQUEST_ARRIVES_S", 0.5)
    with connect(world) as found:
        found.sendall(request())
        assert found.recv(65536)
        time.sleep(1.0)
        found.sendall(request(PLAIN, LAST))
        assert statuses(until_closed(found)) == [200]


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_other_methods_get_405_and_say_which_one_works(world: World, method: bytes) -> None:
    out = exchange(world, request(b"", LAST, method=method))

    assert statuses(out) == [405]
    assert b"\r\nallow: POST\r\n" in out
    assert out.endswith(b"\r\n\r\n") is (method == b"HEAD")


@pytest.mark.parametrize("path", [b"/v1/responses", CHAT])
def test_a_websocket_gets_426_at_once_so_that_codex_sends_a_post(
    world: World, path: bytes
) -> None:
    """Codex's probe, as github.com/openai/codex#43353 has it."""
    probe = (
        b"connection: Upgrade\r\n",
        b"upgrade: websocket\r\n",
        b"sec-websocket-version: 13\r\n",
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"openai-beta: responses_websockets=2026-02-06\r\n",
    )
    with connect(world) as found:
        found.sendall(request(b"", *probe, method=b"GET", path=path, length=None))
        answer = until_closed(found)

    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"send a POST" in answer


def test_a_provider_that_closes_every_connection_costs_nobody_a_request(
    world: World, upstream: Upstream
) -> None:
    upstream.hangs_up = True
    try:
        assert asyncio.run(many(world, connections=16, requests=25)) == {200: 400}
    finally:
        upstream.hangs_up = False


def test_of_two_keys_the_first_counts(world: World, upstream: Upstream) -> None:
    before = len(upstream.asked)
    two = request(PLAIN, b"authorization: Bearer another\r\n", LAST)

    assert statuses(exchange(world, two)) == [401]
    assert len(upstream.asked) == before


async def many(
    world: World,
    *,
    connections: int,
    requests: int,
) -> Counter[int]:
    port = int(world.url.rpartition(":")[2])
    found: Counter[int] = Counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests):
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            found[int(head[9:12])] += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return found
