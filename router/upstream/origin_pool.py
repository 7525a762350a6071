"""Opens, keeps and lends the connections to one origin, up to a limit.

An origin is host, port and TLS. `pool` chooses it, `pool_connection` is one of its
connections. The addresses that a name resolves to are checked here at each connection,
because they may change after the configuration was checked.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Final, NamedTuple

from harness.frame.failures import FailureClass
from harness.providers.api_base_rules import may_connect
from router.frame.failure import UpstreamFailed
from router.upstream.pool_connection import PoolConnection

# Shorter than the usual idle time of servers, so that the router closes first.
IDLE_S: Final = 15.0
WAITING_PER_CONNECTION: Final = 4


class OriginAddress(NamedTuple):
    """Where an origin's connections lead."""

    host: str
    port: int
    tls: ssl.SSLContext | None  # None for plain TCP
    # Exceptions to the addresses that `may_connect` refuses.
    allowed: Collection[str] = ()


class OriginPool:
    """Holds at most `limit` connections, and a limited queue of waiting requests.

    connect_timeout_s: for name resolution, all addresses and TLS together.
    """

    def __init__(self, address: OriginAddress, *, limit: int, connect_timeout_s: float) -> None:
        self._address = address
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[tuple[float, PoolConnection]] = []
        self._lent: set[PoolConnection] = set()
        self._taken = 0  # connections that requests use or open
        self._line: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def lend(self, *, fresh: bool = False) -> PoolConnection:
        """Lends a connection, which the caller must give back. Raises UpstreamFailed.

        Waits while all are in use. fresh: opens a new one, because the provider may have
        closed idle connections. Raises OVERLOADED if too many requests wait, CONNECT or
        TIMEOUT if no address answers.
        """
        if self._taken < self._limit:
            self._taken += 1
        else:
            await self._place()
        try:
            if fresh:
                self._make_room()
            wire = (None if fresh else self._kept()) or await self._opened()
        except BaseException:
            self._leave()
            raise
        self._lent.add(wire)
        return wire

    def lend_idle(self) -> PoolConnection | None:
        """Lends an idle connection. Returns None if all are in use, or if the pool is full."""
        if self._taken >= self._limit:
            return None
        wire = self._kept()
        if wire is not None:
            self._taken += 1
            self._lent.add(wire)
        return wire

    def give_back(self, wire: PoolConnection) -> None:
        """Takes a connection back. Keeps it if its answer is complete, else aborts it."""
        self._lent.remove(wire)
        if wire.rest():
            now = wire.loop.time()
            self._idle.append((now, wire))
            if self._sweeper is None:
                self._sweep_at(now + IDLE_S)
        else:
            wire.abort()
        if self._line:
            self._leave()
        else:
            self._taken -= 1

    def close(self) -> None:
        """Aborts all connections. Requests under way fail."""
        for wire in (*self._lent, *(idle for _, idle in self._idle)):
            wire.abort()
        self._idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _make_room(self) -> None:
        if len(self._idle) + self._taken > self._limit:
            self._idle.pop(0)[1].abort()

    def _kept(self) -> PoolConnection | None:
        """Returns an idle connection that the provider has not closed; the latest used
        first.
        """
        while self._idle:
            _, wire = self._idle.pop()
            if wire.quiet:
                return wire
            wire.abort()
        return None

    async def _place(self) -> None:
        """Waits for a connection in the order of arrival. Raises UpstreamFailed if the
        queue is full.
        """
        if len(self._line) >= self._limit * WAITING_PER_CONNECTION:
            raise UpstreamFailed(
                FailureClass.OVERLOADED, "too many requests wait for a connection"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # `_leave` has just removed it
                    self._line.remove(turn)
            else:
                self._leave()
            raise

    def _leave(self) -> None:
        """Gives the caller's place to the first waiting request."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1

    async def _opened(self) -> PoolConnection:
        """Opens a connection within connect_timeout_s. Raises UpstreamFailed without an
        address in its text.
        """
        began = time.monotonic()  # the loop's clock may not advance within a millisecond
        try:
            async with asyncio.timeout(self._connect_timeout_s) as limit:
                wire = await self._connected(limit.when() or 0)
        except TimeoutError:
            raise UpstreamFailed(FailureClass.TIMEOUT, "no connection in time") from None
        except (OSError, ValueError) as error:
            # Only the type, because the error's text may contain an address.
            raise UpstreamFailed(FailureClass.CONNECT, type(error).__name__) from None
        wire.opening_s = time.monotonic() - began
        return wire

    async def _connected(self, deadline: float) -> PoolConnection:
        """Tries the name's addresses one after the other, and divides the remaining time
        among them.
        """
        loop = asyncio.get_running_loop()
        host, port, tls, allowed = self._address
        name = host if tls else None
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        turns = interleave_addresses([(family, str(where[0])) for family, *_, where in found])
        # Check at connection time, because the name's addresses may change.
        places = [turn for turn in turns if may_connect(host, turn, allowed)]
        if not places:
            raise UpstreamFailed(
                FailureClass.CONNECT,
                "its name resolves to an address that Swapgate does not call",
            )
        for left in range(len(places), 0, -1):
            way = loop.create_connection(
                PoolConnection, places[-left], port, ssl=tls, server_hostname=name
            )
            if left == 1:
                break
            with suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout((deadline - loop.time()) / left):
                    return (await way)[1]
        return (await way)[1]

    def _sweep_at(self, when: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        old = asyncio.get_running_loop().time() - IDLE_S
        for since, wire in self._idle:
            if since <= old:
                wire.abort()
        self._idle = [idle for idle in self._idle if idle[0] > old]
        if self._idle:
            self._sweep_at(self._idle[0][0] + IDLE_S)


def interleave_addresses(found: Sequence[tuple[int, str]]) -> list[str]:
    """Alternates address families: a failing family costs one try (RFC 8305, section 4)."""
    families = dict.fromkeys(family for family, _ in found)
    queues = [[where for kind, where in found if kind == family] for family in families]
    rows = chain.from_iterable(zip_longest(*queues))
    return list(dict.fromkeys(where for where in rows if where is not None))
