"""The transport to providers over pooled HTTP/1.1 connections.

It needs a third less CPU per request than the cheapest maintained library. It writes the
request's head and chooses the connection; `origin_pool` keeps connections, `reply_reading`
reads the reply. Bodies pass unchanged: `transports` has adapted them before.
"""

import re
import ssl
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.providers.calls.guarded_http import (
    check_request_headers,
    request_headers,
)
from harness.providers.credential import ProviderKey
from harness.providers.target import Provider
from harness.routing.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.frame.replies import LISTS
from router.upstream.origin_pool import OriginAddress, OriginPool
from router.upstream.reply_reading import PooledReply
from router.upstream.transport import Transport, UpstreamRequest


def forwarded_headers(
    provider: Provider, headers: tuple[tuple[bytes, bytes], ...]
) -> dict[str, str]:
    """Returns the client's headers that the operator does not set, and the joined lists."""
    operator_headers = {name.lower(): value for name, value in provider.extra_headers.items()}
    client_headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in headers
    }
    forwarded = {
        name: value for name, value in client_headers.items() if name not in operator_headers
    }
    for name in sorted(LISTS.intersection(operator_headers)):
        parts = f"{operator_headers[name]},{client_headers.get(name, '')}".split(",")
        forwarded[name] = ",".join(
            dict.fromkeys(part.strip() for part in parts if part.strip())
        )
    return forwarded


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# The most sets of headers in memory: with traces, every request has a set of its own.
KEPT_LINES: Final = 64
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=-._~"
_QUERY_CHARACTERS: Final = _PATH_CHARACTERS + "?"


