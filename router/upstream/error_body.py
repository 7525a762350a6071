"""The words of a reply that is not 2xx, bounded in bytes and in time."""

import asyncio
from typing import Final

from router.upstream.transport import UpstreamFailed, UpstreamReply

# Of a refusal, more than this is not a message.
MAX_BYTES: Final = 256 * 1024
# How long its words are waited for, once its status is known.
WAIT_S: Final = 2.0


async def read_error_body(reply: UpstreamReply) -> bytes:
    """Empty for what does not come whole: the status says enough."""
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
