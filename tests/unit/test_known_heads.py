import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, cast

import httptools
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config

from harness.routing.table import KeyGrant
from router.frame.asgi import Receive, Scope, Send
from router.server.connection import Connection, ConnectionState
from router.server.known_head import MAX_KNOWN_BYTES, KnownHead
from router.server.request_cycle import STARTS_IN_A_TURN, StartQueue
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door

SAME: Final = b"POST /same HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
OTHER: Final = SAME.replace(b"/same", b"/other")
CHUNKED: Final = SAME.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + (
    b"%x\r\n%b\r\n0\r\n\r\n"
)


class ManualLoop:
    """An event loop whose timers go off as `pass_s` says; its tasks are another loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = 0.0
        self._timers: list[tuple[float, asyncio.TimerHandle, Callable[[], object]]] = []
        self.create_task = self._loop.create_task
        self.create_future = self._loop.create_future
        self.call_soon = self._loop.call_soon

    def time(self) -> float:
        return self._now_s

    def call_later(
        self,
        delay_s: float,
        call: Callable[..., object],
        *given: object,
    ) -> asyncio.TimerHandle:
        due = self._now_s + delay_s
        timer = asyncio.TimerHandle(due, call, given, self._loop)
        self._timers.append((due, timer, partial(call, *given)))
        return timer

    def pass_s(self, seconds: float) -> None:
        until = self._now_s + seconds
        while due := [entry for entry in self._timers if entry[0] <= until]:
            first = min(due, key=lambda entry: entry[0])
            self._timers.remove(first)
            self._now_s, timer, call = first
            if not timer.cancelled():
                call()
        self._now_s = until


class Written(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self._is_closed = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - asyncio's
        return default

    def pause_reading(self) -> None:
        """What comes is given to the connection all the same."""

    def resume_reading(self) -> None:
        """It never stopped."""

    def write_eof(self) -> None:
        """Nobody looks."""

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True


class Echo:
    """Answers with the body. served: path and body of each request."""

    def __init__(self) -> None:
        self.served: list[tuple[str, bytes]] = []

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        self.served.append((scope["path"], body))
        length = (b"content-length", b"%d" % len(body))
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [length],
            }
        )
        await send({"type": "http.response.body", "body": body})


class ClientConnection:
    def __init__(self) -> None:
        self.app = Echo()
        config = Config(
            self.app,
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
        )
        config.load()
        self.loop = ManualLoop()
        self.transport = Written()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.connection = Connection(config, ConnectionState(), {}, loop)
        self.connection.connection_made(self.transport)

    async def take(self, *packets: bytes, apart_s: float = 0.0) -> None:
        for packet in packets:
            self.connection.data_received(packet)
            await self.wait(apart_s)

    async def wait(self, seconds: float) -> None:
        self.loop.pass_s(seconds)
        for _ in range(6):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.connection.connection_lost(None)


_BODIES = st.binary(max_size=8) | st.just(b"x" * 200)
_REQUESTS = st.lists(
    st.tuples(st.sampled_from([SAME, OTHER, CHUNKED]), _BODIES),
    min_size=1,
    max_size=6,
)


@given(_REQUESTS, st.sets(st.integers(1, 400), max_size=12), st.data())
def test_requests_are_the_same_however_they_are_cut_and_whenever_they_come(
    requests: list[tuple[bytes, bytes]],
    cuts: set[int],
    data: st.DataObject,
) -> None:
    def bytes_of(head: bytes, body: bytes) -> bytes:
        if head is not CHUNKED:
            return head % len(body) + body
        return CHUNKED % (len(body), body) if body else CHUNKED.replace(b"%x\r\n%b\r\n", b"")

    sent = b"".join(bytes_of(head, body) for head, body in requests)
    ends = [*sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    packets = [sent[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    waits_s = st.sampled_from([0.0, 0.01, 0.02])

    async def talk() -> None:
        client = ClientConnection()
        for packet in packets:
            await client.take(packet, apart_s=data.draw(waits_s))
        for _ in requests:
            await client.wait(0)
        assert client.app.served == [
            ("/other" if head is OTHER else "/same", body) for head, body in requests
        ]
        assert client.transport.data.count(b"HTTP/1.1 200 OK") == len(requests)
        client.close()

    asyncio.run(talk())


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Length: %b\r\nX-A: 1\r\n\r\n"


class Parsed:
    """What the parser reads of one message."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.scope: dict[str, Any] = {
            "headers": self.headers,
            "path": self.url,
        }

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def request(body: bytes, head: bytes = HEAD) -> bytes:
    return head % b"%d" % len(body) + body


