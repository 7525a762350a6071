"""Replies around others (`WrappedReply`) and those whose body is here (`ReadReply`). Reads a
provider's error body within bounds of bytes and time, and a stream whose end was announced, but
whose last events may never come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from router.upstream.failure import UpstreamFailed
from router.upstream.transport import UpstreamReply

# Of a refusal, more than this is not a message.
MAX_BYTES: Final = 256 * 1024
# How long its words are waited for, once its status is known.
WAIT_S: Final = 2.0


class WrappedReply(UpstreamReply):
    """A reply around another one, of which it says the same."""

    def __init__(self, reply: UpstreamReply) -> None:
        self.status, self.headers = reply.status, reply.headers
        self.dropped, self.refused = reply.dropped, reply.refused
        self.opening_s, self.progress_events = reply.opening_s, reply.progress_events
        self.unended, self.local = reply.unended, reply.local
        self._reply = reply

    async def aclose(self) -> None:
        await self._reply.aclose()


class ReadReply(UpstreamReply):
    """A reply whose body is here. source: the reply that it was read of, which ends with it."""

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        local: bool = False,
        source: UpstreamReply | None = None,
    ) -> None:
        self.status, self.headers, self.local = status, headers, local
        self._body = body
        self._source = source

    async def body(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        if self._source is not None:
            await self._source.aclose()


async def read_error_body(reply: UpstreamReply) -> bytes:
    """Reads the body of an error; empty for one that does not come whole: the status says
    enough.
    """
    found = b""
    try:
        async with asyncio.timeout(WAIT_S):
            async for chunk in reply.chunks():
                found += chunk
                if len(found) > MAX_BYTES:
                    return b""
    except (TimeoutError, UpstreamFailed):
        return b""
    return found


# After the reason to end: for the usage, and for the protocol's own last event. Some servers
# keep the connection open instead, or reset it.
LAST_EVENTS_S: Final = 5.0


async def chunks_until_end(
    chunks: AsyncIterator[bytes], ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yields the chunks; once `ended`, a failure or a silence is their end like any other.

    Raises UpstreamFailed for a failure before it.
    """
    while True:
        over = ended()
        try:
            async with asyncio.timeout(LAST_EVENTS_S if over else None):
                chunk = await anext(chunks, None)
        except (TimeoutError, UpstreamFailed):
            if not over:
                raise
            return
        if chunk is None:
            return
        yield chunk
