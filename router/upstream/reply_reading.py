"""Replies that wrap a provider's reply, and readers with limits on bytes and time.

A wrapper does one thing: it rewrites marks (MovedReply), translates the protocol
(BridgedReply), or reads from a connection (PooledReply). `transports` combines them.
`router.request.upstream_call` judges a reply's status.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.event_stream import Irregularity
from router.upstream.endpoint_translation import TranslatedRequest
from router.upstream.origin_pool import OriginPool
from router.upstream.pool_connection import DONE, PoolConnection, too_large
from router.upstream.transport import TakeChunk, UpstreamReply

# The router ignores a longer error body.
MAX_ERROR_BYTES: Final = 256 * 1024
# The router waits this long for an error's body.
ERROR_WAIT_S: Final = 2.0


class WrappedReply(UpstreamReply):
    """A reply that passes another reply on; subclasses change its body."""

    def __init__(self, reply: UpstreamReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.dropped = reply.dropped
        self.refused = reply.refused
        self.opening_s = reply.opening_s
        self.progress_events = reply.progress_events
        self.unended = reply.unended
        self.local = reply.local
        self.unable = reply.unable
        self._reply = reply

    async def aclose(self) -> None:
        await self._reply.aclose()


class ReadReply(UpstreamReply):
    """A reply with a complete body. source: the original reply, which `aclose` closes, too."""

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        local: bool = False,
        unable: bool = False,
        source: UpstreamReply | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.local = local
        self.unable = unable
        self._body = body
        self._source = source

    async def body(self) -> bytes:
        return self._body

    async def aclose(self) -> None:
        if self._source is not None:
            await self._source.aclose()


async def read_error_body(reply: UpstreamReply) -> bytes:
    """Reads an error's body; returns an empty body if it is too long or incomplete."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_WAIT_S):
            async for chunk in reply.chunks():
                body += chunk
                if len(body) > MAX_ERROR_BYTES:
                    return b""
    except (TimeoutError, UpstreamFailed):
        return b""
    return body


# After the finish reason, the router waits this long for the usage and the last event. Some
# servers keep the connection open instead, or reset it.
LAST_EVENTS_S: Final = 5.0


