"""Builds the head of HTTP requests to a provider (request line and headers), once for each
provider, path and key; adds a client's headers that go along. Refuses what HTTP cannot carry.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from harness.domain.errors import InputError
from harness.domain.providers.headers import check_request_headers, request_headers
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Provider
from router.frame.failure import UpstreamFailed
from router.frame.replies import LISTS


def forwarded_headers(
    provider: Provider, headers: tuple[tuple[bytes, bytes], ...]
) -> dict[str, str]:
    """The client's headers that go along: those that the operator has not set, and lists with
    the operator's in them.
    """
    own = {name.lower(): value for name, value in provider.extra_headers.items()}
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    sent = {name: value for name, value in named.items() if name not in own}
    for name in sorted(LISTS.intersection(own)):
        parts = f"{own[name]},{named.get(name, '')}".split(",")
        sent[name] = ",".join(dict.fromkeys(part.strip() for part in parts if part.strip()))
    return sent


_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Of so many sets of headers, with traces each request has one of its own.
KEPT_LINES: Final = 64
_PATH: Final = "/%:@!$&'()*+,;=-._~"
_QUERY: Final = _PATH + "?"


class RequestHead(NamedTuple):
    host: str
    port: int
    secure: bool
    # By whether a stream is wanted, up to the length of the body; without the operator's lists.
    heads: dict[bool, bytes]
    # By the client's headers that go along, their lines: most clients send the same each time.
    known_lines: dict[tuple[tuple[bytes, bytes], ...], bytes]
    has_lists: bool  # the operator's, which stand among these lines

    def head(self, *, stream: bool, body_bytes: int, more: bytes = b"") -> bytes:
        """Writes the head of a request. more: header lines of this request alone."""
        return b"%s%d\r\n%s\r\n" % (self.heads[stream], body_bytes, more)

    def lines(self, provider: Provider, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """The client's headers that go along, as lines. provider: the one that this head is
        for. Raises UpstreamFailed as `build_head`.
        """
        known = self.known_lines.get(headers)
        if known is None:
            if len(self.known_lines) >= KEPT_LINES:
                self.known_lines.clear()
            forwarded = forwarded_headers(provider, headers)
            known = self.known_lines[headers] = _lines(provider, forwarded).encode("latin-1")
        return known


def build_head(provider: Provider, path: str, secret: str) -> RequestHead:
    """Builds the heads of requests to a provider. path: below the provider's `api_base`.
    secret: empty for none.

    Raises UpstreamFailed (connect) for an address or a header that HTTP cannot carry.
    """
    check_headers_of(provider, secret)
    try:
        url = urlsplit(provider.url(path))
        port = url.port
        host = (url.hostname or "").encode("idna")
    except ValueError:
        raise _refused(provider, "its api_base is not a URL") from None
    if url.scheme not in ("http", "https") or not host or "@" in url.netloc:
        raise _refused(provider, "its api_base is not http(s)://host[:port]/path")
    secure = url.scheme == "https"
    target = quote(url.path, _PATH) + (f"?{quote(url.query, _QUERY)}" if url.query else "")
    name = host.decode()
    authority = f"[{name}]" if ":" in name else name
    place = authority if port is None else f"{authority}:{port}"
    heads = {}
    has_lists = any(name.lower() in LISTS for name in provider.extra_headers)
    for stream in (False, True):
        ours = request_headers(provider, secret, stream=stream)
        lines = _lines(provider, {name: ours[name] for name in ours if name not in LISTS})
        # Names in the case in which an eval's HTTP client writes them.
        head = f"POST {target} HTTP/1.1\r\nHost: {place}\r\n{lines}Content-Length: "
        heads[stream] = head.encode("latin-1")
    return RequestHead(name, port or (443 if secure else 80), secure, heads, {}, has_lists)


def check_headers_of(provider: Provider, secret: str) -> None:
    """Checks that headers and key can be sent. Raises UpstreamFailed."""
    try:
        check_request_headers(provider, secret)
    except InputError as error:
        raise _refused(provider, str(error)) from None


def _lines(provider: Provider, headers: dict[str, str]) -> str:
    for name, value in headers.items():
        framing = name in ("content-length", "transfer-encoding")
        if framing or not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise _refused(provider, f"its header {name[:40]!r} cannot be sent")
    return "".join(f"{name}: {value.strip()}\r\n" for name, value in headers.items())


def _refused(provider: Provider, why: str) -> UpstreamFailed:
    return UpstreamFailed(FailureClass.CONNECT, f"provider {provider.name!r}: {why}")