class RequestHead(NamedTuple):
    """The constant parts of requests to one path with one key.

    With them, the router formats no headers for most requests.
    """

    host: str
    port: int
    secure: bool
    # The head up to the body's length, without the operator's lists; by the stream flag.
    heads: dict[bool, bytes]
    # Lines of the forwarded headers, kept because most clients always send the same headers.
    known_lines: dict[tuple[tuple[bytes, bytes], ...], bytes]
    has_lists: bool  # whether the operator sets headers with lists; `known_lines` contains them

    def lines(self, provider: Provider, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Returns the lines of the client's forwarded headers.

        Raises UpstreamFailed for an invalid header.
        """
        known_lines = self.known_lines.get(headers)
        if known_lines is None:
            if len(self.known_lines) >= KEPT_LINES:
                self.known_lines.clear()
            forwarded = forwarded_headers(provider, headers)
            known_lines = self.known_lines[headers] = _write_lines(provider, forwarded).encode(
                "latin-1"
            )
        return known_lines


def build_head(
    provider: Provider,
    path: str,
    secret: str,
) -> RequestHead:
    """Builds the heads of requests to a path. Raises UpstreamFailed for a wrong configuration.

    Args:
        path: below `api_base`.
        secret: the provider's key; may be empty.
    """
    check_headers_of(provider, secret)
    try:
        url = urlsplit(provider.url(path))
        port = url.port
        host = (url.hostname or "").encode("idna")
    except ValueError:
        raise _configuration_error(provider, "its api_base is not a URL") from None
    if url.scheme not in ("http", "https") or not host or "@" in url.netloc:
        raise _configuration_error(provider, "its api_base is not http(s)://host[:port]/path")
    secure = url.scheme == "https"
    target = quote(url.path, _PATH_CHARACTERS) + (
        f"?{quote(url.query, _QUERY_CHARACTERS)}" if url.query else ""
    )
    host_name = host.decode()
    authority = f"[{host_name}]" if ":" in host_name else host_name
    host_and_port = authority if port is None else f"{authority}:{port}"
    heads = {}
    has_lists = any(host_name.lower() in LISTS for host_name in provider.extra_headers)
    for stream in (False, True):
        our_headers = request_headers(provider, secret, stream=stream)
        lines = _write_lines(
            provider,
            {
                host_name: our_headers[host_name]
                for host_name in our_headers
                if host_name not in LISTS
            },
        )
        # The names have the same case as in evals' requests.
        head = f"POST {target} HTTP/1.1\r\nHost: {host_and_port}\r\n{lines}Content-Length: "
        heads[stream] = head.encode("latin-1")
    return RequestHead(host_name, port or (443 if secure else 80), secure, heads, {}, has_lists)


def check_headers_of(provider: Provider, secret: str) -> None:
    """Checks the provider's headers with this key. Raises UpstreamFailed for invalid ones."""
    try:
        check_request_headers(provider, secret)
    except InputError as error:
        raise _configuration_error(provider, str(error)) from None


def _write_lines(provider: Provider, headers: dict[str, str]) -> str:
    for name, value in headers.items():
        framing = name in ("content-length", "transfer-encoding")
        if framing or not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise _configuration_error(provider, f"its header {name[:40]!r} cannot be sent")
    return "".join(f"{name}: {value.strip()}\r\n" for name, value in headers.items())


def _configuration_error(provider: Provider, why: str) -> UpstreamFailed:
    return UpstreamFailed(FailureClass.CONNECT, f"provider {provider.name!r}: {why}")


class PooledWay(NamedTuple):
    """The head and the connections for one provider, path and key."""

    provider: Provider
    key: ProviderKey | None
    head: RequestHead
    origin: OriginPool


class UpstreamPool(Transport):
    """The transport of one event loop: the loop of the first `send`.

    It has no redirects, cookies, proxies from the environment, retries or pipelining.
    tls: by default with the system's certificates.
    """

    def __init__(
        self,
        settings: RouterSettings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        # By the provider's name, path and the key's name.
        self._ways: dict[tuple[str, str, str | None], PooledWay] = {}
        self._origins: dict[tuple[str, int, bool], OriginPool] = {}

    async def send(self, request: UpstreamRequest) -> PooledReply:
        """Sends a request. Returns its reply after the head arrived. Raises UpstreamFailed."""
        provider = request.provider
        key = request.key
        call_key = provider.name, request.path, key.name if key is not None else None
        way = self._ways.get(call_key)
        # Another configuration of the provider or its key needs another way.
        if (
            way is None
            or way.provider is not provider
            or (way.key is not key and way.key != key)
        ):
            way = self._ways[call_key] = self._new_way(request)
        _, _, request_head, origin = way
        body = request.body
        headers = request.headers
        client_lines = b""
        if headers or request_head.has_lists:
            client_lines = request_head.known_lines.get(headers) or request_head.lines(
                request.provider, headers
            )
        head = b"%s%d\r\n%s\r\n" % (
            request_head.heads[request.stream],
            len(body),
            client_lines,
        )
        wire = None if request.fresh else origin.lend_idle()
        if wire is None:
            wire = await origin.lend(fresh=request.fresh)
        max_bytes = request.max_bytes or self._settings.max_response_bytes
        try:
            await wire.ask(head, body, max_bytes)
        except BaseException:
            origin.give_back(wire)
            raise
        return PooledReply(wire, origin, max_bytes)

    async def aclose(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()
        self._ways.clear()

    def _new_way(self, request: UpstreamRequest) -> PooledWay:
        """Builds the head and finds the connections for a provider, a path and a key."""
        provider = request.provider
        key = request.key
        # Heads of the provider's old configuration may contain keys that are revoked now.
        self._ways = {
            way_key: way
            for way_key, way in self._ways.items()
            if way_key[0] != provider.name or way.provider is provider
        }
        request_head = build_head(provider, request.path, key.secret if key else "")
        origin_place = (request_head.host, request_head.port, request_head.secure)
        if origin_place not in self._origins:
            if request_head.secure and self._tls is None:
                self._tls = ssl.create_default_context()
            self._origins[origin_place] = OriginPool(
                OriginAddress(
                    request_head.host,
                    request_head.port,
                    self._tls if request_head.secure else None,
                    self._settings.allow_addresses,
                ),
                limit=self._settings.upstream_connections,
                connect_timeout_s=self._settings.connect_timeout_s,
            )
        return PooledWay(provider, key, request_head, self._origins[origin_place])
