"""Reads a provider's error body within bounds of bytes and time, and a stream whose end was
announced, but whose last events may never come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from router.upstream.failure import UpstreamFailed
from router.upstream.transport import UpstreamReply

# Of a refusal, more than this is not a message.
MAX_BYTES: Final = 256 * 1024
# How long its words are waited for, once its status is known.
WAIT_S: Final = 2.0


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
