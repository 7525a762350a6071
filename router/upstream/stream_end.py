"""The end of a provider's stream that has said why it ends, and may say nothing more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from router.upstream.transport import UpstreamFailed

# After the reason to end: for the usage, and for the protocol's own last event. Some servers
# keep the connection open instead, or reset it.
LAST_EVENTS_S: Final = 5.0


async def chunks_until_end(
    chunks: AsyncIterator[bytes], ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The chunks. Once `ended`, a failure or a silence is their end like any other.

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
