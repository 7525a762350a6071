"""Clients that only sit there, and clients that send a byte now and then (fault 13)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

IDLE, SLOW = 400, 100
HEAD: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 100000\r\n"
)
BYTE_EVERY_S: Final = 0.5


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[None]:
    """Half of the slow ones never end their head, the others never end their body."""
    tasks = [
        asyncio.create_task(sit(port, slow=number < SLOW, head=number % 2 == 0))
        for number in range(IDLE + SLOW)
    ]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def sit(port: int, *, slow: bool, head: bool) -> None:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if not slow:
                await asyncio.Event().wait()
            writer.write(HEAD if head else HEAD + b"\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(BYTE_EVERY_S)
        finally:
            writer.close()
