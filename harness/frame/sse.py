"""Parses server-sent events for the router, the client and the provider probes: `SseParser`
splits a byte stream into events, and `EventPayloads` yields their data.
"""

import re
from abc import ABC, abstractmethod
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Final
from weakref import WeakKeyDictionary

# OpenAI's and Google's models write pictures of several MiB into one event.
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
# The limit of all unfinished large events of a process together.
MAX_UNFINISHED_BYTES: Final = 256 * 1024 * 1024
# Above this size, an event stays in pieces. To join the pieces at each new piece would take
# seconds.
_LARGE_BYTES: Final = 256 * 1024
_LONGEST_END: Final = len(b"\r\n\r\n")
_EVENT_END: Final = re.compile(rb"\r?\n\r?\n|\r\r")
LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(ValueError):
    """Raised if an event exceeds MAX_EVENT_BYTES; the rest of the stream is unreadable."""


class _LargeEvent:
    """Holds the beginning of an event, in pieces, until the rest arrives. size: in bytes."""

    def __init__(self, beginning: bytes) -> None:
        self._pieces = [beginning]
        self._tail = beginning[1 - _LONGEST_END :]
        self.size = len(beginning)

    def add(self, data: bytes) -> bool:
        """Adds bytes. Returns whether they may contain the event's end."""
        self._pieces.append(data)
        self.size += len(data)
        end = self._tail + data
        self._tail = end[1 - _LONGEST_END :]
        return _EVENT_END.search(end) is not None

    def joined(self) -> bytes:
        return b"".join(self._pieces)


# The unfinished large events of this process, by parser. An unused parser disappears from it.
_UNFINISHED: Final[WeakKeyDictionary["SseParser", _LargeEvent]] = WeakKeyDictionary()


class SseParser(ABC):
    """Splits a stream into events, wherever the network splits the bytes.

    failure: why the stream is broken, else empty. After a failure, feed no more bytes.
    finished: whether the stream ended as its protocol requires.
    """

    # Class attributes, which are faster than a constructor for each stream.
    failure = ""
    finished = False
    _buffer = b""
    _begun = False
    _pieces: _LargeEvent | None = None  # the unfinished event, once it is large

    @abstractmethod
    def _event(self, event: bytes, end: bytes) -> bytes:
        """Converts one complete event.

        Args:
            end: the empty line after it.
        """

    @abstractmethod
    def _fail(self, why: str) -> None:
        """Handles a broken stream."""

    def _refuse_more(self, why: str) -> None:
        """Handles an event that is within its own limit, while the process holds too much."""
        self._fail(why)

    def _join(self) -> bytes:
        """Puts the unfinished event into the buffer. Returns the buffer."""
        if self._pieces is not None:
            self._buffer = self._pieces.joined()
            self._pieces = None
            del _UNFINISHED[self]
        return self._buffer

    def _hold(self, event: _LargeEvent) -> None:
        """Keeps an unfinished large event in pieces, unless a limit is reached."""
        self._buffer = b""
        self._pieces = _UNFINISHED[self] = event
        if event.size > MAX_EVENT_BYTES:
            self._fail(f"an event larger than {MAX_EVENT_BYTES} bytes")
        elif sum(unfinished.size for unfinished in _UNFINISHED.values()) > MAX_UNFINISHED_BYTES:
            self._refuse_more(
                f"the unfinished events of all streams are larger than {MAX_UNFINISHED_BYTES} "
                "bytes together"
            )
        if self.failure:
            del _UNFINISHED[self]
            self._pieces = None

    def feed(self, data: bytes) -> bytes:
        """Adds bytes. Returns the converted events that the bytes complete."""
        if self._pieces is not None:
            if not self._pieces.add(data):
                self._hold(self._pieces)
                return b""
            self._join()
            searched = 0
        else:
            # Searches the old bytes again only for an event end that the network split.
            searched = max(0, len(self._buffer) - _LONGEST_END + 1)
            self._buffer += data
        if not self._begun:
            if len(self._buffer) < len(BOM_UTF8) and BOM_UTF8.startswith(self._buffer):
                return b""
            self._begun = True
            self._buffer = self._buffer.removeprefix(BOM_UTF8)
        # Up to Python 3.11, `in` raises an error inside, which costs more than a short search.
        if self._buffer.find(b"\r") >= 0:
            out = self._cut_at_any_end(searched)
        else:
            # The fast way, because most providers end lines with \n, and the pattern is slow.
            out = []
            start = 0
            buffer = self._buffer
            end = buffer.find(b"\n\n", searched)
            while end >= 0:
                out.append(self._event(buffer[start:end], b"\n\n"))
                start = end + 2
                end = -1 if self.failure or self.finished else buffer.find(b"\n\n", start)
            self._buffer = buffer[start:]
        if len(self._buffer) > _LARGE_BYTES and not (self.failure or self.finished):
            self._hold(_LargeEvent(self._buffer))
        return b"".join(out)

    def _cut_at_any_end(self, searched: int) -> list[bytes]:
        """Converts the complete events.

        Args:
            searched: an index before which no event ends.
        """
        out: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(self._buffer, searched):
            out.append(self._event(self._buffer[start : end.start()], end.group()))
            start = end.end()
            if self.failure or self.finished:
                break
        self._buffer = self._buffer[start:]
        return out


class EventPayloads(SseParser):
    """Yields only the data of each event."""

    def __init__(self) -> None:
        self._payloads: list[bytes] = []

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yields the payloads of the events that `data` completes. Raises EventTooLarge."""
        self.feed(data)
        payloads = self._payloads
        self._payloads = []
        yield from payloads
        if self.failure:
            raise self._error(self.failure)

    def rest(self) -> Iterator[bytes]:
        """Yields the payload of a last event that ends with the stream."""
        if self._join().strip():
            yield from self.read(b"\n\n")

    def _event(self, event: bytes, end: bytes) -> bytes:  # noqa: ARG002 - the hook's
        payload = event_data(event)
        if payload is not None:
            self._payloads.append(payload)
        return b""

    def _fail(self, why: str) -> None:
        self.failure = why

    def _error(self, why: str) -> Exception:
        """Builds the error that `read` raises for a broken stream."""
        return EventTooLarge(why)


def event_data(event: bytes) -> bytes | None:
    """Returns the event's data; None if it has no data or empty data, which readers skip."""
    if event.startswith(b"data:") and event.find(b"\n") < 0 and event.find(b"\r") < 0:
        return event[5:].strip() or None
    lines = [line[5:].strip() for line in LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) or None
