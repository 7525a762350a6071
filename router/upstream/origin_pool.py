"""Opens, keeps and lends the connections to one origin, up to a limit.

An origin is host, port and TLS. `pool` chooses it, `pool_connection` is one of its
connections. This module checks a name's addresses at each connection, because they may change
after the control plane checked the configuration.
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

    def __init__(
        self,
        address: OriginAddress,
        *,
        limit: int,
        connect_timeout_s: float,
    ) -> None:
        self._address = address
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[tuple[float, PoolConnection]] = []
        self._lent: set[PoolConnection] = set()
        self._places_in_use = 0  # connections that requests use or open
        self._waiting_requests: deque[asyncio.Future[None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def lend(self, *, fresh: bool = False) -> PoolConnection:
        """Lends a connection, which the caller must give back. Raises UpstreamFailed.

        Waits while all connections are in use.

        Args:
            fresh: opens a new connection, because the provider may have closed idle ones.

        The failure is OVERLOADED if too many requests wait, CONNECT or TIMEOUT if no address
        answers.
        """
        if self._places_in_use < self._limit:
            self._places_in_use += 1
        else:
            await self._wait_for_place()
        try:
            if fresh:
                self._make_room()
            wire = (None if fresh else self._take_idle()) or await self._open_connection()
        except BaseException:
            self._pass_place_on()
            raise
        self._lent.add(wire)
        return wire

    def lend_idle(self) -> PoolConnection | None:
        """Lends an idle connection. Returns None if all are in use, or if the pool is full."""
        if self._places_in_use >= self._limit:
            return None
        wire = self._take_idle()
        if wire is not None:
            self._places_in_use += 1
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
        if self._waiting_requests:
            self._pass_place_on()
        else:
            self._places_in_use -= 1

    def close(self) -> None:
        """Aborts all connections. Current requests fail."""
        for wire in (*self._lent, *(idle for _, idle in self._idle)):
            wire.abort()
        self._idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _make_room(self) -> None:
        if len(self._idle) + self._places_in_use > self._limit:
            self._idle.pop(0)[1].abort()

    def _take_idle(self) -> PoolConnection | None:
        """Takes the most recently used idle connection that the provider has not closed."""
        while self._idle:
            _, wire = self._idle.pop()
            if wire.quiet:
                return wire
            wire.abort()
        return None

    async def _wait_for_place(self) -> None:
        """Waits for a place in the order of arrival. Raises UpstreamFailed if too many wait."""
        if len(self._waiting_requests) >= self._limit * WAITING_PER_CONNECTION:
            raise UpstreamFailed(
                FailureClass.OVERLOADED,
                "too many requests wait for a connection",
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_requests.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):  # `_pass_place_on` has just removed it
                    self._waiting_requests.remove(place)
            else:
                self._pass_place_on()
            raise

    def _pass_place_on(self) -> None:
        """Gives the caller's place to the first waiting request."""
        while self._waiting_requests:
            place = self._waiting_requests.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._places_in_use -= 1

    async def _open_connection(self) -> PoolConnection:
        """Opens a connection within connect_timeout_s.

        Raises UpstreamFailed. Its text contains no address.
        """
        began_s = time.monotonic()  # the loop's clock may not advance within a millisecond
        try:
            async with asyncio.timeout(self._connect_timeout_s) as timeout:
                wire = await self._connect(timeout.when() or 0)
        except TimeoutError:
            raise UpstreamFailed(FailureClass.TIMEOUT, "no connection in time") from None
        except (OSError, ValueError) as error:
            # Only the type, because the error's text may contain an address.
            raise UpstreamFailed(FailureClass.CONNECT, type(error).__name__) from None
        wire.opening_s = time.monotonic() - began_s
        return wire

    async def _connect(self, deadline: float) -> PoolConnection:
        """Tries the name's addresses one after another. They share the remaining time."""
        loop = asyncio.get_running_loop()
        host, port, tls, allowed = self._address
        tls_name = host if tls else None
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ordered_addresses = interleave_addresses(
            [(family, str(where[0])) for family, *_, where in addresses]
        )
        # Check at connection time, because the name's addresses may change.
        allowed_addresses = [
            turn for turn in ordered_addresses if may_connect(host, turn, allowed)
        ]
        if not allowed_addresses:
            raise UpstreamFailed(
                FailureClass.CONNECT,
                "its name resolves to an address that Swapproof does not call",
            )
        for tries_left in range(len(allowed_addresses), 0, -1):
            connecting = loop.create_connection(
                PoolConnection,
                allowed_addresses[-tries_left],
                port,
                ssl=tls,
                server_hostname=tls_name,
            )
            if tries_left == 1:
                break
            with suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout((deadline - loop.time()) / tries_left):
                    return (await connecting)[1]
        return (await connecting)[1]

    def _sweep_at(self, when: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        idle_limit_s = asyncio.get_running_loop().time() - IDLE_S
        for idle_since_s, wire in self._idle:
            if idle_since_s <= idle_limit_s:
                wire.abort()
        self._idle = [idle for idle in self._idle if idle[0] > idle_limit_s]
        if self._idle:
            self._sweep_at(self._idle[0][0] + IDLE_S)


def interleave_addresses(addresses: Sequence[tuple[int, str]]) -> list[str]:
    """Alternates address families, so that a failing family costs one try.

    Source: RFC 8305, section 4.
    """
    families = dict.fromkeys(family for family, _ in addresses)
    queues = [
        [address for address_family, address in addresses if address_family == family]
        for family in families
    ]
    interleaved = chain.from_iterable(zip_longest(*queues))
    return list(dict.fromkeys(address for address in interleaved if address is not None))
