"""Writes to a client no faster than it reads, and disconnects a client that stops reading.

A client that reads slowly keeps its answer; a client that reads no byte within STALLED_S
loses it. `connection` and `request_cycle` decide what is written.
"""

import asyncio
import fcntl
import termios
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from router.server.request_cycle import SLICE_BYTES

# The router disconnects a client that reads nothing for this long, because it occupies a
# provider connection and a request slot.
STALLED_S: Final = 60.0


class SlowReader:
    """Writes to one client as it reads. full: writers must wait (`wait_until_drained`)."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.full = False
        self._transport = transport
        self._loop = loop
        self._waiting_writers: list[asyncio.Future[None]] = []
        self._unwritten = memoryview(b"")  # of an answer that is written in slices
        self._on_all_written: Callable[[], None] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread_bytes_before = 0  # at the last check

    def fill(self) -> None:
        """Notes that the transport's buffer is full, and begins to watch the client."""
        self.full = True
        self.watch()

    def drain(self) -> None:
        """Notes that the buffer has room, and lets waiting writers continue."""
        self.full = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        for waiter in self._waiting_writers:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting_writers.clear()
        if self._on_all_written is not None:
            self._write_slice()

    def leave(self) -> None:
        """Drops the unwritten bytes, because the client has left."""
        self._unwritten = memoryview(b"")
        self._on_all_written = None
        self.drain()

    def write_in_slices(self, data: bytes, on_written: Callable[[], None]) -> None:
        """Writes a whole answer in slices.

        Args:
            on_written: called once, after the last slice.
        """
        self._unwritten = memoryview(data)
        self._on_all_written = on_written
        self._write_slice()

    def _write_slice(self) -> None:
        if self.full or self._on_all_written is None:
            return
        self._transport.write(self._unwritten[:SLICE_BYTES])
        self._unwritten = self._unwritten[SLICE_BYTES:]
        if self._unwritten:
            if not self.full:
                self._loop.call_soon(self._write_slice)
            return
        on_written = self._on_all_written
        self._on_all_written = None
        on_written()

    async def wait_until_drained(self) -> None:
        if self.full:
            waiter = self._loop.create_future()
            self._waiting_writers.append(waiter)
            await waiter

    def watch_to_end(self) -> None:
        """Watches the client until the last bytes of a closing connection are read."""
        if self._stall_timer is None and self._transport.get_write_buffer_size():
            self.watch()

    def watch(self) -> None:
        """Checks after STALLED_S whether the client has read anything since now."""
        self._unread_bytes_before = self._count_unread_bytes()
        self._stall_timer = self._loop.call_later(STALLED_S, self._check_stall)

    def _count_unread_bytes(self) -> int:
        """Counts the bytes that the client has not received. Includes the system's send buffer
        if its size is known, because it can hold megabytes.
        """
        count = array("i", [0])
        with suppress(OSError):
            fcntl.ioctl(
                self._transport.get_extra_info("socket"),
                termios.TIOCOUTQ,
                count,
            )
        return self._transport.get_write_buffer_size() + len(self._unwritten) + count[0]

    def _check_stall(self) -> None:
        if self._count_unread_bytes() < self._unread_bytes_before:
            self.watch()
        else:
            self._transport.abort()
