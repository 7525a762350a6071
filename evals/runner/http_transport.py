"""`HttpTransport` posts a ready body to a provider that speaks OpenAI's protocol, and gives its
status, headers and bytes as they came: `evals.runner.provider_client` reads them and tries
again. No redirect is followed, and no closed address is connected to.
"""

import socket
import ssl
from collections.abc import Collection
from typing import Final

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from harness.domain.errors import InputError, NoAnswer
from harness.domain.providers.api_base_rules import may_connect
from harness.domain.providers.headers import check_request_headers, request_headers
from harness.domain.routing.target import Provider
from harness.ports import Posted

CONNECT_S: Final = 10.0
LONGEST_ANSWER: Final = 32 * 2**20  # bytes, unpacked


class HttpTransport:
    """Implements ports.ProviderCalls."""

    def __init__(
        self,
        provider: Provider,
        api_key: str | None,
        *,
        connections: int,
        timeout_s: float,
        allowed: Collection[str] = (),
    ) -> None:
        self._provider, self._key = provider, api_key or ""
        self._headers = request_headers(provider, self._key)
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S)
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes) -> Posted:
        """Posts a body to the provider, without following redirects. Raises NoAnswer."""
        try:
            check_request_headers(self._provider, self._key)
        except InputError as error:
            raise NoAnswer(str(error), again=False) from None
        try:
            # A redirect would carry the request and our headers to another host.
            async with self._open().post(
                self._provider.url(path), data=body, allow_redirects=False
            ) as response:
                raw = await _whole(response)
        except TimeoutError:
            raise NoAnswer("the provider did not answer in time") from None
        except ssl.SSLError as error:
            raise NoAnswer(f"no TLS connection: {error.reason}") from None
        except aiohttp.InvalidURL:
            raise NoAnswer("api_base is not a URL", again=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"the connection failed: {type(error).__name__}") from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Posted(response.status, headers, raw)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers=self._headers,
                connector=aiohttp.TCPConnector(
                    limit=self._connections, resolver=_OpenPlaces(self._allowed)
                ),
            )
        return self._session


class _OpenPlaces(ThreadedResolver):
    """Names looked up, without the addresses that no provider may have."""

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        kept = [info for info in found if may_connect(host, info["host"], self._allowed)]
        if not kept:
            raise OSError(f"{host} leads to a closed address")
        return kept


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """Raises NoAnswer for an answer that no chat completion needs to be."""
    raw = bytearray()
    async for part in response.content.iter_chunked(2**16):
        raw += part
        if len(raw) > LONGEST_ANSWER:
            raise NoAnswer(
                f"the answer is longer than {LONGEST_ANSWER // 2**20} MiB", again=False
            )
    return bytes(raw)