async def chunks_until_end(
    chunks: AsyncIterator[bytes], ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yields chunks. After `ended`, a failure or LAST_EVENTS_S of silence is a normal end.

    Raises UpstreamFailed.
    """
    while True:
        has_ended = ended()
        try:
            async with asyncio.timeout(LAST_EVENTS_S if has_ended else None):
                chunk = await anext(chunks, None)
        except (TimeoutError, UpstreamFailed):
            if not has_ended:
                raise
            return
        if chunk is None:
            return
        yield chunk


# Rewrites a complete body, or one line of a stream.
Rewrite = Callable[[bytes], bytes]
_LENGTH: Final = b"content-length"


class MovedReply(WrappedReply):
    """Rewrites a reply. rewrite: None to change no bytes.

    dropped: the parts that the router removed from the request before it sent it.
    refused: the pieces that the target refused.
    """

    def __init__(
        self,
        reply: UpstreamReply,
        dropped: Sequence[str],
        refused: Sequence[str],
        rewrite: Rewrite | None,
    ) -> None:
        super().__init__(reply)
        self.refused = tuple(refused)
        self.dropped = (*dropped, *reply.dropped)
        self._rewrite = rewrite
        self._streams = reply.named.get(b"content-type", b"").startswith(b"text/event")
        if rewrite is not None:
            self.headers = [header for header in reply.headers if header[0] != _LENGTH]

    async def body(self) -> bytes:
        raw = await self._reply.body()
        self.unended = self._reply.unended
        if self._rewrite is None:
            return raw
        return _rewrite_lines(self._rewrite, raw) if self._streams else self._rewrite(raw)

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._rewrite is not None and not self._streams:
            yield await self.body()
            return
        incomplete_line = b""
        async for chunk in self._reply.chunks():
            self.progress_events = self._reply.progress_events
            if self._rewrite is None:
                yield chunk
                continue
            complete_lines, line_end, incomplete_line = (incomplete_line + chunk).rpartition(
                b"\n"
            )
            yield _rewrite_lines(self._rewrite, complete_lines + line_end)
        if self._rewrite is not None and incomplete_line:
            yield self._rewrite(incomplete_line)


def _rewrite_lines(rewrite: Rewrite, data: bytes) -> bytes:
    return b"\n".join([rewrite(line) for line in data.split(b"\n")])


class BridgedReply(WrappedReply):
    """An answer in the client's protocol. Status and headers are the provider's."""

    estimates_input = True

    def __init__(
        self,
        reply: UpstreamReply,
        request: TranslatedRequest,
        *,
        stream: bool,
    ) -> None:
        super().__init__(reply)
        self.dropped = tuple(dict.fromkeys((*request.dropped, *reply.dropped)))
        self._request = request
        self._stream = stream

    async def body(self) -> bytes:
        if self._stream:
            return b"".join([piece async for piece in self.chunks()])
        try:
            members = parse_object(await self._reply.body())
        except InputError as error:
            why = f"answer is not valid: {error}"
            raise UpstreamFailed(FailureClass.MALFORMED, why) from None
        answer = self._request.whole(members)
        self.given_usage = members.get("usage")
        self.unended = (
            self._request.dialect.irregularity(members) is Irregularity.NO_FINISH_REASON
        )
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields a piece for every piece of the provider. An empty one shows progress, too."""
        if not self._stream:
            yield await self.body()
            return
        events = self._request.events()
        async for chunk in chunks_until_end(self._reply.chunks(), lambda: events.ended):
            piece = events.feed(chunk)
            self.progress_events = events.progress_events
            self.given_usage = events.given_usage
            yield piece
            if events.failure is not None:
                raise events.failure
        yield events.end()
        if events.failure is not None:
            raise events.failure


PIECE_BYTES = 64 * 1024
# zlib reads the header and accepts gzip or zlib.
EITHER_HEADER = 32 + zlib.MAX_WBITS


class BoundedInflater:
    """Decodes gzip and deflate, in pieces of at most PIECE_BYTES."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(EITHER_HEADER)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the decoded pieces. Raises UpstreamFailed (malformed)."""
        while data:
            try:
                piece = self._zlib.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise UpstreamFailed(
                    FailureClass.MALFORMED, f"bad content encoding: {error}"
                ) from None
            if piece:
                yield piece
            if not piece and not self._zlib.unconsumed_tail:
                return
            data = self._zlib.unconsumed_tail


def inflater_for(encoding: str) -> BoundedInflater | None:
    """Finds a decoder for a content encoding; None for no encoding.

    Raises UpstreamFailed for an encoding that the router did not ask for.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return BoundedInflater()
        case unknown:
            raise UpstreamFailed(
                FailureClass.MALFORMED,
                f"content encoding {unknown[:40]!r}, which the router did not request",
            )


def _append(body: bytearray, piece: bytes) -> bool:
    body += piece
    return True


class PooledReply(UpstreamReply):
    """A reply that reads the body as it arrives.

    max_bytes: the limit of the decoded body. Close the reply to give its connection back.
    """

    __slots__ = (
        "_max_bytes",
        "_named",
        "_origin",
        "_wire",
        "headers",
        "opening_s",
        "status",
    )

    def __init__(
        self,
        wire: PoolConnection,
        origin: OriginPool,
        max_bytes: int,
    ) -> None:
        self.status = wire.status
        self.opening_s = wire.opening_s
        self.headers: Sequence[tuple[bytes, bytes]] = wire.headers
        self._named = wire.named
        self._wire: PoolConnection | None = wire
        self._origin = origin
        self._max_bytes = max_bytes

    @property
    def named(self) -> Mapping[bytes, bytes]:
        return self._named

    async def body(self) -> bytes:
        wire = self._wire
        if wire is None:
            return b""
        # Most answers arrive complete with their head, and need no list.
        if wire.phase is DONE and b"content-encoding" not in self._named:
            return wire.take()
        # A bytearray, because thousands of pieces would fragment the memory.
        body = bytearray()
        await self.pass_on(partial(_append, body))
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        inflater = inflater_for(self._encoding)
        left_bytes = self._max_bytes
        while self._wire is not None and (data := await self._wire.read()):
            for piece in (data,) if inflater is None else inflater.feed(data):
                left_bytes -= len(piece)
                if left_bytes < 0:
                    raise too_large(self._max_bytes)
                yield piece

    async def pass_on(self, take: TakeChunk) -> bool:
        wire = self._wire
        if wire is None:
            return True
        if b"content-encoding" in self._named:
            return await super().pass_on(take)
        return await wire.pass_on(take)

    async def aclose(self) -> None:
        # Forget the connection first, because another request may get it at once.
        wire = self._wire
        self._wire = None
        if wire is not None:
            self._origin.give_back(wire)

    @property
    def _encoding(self) -> str:
        return self._named.get(b"content-encoding", b"").decode("latin-1")
