"""Sends a row's requests to a gateway at a fixed rate, without waiting for earlier answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from typing import Final, NamedTuple

import httpx
import openai

from benchmarks.faults.catalogue import Manner, Row, Variant, route
from benchmarks.faults.client import (
    Left,
    Question,
    RequestResult,
    ask,
    leave,
)

IDLE = 400
SLOW = 100
HEAD: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 100000\r\n"
)
BYTE_EVERY_S: Final = 0.5


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[None]:
    """Holds idle and slow connections. Half of the slow clients never end their request's head,
    the other half never end its body.
    """
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


async def sit(
    port: int,
    *,
    slow: bool,
    head: bool,
) -> None:
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


# Longer than the gateway's time limits for two targets.
PATIENCE_S: Final = 10.0
HEALTHY: Final = Variant("f0-none")
_NUMBERS: Final = itertools.count(1)


class Gateway(NamedTuple):
    """The gateway to call. headers, model: functions of the route's name.
    left: returns the numbers of the requests that the providers saw hang up.
    """

    port: int
    headers: Callable[[str], Mapping[str, str]]
    left: Left
    model: Callable[[str], str] = str


def official_client(
    port: int,
    retries: int,
    patience_s: float,
) -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{port}/v1"
    patience = httpx.Timeout(patience_s)
    return openai.AsyncOpenAI(
        base_url=url,
        api_key="none",
        max_retries=retries,
        timeout=patience,
    )


async def played(
    row: Row,
    gateway: Gateway,
    *,
    retries: int,
    rate: float,
    seconds: float,
    patience_s: float = PATIENCE_S,
) -> list[RequestResult]:
    """Returns the results in the order of the requests' starts; each variant gets a request."""
    loop = asyncio.get_running_loop()
    number_of = max(len(row.variants), round(rate * row.share * seconds))
    beside: AbstractAsyncContextManager[None] = nullcontext()
    if row.manner is Manner.CROWD:
        beside = crowd(gateway.port)
    async with (
        official_client(gateway.port, retries, patience_s) as client,
        beside,
    ):
        # A client's first request takes ten times as long, because it opens the connection.
        await ask(
            client,
            question(gateway, route(HEALTHY, retries).name, number="warming-up"),
        )
        began = loop.time()
        tasks = []
        for turn in range(number_of):
            await asyncio.sleep(began + turn * seconds / number_of - loop.time())
            next_ = in_turn(row, gateway, turn, retries, loop.time() - began)
            leaves = row.manner is Manner.LEAVE
            doing = leave(client, next_, gateway.left) if leaves else ask(client, next_)
            tasks.append(asyncio.create_task(doing))
        return list(await asyncio.gather(*tasks))


def in_turn(
    row: Row,
    gateway: Gateway,
    turn: int,
    retries: int,
    begun: float,
) -> Question:
    """Builds the next request: variants take turns, each alternately streamed and plain."""
    lap, at = divmod(turn, len(row.variants))
    name = route(row.variants[at], retries).name
    stream = lap % 2 == 0 or row.manner is Manner.LEAVE
    return question(
        gateway,
        name,
        number=f"{next(_NUMBERS):x}",
        stream=stream,
        begun=begun,
    )


def question(
    gateway: Gateway,
    name: str,
    *,
    number: str,
    stream: bool = False,
    begun: float = 0.0,
) -> Question:
    return Question(number, gateway.model(name), stream, gateway.headers(name), begun)
