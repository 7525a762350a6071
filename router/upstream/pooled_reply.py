"""Reads a reply of the pool as it arrives, decompressed and bounded in size.

Apart from the pool, since mypyc compiles no asynchronous generator.
"""

import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

from harness.domain.reliability.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.upstream.origin_pool import OriginPool
from router.upstream.pool_connection import PoolConnection
from router.upstream.transport import UpstreamReply

PIECE_BYTES = 64 * 1024
# zlib reads the header and takes gzip or zlib.
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
    """Returns the decoder of an encoding; None for no encoding. Raises UpstreamFailed for one
    that we did not ask for.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return BoundedInflater()
        case other:
            raise UpstreamFailed(
                FailureClass.MALFORMED, f"content encoding {other[:40]!r} was not asked for"
            )


class PooledReply(UpstreamReply):
    """A reply whose body is read as it arrives, up to max_bytes."""

    __slots__ = ("_max_bytes", "_origin", "_size", "_wire", "headers", "opening_s", "status")

    def __init__(self, wire: PoolConnection, origin: OriginPool, max_bytes: int) -> None:
        self.status, self.opening_s = wire.status, wire.opening_s
        self.headers: Sequence[tuple[bytes, bytes]] = wire.headers
        self._wire: PoolConnection | None = wire
        self._origin = origin
        self._max_bytes = max_bytes
        self._size = 0  # of what was read

    async def body(self) -> bytes:
        wire = self._wire
        # Most answers come whole with their head, and need no generator.
        if wire is not None and wire.complete and not self._encoding:
            data = await wire.read()
            if len(data) > self._max_bytes:
                raise too_large(self._max_bytes)
            return data
        # Thousands of pieces would leave holes in memory that nothing else fills.
        body = bytearray()
        async for piece in self.chunks():
            body += piece
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        inflater = inflater_for(self._encoding)
        while self._wire is not None and (data := await self._wire.read()):
            for piece in inflater.feed(data) if inflater else (data,):
                self._size += len(piece)
                if self._size > self._max_bytes:
                    raise too_large(self._max_bytes)
                yield piece

    def count(self, more: int) -> None:
        """Counts bytes about to be taken. Raises UpstreamFailed where they are too many."""
        size = self._size + more
        if size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._size = size

    async def aclose(self) -> None:
        # Taken away first: soon the connection is another request's.
        wire, self._wire = self._wire, None
        if wire is not None:
            self._origin.give_back(wire)

    @property
    def _encoding(self) -> str:
        return dict(self.headers).get(b"content-encoding", b"").decode("latin-1")


def too_large(max_bytes: int) -> UpstreamFailed:
    return UpstreamFailed(FailureClass.MALFORMED, f"answer larger than {max_bytes} bytes")
