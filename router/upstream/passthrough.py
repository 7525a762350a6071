"""Providers that speak OpenAI's protocol, over HTTP/1.1 with pooled connections."""

from collections.abc import AsyncIterator, Sequence
from io import BytesIO

import aiohttp
from yarl import URL

from harness.domain.providers.credentials import ProviderKey
from harness.domain.providers.headers import request_headers
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Provider
from harness.domain.settings import RouterSettings
from router.upstream.content_encoding import inflater_for
from router.upstream.forwarded_headers import forwarded_headers
from router.upstream.request_head import check_headers_of
from router.upstream.transport import UpstreamFailed, UpstreamRequest

LARGE_BODY_BYTES = 512 * 1024
Headers = dict[bool, dict[str, str]]  # by: for a stream
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Passthrough:
    """No redirects, no cookies, no proxies from the environment, no retries."""

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by: on a fresh connection
        self._calls: dict[
            tuple[str, str, ProviderKey | None], tuple[Provider, URL, Headers]
        ] = {}

    async def send(self, request: UpstreamRequest) -> "HttpReply":
        session = self._sessions.get(request.fresh) or self._open(fresh=request.fresh)
        url, heads = self._call(request)
        headers = heads[request.stream]
        if request.headers:
            headers = headers | dict(forwarded_headers(request.provider, request.headers))
        # A file is sent piece by piece; so many bytes at once would hold up the others.
        data = BytesIO(request.body) if len(request.body) > LARGE_BODY_BYTES else request.body
        try:
            response = await session.post(
                url, data=data, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failed(error) from None
        return HttpReply(response, self._settings.max_response_bytes)

    async def aclose(self) -> None:
        while self._sessions:
            await self._sessions.popitem()[1].close()

    def _open(self, *, fresh: bool) -> aiohttp.ClientSession:
        # Here and not in __init__: a session belongs to the running loop.
        session = self._sessions[fresh] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=self._settings.upstream_connections,
                force_close=fresh,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_timeout_s
            ),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            trust_env=False,
        )
        return session

    def _call(self, request: UpstreamRequest) -> tuple[URL, Headers]:
        """URL and headers; worked out once per provider as configured, path and key."""
        provider = request.provider
        asked = (provider.name, request.path, request.key)
        known = self._calls.get(asked)
        if known is not None and known[0] is provider:
            return known[1], known[2]
        # What was worked out for it as it was may hold keys that were taken away since.
        self._calls = {
            each: way
            for each, way in self._calls.items()
            if each[0] != provider.name or way[0] is provider
        }
        secret = request.key.secret if request.key else ""
        check_headers_of(provider, secret)
        by_stream = {
            stream: request_headers(provider, secret, stream=stream) for stream in (False, True)
        }
        url = URL(provider.url(request.path))
        self._calls[asked] = (provider, url, by_stream)
        return url, by_stream


class HttpReply:
    """A reply whose body is read as it arrives, up to max_bytes."""

    def __init__(self, response: aiohttp.ClientResponse, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return [(name.lower(), value) for name, value in self._response.raw_headers]

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        inflater = inflater_for(self._response.headers.get("Content-Encoding", ""))
        size = 0
        content = self._response.content
        while True:
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise _failed(error) from None
            if not data:
                return
            for piece in inflater.feed(data) if inflater else (data,):
                size += len(piece)
                if size > self._max_bytes:
                    raise UpstreamFailed(
                        FailureClass.MALFORMED, f"answer larger than {self._max_bytes} bytes"
                    )
                yield piece

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _failed(error: Exception) -> UpstreamFailed:
    """Its name says enough; its text may hold an address or a header."""
    name = type(error).__name__
    if isinstance(error, TimeoutError):
        return UpstreamFailed(FailureClass.TIMEOUT, "no connection in time")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamFailed(FailureClass.MALFORMED, f"not an HTTP answer: {name}")
    return UpstreamFailed(FailureClass.CONNECT, name)
