"""Viewers of one page of the dashboard, over Streamlit's own protocol: each opens a WebSocket,
asks for the page, and then for its live block every time that the page's fragment is due, as
the browser does. Without a browser, so that what is measured is the server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

SUBPROTOCOL = "streamlit"
MOST_BYTES = 64 * 2**20
PATIENCE_S = 120.0


@dataclass
class Viewer:
    """One browser's connection to a page."""

    connection: ClientConnection
    path: str  # `/canary?route=chat`
    fragments: dict[str, float] = field(default_factory=dict)  # id -> its interval in seconds
    page: str = ""  # the page's hash, as the server calls it

    async def open_page(self) -> float:
        """Asks for the page; returns after how many seconds the server had sent all of it."""
        parts = urlsplit(self.path)
        message = BackMsg()
        message.rerun_script.query_string = parts.query
        message.rerun_script.page_name = parts.path.strip("/")
        return await self._answered(message)

    async def refresh(self) -> float:
        """Asks for the page's live block; returns after how many seconds it was there."""
        fragment = next(iter(self.fragments))
        message = BackMsg()
        message.rerun_script.query_string = urlsplit(self.path).query
        message.rerun_script.page_script_hash = self.page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = True
        return await self._answered(message)

    async def _answered(self, message: BackMsg) -> float:
        begins = time.perf_counter()
        await self.connection.send(message.SerializeToString())
        async with asyncio.timeout(PATIENCE_S):
            async for raw in self.connection:
                answer = ForwardMsg()
                answer.ParseFromString(bytes(raw) if not isinstance(raw, str) else raw.encode())
                kind = answer.WhichOneof("type")
                if kind == "new_session":
                    self.page = answer.new_session.page_script_hash
                elif kind == "auto_rerun":
                    self.fragments[answer.auto_rerun.fragment_id] = answer.auto_rerun.interval
                elif kind == "script_finished":
                    return time.perf_counter() - begins
        raise ConnectionError("the dashboard closed the connection")


@asynccontextmanager
async def connected(address: str, path: str) -> AsyncIterator[Viewer]:
    stream = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
    async with connect(
        stream,
        origin=Origin(address),
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a str by another name
        max_size=MOST_BYTES,
    ) as connection:
        yield Viewer(connection, path)


async def watch(address: str, path: str, refreshes: int, every_s: float) -> Sequence[float]:
    """Opens a page, and takes its live block so many times; the seconds that each took.

    A refresh that takes longer than the interval delays the next one, as in a browser.
    """
    times = []
    async with connected(address, path) as viewer:
        await viewer.open_page()
        for _ in range(refreshes):
            begins = time.perf_counter()
            times.append(await viewer.refresh())
            await asyncio.sleep(max(0.0, every_s - (time.perf_counter() - begins)))
    return times


async def watch_together(
    viewers: int, address: str, path: str, refreshes: int, every_s: float
) -> Sequence[float]:
    """Lets so many watch at once, begun spread over an interval; all of their seconds."""

    async def begun_later(number: int) -> Sequence[float]:
        await asyncio.sleep(number * every_s / viewers)
        return await watch(address, path, refreshes, every_s)

    found = await asyncio.gather(*(begun_later(number) for number in range(viewers)))
    return [seconds for times in found for seconds in times]