def known(data: bytes) -> KnownHead | None:
    parsed = Parsed(data)
    return KnownHead.learn(data, parsed.scope, len(parsed.body))


def test_any_other_bytes_are_left_to_the_parser() -> None:
    head = known(request(b"{}"))
    assert head is not None
    whole = request(b"12345")
    other_head = HEAD.replace(b"X-A: 1", b"X-A: 2")
    for data in (
        b"",
        whole[:-1],  # not all of it is here
        whole + b"P",  # or more than that
        whole + whole,
        whole[:20],
        request(b"12345", other_head),
        HEAD % b"+5" + b"12345",
        HEAD % b" 5" + b"12345",
        HEAD % b"5 " + b"12345",
        HEAD % b"" + b"12345",
        HEAD % "٥".encode() + b"12345",
        HEAD % b"0000000005" + b"12345",  # too many digits
        HEAD % b"5\r\nTransfer-Encoding: chunked" + b"12345",
    ):
        read = head.read(data)
        assert read is None or read[1] != len(read[2]), data


def test_a_head_whose_next_may_mean_something_else_is_not_learned() -> None:
    for data in (
        b"GET / HTTP/1.1\r\nHost: r\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        request(b"{}", HEAD.replace(b"X-A: 1", b"Expect: 100-continue")),
        request(b"{}", HEAD.replace(b"X-A: 1", b"X-A: " + b"a" * MAX_KNOWN_BYTES)),
        b"\r\n\r\n" + request(b"{}"),  # which a parser passes over
        request(b"{}", HEAD.replace(b"Host: r", b"X-Length: 2")),  # another name before it
        request(b"{}", HEAD.replace(b"Content-Length: ", b"Content-Length:")),
    ):
        assert known(data) is None, data


_NAMES = st.sampled_from([b"content-length", b"Content-Length", b"X-Length", b"Te", b"Host"])
_LINES = st.lists(
    st.tuples(_NAMES, st.sampled_from([b"1", b"2", b"12", b"a", b""])),
    max_size=4,
)


@given(
    _LINES,
    _LINES,
    st.binary(max_size=20),
    st.binary(max_size=40),
    st.integers(0, 20),
)
def test_whatever_is_read_by_a_known_head_the_parser_reads_as_well(
    before: list[tuple[bytes, bytes]],
    after: list[tuple[bytes, bytes]],
    first: bytes,
    second: bytes,
    came: int,
) -> None:
    """A known head reads the second request as the parser does.

    Args:
        came: bytes of the first body that the head was learned with.
    """

    def written(body: bytes) -> bytes:
        lines = [
            *before,
            (b"Content-Length", b"%d" % len(body)),
            *after,
        ]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return b"POST / HTTP/1.1\r\n%b\r\n%b" % (head, body)

    data = written(first)
    data = data[: len(data) - len(first[came:])]
    try:
        parsed = Parsed(data)
    except httptools.HttpParserError:
        return
    if parsed.complete > 1:
        return
    head = KnownHead.learn(data, parsed.scope, len(parsed.body))
    if head is None:
        return
    other = written(second)
    read = head.read(other)
    reference = Parsed(other)
    assert read == (reference.scope, len(second), reference.body)
    assert reference.complete == 1


