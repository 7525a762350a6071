"""Volume: requests at a fixed rate from a thread, each by a user of its own."""

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import httptools

from benchmarks.canary.sent_requests import MIXTURE, Harm, Kind, SentRequest, body, harm_in
from benchmarks.canary.wall_time import now_s

PATIENCE_S: Final = 30.0
# A machine that is too small gets fewer requests, and the table says how many.
MOST_UNDER_WAY: Final = 200
HEAD: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json"
    b"\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
)


class Client(asyncio.Protocol):
    """One connection, one request at a time. lost: the router has closed it."""

    lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, data: bytes) -> None:
        """Raises ConnectionError, TimeoutError."""
        self.status, self.headers, self.answer = 0, dict[bytes, bytes](), bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self._done

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(ConnectionError(str(error)))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self.answer += data

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        self._transport.close()


class Load:
    """route: that is asked from now on, empty for a pause. asked: all so far, as they ended."""

    def __init__(self, port: int, key: str, per_s: float, kinds: tuple[Kind, ...]) -> None:
        self.route = ""
        self.per_s = per_s
        self.asked: list[SentRequest] = []
        self.stopping = threading.Event()
        self._port, self._key, self._kinds = port, key.encode(), kinds
        self._free: deque[Client] = deque()
        self._numbers = itertools.count()
        self._under_way = 0
        self._run = f"{time.time_ns():x}"

    def since(self, start_s: float, route: str) -> list[SentRequest]:
        """Of that route, sent since then."""
        found = [*self.asked]
        return [
            request for request in found if request.route == route and request.sent_s >= start_s
        ]

    async def run(self) -> None:
        """Requests start when they are due, but for those that a full house does not take."""
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not self.stopping.is_set():
                # What a busy machine missed for half a second and more is not made up for.
                due = max(due + 1 / self.per_s, time.monotonic() - 0.5)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self.route and self._under_way < MOST_UNDER_WAY:
                    tasks.create_task(self._one(self.route, next(self._numbers)))

    async def _one(self, route: str, number: int) -> None:
        self._under_way += 1
        try:
            await self._send(route, number)
        finally:
            self._under_way -= 1

    async def _send(self, route: str, number: int) -> None:
        kind = self._kinds[number % len(self._kinds)]
        text = body(route, kind, f"user-{self._run}-{number}")
        sent_s = now_s()
        client = next((client_ for client_ in self._taken() if not client_.lost), None)
        try:
            if client is None:
                loop = asyncio.get_running_loop()
                client = (await loop.create_connection(Client, "127.0.0.1", self._port))[1]
            await client.ask(HEAD % (self._key, len(text)) + text)
        except (OSError, TimeoutError):
            if client is not None:
                client.close()
            self._note(route, kind, sent_s, {}, Harm.ERROR)
            return
        harm = harm_in(kind, client.status, bytes(client.answer))
        self._note(route, kind, sent_s, client.headers, harm)
        self._free.append(client)

    def _taken(self) -> Iterator[Client]:
        while self._free:
            yield self._free.popleft()

    def _note(
        self,
        route: str,
        kind: Kind,
        sent_s: float,
        headers: dict[bytes, bytes],
        harm: Harm | None,
    ) -> None:
        arm = headers.get(b"x-swapgate-arm", b"").decode()
        worker = headers.get(b"x-swapgate-request-id", b"").decode().rpartition("-")[0]
        self.asked.append(
            SentRequest(route, kind, sent_s, now_s(), arm, worker.removeprefix("req_"), harm)
        )


@contextmanager
def pouring(
    port: int, key: str, per_s: float, kinds: tuple[Kind, ...] = MIXTURE
) -> Iterator[Load]:
    load = Load(port, key, per_s, kinds)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()), name="load")
    thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        thread.join(2 * PATIENCE_S)
