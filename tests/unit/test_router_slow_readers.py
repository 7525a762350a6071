import asyncio
import itertools
import socket
from contextlib import suppress
from typing import Any

import pytest
from uvicorn.config import Config

from router.server.connection import Connection, ConnectionState
from router.server.process import UNSENT_BYTES, bound_unsent
from router.server.request_cycle import SLICE_BYTES

pytestmark = pytest.mark.req("G5")

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = bytes(range(256)) * 8192  # 2 MiB


class SlowReader(asyncio.Transport):
    """What a client has not read yet, beyond `room`, pauses the writer."""

    def __init__(self, protocol: Connection, room: int) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.left = self.room = room
        self.paused_reading = self.closed = False
        self._protocol = protocol
        self._socket, self._other = socket.socketpair()

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        self.left -= len(data)
        if self.left <= 0 and not self._protocol.full:
            self._protocol.pause_writing()

    def take(self) -> None:
        self.left = self.room
        if self._protocol.full:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return max(0, -self.left)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket if name == "socket" else default

    def pause_reading(self) -> None:
        self.paused_reading = True

    def resume_reading(self) -> None:
        self.paused_reading = False

    def end(self) -> None:
        self._socket.close()
        self._other.close()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Opened:
    """A connection to an application that answers with BODY; `done` counts its answers."""

    def __init__(self, room: int) -> None:
        self.done = 0
        config = Config(
            self._app,
            http=Connection,
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
        )
        config.load()
        self.connection = Connection(config, ConnectionState(), {})
        self.reader = SlowReader(self.connection, room)
        self.connection.connection_made(self.reader)

    async def _app(
        self,
        scope: Any,  # noqa: ARG002 - ASGI
        receive: Any,  # noqa: ARG002 - ASGI
        send: Any,
    ) -> None:
        length = (b"content-length", str(len(BODY)).encode())
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [length],
            }
        )
        await send({"type": "http.response.body", "body": BODY})
        self.done += 1

    def close(self) -> None:
        self.connection.connection_lost(None)
        self.reader.end()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_big_answer_is_written_slice_by_slice_as_the_client_takes_it() -> None:
    opened = Opened(room=SLICE_BYTES)
    opened.connection.data_received(ASK + ASK)
    await turns()

    # Its request is over, it takes no time from anybody, and the next one waits.
    assert opened.done == 1
    assert len(opened.reader.written) == 1
    await turns(50)
    assert len(opened.reader.written) == 1
    for _ in range(100):
        opened.reader.take()
        await turns()

    assert opened.done == 2
    assert max(len(character) for character in opened.reader.written) <= SLICE_BYTES
    out = b"".join(opened.reader.written)
    head = out.partition(BODY)[0]
    first = out.find(BODY)
    second = out.rfind(BODY)
    assert head.startswith(b"HTTP/1.1 200")
    assert 0 < first < second
    assert out.endswith(BODY)
    opened.close()


async def test_a_quick_reader_gets_one_slice_for_each_turn_of_the_others() -> None:
    opened = Opened(room=100 * len(BODY))
    opened.connection.data_received(ASK)
    others = 0
    seen = []
    while opened.done == 0 or len(b"".join(opened.reader.written)) < len(BODY):
        await asyncio.sleep(0)
        others += 1
        seen.append(len(opened.reader.written))

    assert all(after - before <= 1 for before, after in itertools.pairwise(seen))
    assert others >= len(BODY) // SLICE_BYTES
    opened.close()


async def test_a_client_that_leaves_within_a_big_answer_leaves_nothing_behind() -> None:
    opened = Opened(room=SLICE_BYTES)
    opened.connection.data_received(ASK)
    await turns()
    opened.close()
    await turns()

    assert len(opened.reader.written) == 1
    assert opened.connection._reader._on_all_written is None


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="not of this system")
def test_the_system_holds_little_for_a_client_that_does_not_read() -> None:
    """Without a bound it takes megabytes, and a stream is looked through so far ahead."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as deaf,
    ):
        bound_unsent(listener)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(listener.getsockname())
        writer, _ = listener.accept()
        with writer:
            writer.settimeout(0)
            taken = 0
            with suppress(BlockingIOError):
                while taken < 64 * UNSENT_BYTES:
                    taken += writer.send(b"x" * 65536)
    assert taken < 8 * UNSENT_BYTES