async def test_a_head_that_is_known_opens_no_more_than_the_revision_of_its_request(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path)
    whole = door.kept.snapshot()

    async def status(etag: str, keys: tuple[KeyGrant, ...]) -> int:
        door.kept.put(replace(whole, etag=etag, keys=keys))
        assert door.holder.refresh()
        return (await door.call(CHAT, ASK))[0]

    nothing = tuple(replace(key, routes=frozenset({"another"})) for key in whole.keys)
    assert (await door.call(CHAT, ASK))[0] == (await door.call(CHAT, ASK))[0] == 200
    assert [
        await status("taken", ()),
        await status("back", whole.keys),
        await status("of another route", nothing),
        await status("back again", whole.keys),
    ] == [401, 200, 403, 200]


async def test_what_a_known_head_asks_is_what_it_asked_the_first_time(tmp_path: Path) -> None:
    door = Door(tmp_path)
    headers = (AUTH, (b"x-swapproof-timeout", b"soon"))
    refused = [(await door.call(CHAT, ASK, headers=headers))[0] for _ in range(3)]
    served = [(await door.call(CHAT, ASK))[0] for _ in range(3)]

    assert refused == [400] * 3
    assert served == [200] * 3


class NotedRequest:
    """Notes in which turn it starts. fault: raised by its start."""

    def __init__(
        self,
        number: int,
        clock: "TurnClock",
        *,
        gone: bool = False,
        fault: bool = False,
    ) -> None:
        self.gone = gone
        self._number = number
        self._clock = clock
        self._fault = fault

    def start(self) -> None:
        self._clock.started.append((self._clock.turn, self._number))
        if self._fault:
            raise RuntimeError("its start fails")


class TurnClock:
    def __init__(self) -> None:
        self.turn = 0
        self.started: list[tuple[int, int]] = []
        self.faults: list[object] = []

    async def run(self, bursts: list[list[NotedRequest]]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context["exception"]))
        queue = StartQueue()
        for burst in bursts:
            for request in burst:
                if queue.may_start():
                    request.start()
                else:
                    queue.wait(request, loop)
            await self._next_turn()
        for _ in range(sum(map(len, bursts)) + 2):
            await self._next_turn()

    async def _next_turn(self) -> None:
        await asyncio.sleep(0)
        self.turn += 1


@given(st.lists(st.integers(0, 30), max_size=6))
def test_each_turn_starts_a_few_and_all_start_once_in_each_burst_s_order(
    sizes: list[int],
) -> None:
    clock = TurnClock()
    bursts: list[list[NotedRequest]] = []
    for size in sizes:
        first = sum(map(len, bursts))
        bursts.append([NotedRequest(first + number, clock) for number in range(size)])
    asyncio.run(clock.run(bursts))

    assert sorted(number for _, number in clock.started) == list(range(sum(sizes)))
    per_turn = [len(list(turn)) for _, turn in groupby(clock.started, key=lambda pair: pair[0])]
    # Those that start at once, and those that wait.
    assert all(count <= 2 * STARTS_IN_A_TURN for count in per_turn)


def test_a_request_whose_client_has_gone_does_not_start() -> None:
    clock = TurnClock()
    burst = [NotedRequest(number, clock) for number in range(STARTS_IN_A_TURN)]
    burst.append(NotedRequest(98, clock, gone=True))
    burst.append(NotedRequest(99, clock))
    asyncio.run(clock.run([burst]))

    assert [number for _, number in clock.started] == [
        *range(STARTS_IN_A_TURN),
        99,
    ]


def test_a_fault_in_one_start_holds_up_no_other() -> None:
    clock = TurnClock()
    burst = [NotedRequest(number, clock) for number in range(STARTS_IN_A_TURN)]
    burst.append(NotedRequest(98, clock, fault=True))
    burst += [NotedRequest(100 + number, clock) for number in range(2 * STARTS_IN_A_TURN)]
    asyncio.run(clock.run([burst]))

    assert len(clock.started) == len(burst)
    assert [str(fault) for fault in clock.faults] == ["its start fails"]
