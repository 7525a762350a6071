"""`HttpChannel` sends requests to a router's address, without redirects and retries.

It implements `stream.Channel` with aiohttp, and knows nothing about chats: bodies are bytes.
`async_client` retries, and `in_process` is the channel without a network.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from harness.frame.errors import (
    AnswerUnreadable,
    InputError,
    RouterUnreachable,
    StreamBroken,
)

CONNECT_S: Final = 10.0
MOST_BYTES: Final = 256 * 2**20


class HttpAnswer:
    """An answer whose head has arrived. Implements `stream.ChannelAnswer`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response

    async def body(self) -> bytes:
        """Reads at most MOST_BYTES. Raises AnswerUnreadable, RouterUnreachable."""
        body = bytearray()
        try:
            async for piece in self._response.content.iter_any():
                body += piece
                if len(body) > MOST_BYTES:
                    raise AnswerUnreadable(
                        f"{self._response.url}: the answer has more than {MOST_BYTES >> 20} "
                        "MiB; check that the address is a Swapproof router's"
                    )
            return bytes(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RouterUnreachable(
                f"{self._response.url}: the answer broke off ({type(error).__name__}); send "
                "the request again"
            ) from error

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives. Raises StreamBroken if the connection ends early."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StreamBroken(
                f"{self._response.url}: the connection to the router ended within a stream "
                f"({type(error).__name__}); the answer is incomplete: send the request again"
            ) from error

    async def aclose(self) -> None:
        """Gives the connection back, or closes it if a part of the answer is unread."""
        # A connection with an unread answer cannot be used again.
        if not self._response.content.at_eof():
            self._response.close()
        self._response.release()


class HttpChannel:
    """Posts to a router. Raises InputError for an invalid address.

    base_url: with or without `/v1`.
    key: empty if each request's headers authenticate it.
    timeout_s: for a whole answer.
    connections: the largest number of connections; 0 for no limit.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        connections: int = 100,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"base_url: {base_url!r} is not an address such as http://127.0.0.1:8080"
            )
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._timeout_s = timeout_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> HttpAnswer:
        """Posts a body, and returns the answer as soon as its head arrives, with any status.

        Raises RouterUnreachable without an answer. Raises InputError if the channel is closed,
        or belongs to another event loop.
        """
        url = f"{self._base_url}{path}"
        try:
            # A redirect would send the key to another address.
            response = await self._open_session().post(
                url,
                data=body,
                headers={**self._headers, **headers},
                allow_redirects=False,
            )
        except TimeoutError as error:
            raise RouterUnreachable(
                f"{url}: no answer within {self._timeout_s:g} s; ask for less, or raise "
                "`timeout_s`"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise RouterUnreachable(
                f"{url} cannot be reached ({error or type(error).__name__}); check the "
                "address, and that `swapproof serve router` runs there"
            ) from error
        return HttpAnswer(response)

    def _open_session(self) -> aiohttp.ClientSession:
        """Returns the session, which the first request opens. Raises InputError as `post`."""
        if self._is_closed:
            raise InputError("this client is closed; create a new client")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S)
            connector = aiohttp.TCPConnector(limit=self._connections)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
            self._loop = asyncio.get_running_loop()
        elif self._loop is not asyncio.get_running_loop():
            raise InputError("this client belongs to another event loop; create one per loop")
        return self._session

    async def aclose(self) -> None:
        """Closes all connections. Further requests raise InputError."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
