"""Makes urllib openers for HTTP to providers that use no proxy, follow no redirect, and refuse
a private address that is not allowed, checked where the connection leads.

As the router does: a key goes to its provider alone.
"""

import http.client
import urllib.request
from collections.abc import Collection
from email.message import Message
from functools import partial
from typing import IO, Any

from harness.domain.providers.api_base_rules import may_connect


class ClosedAddress(OSError):
    """The name led to an address that no provider may have; nothing was sent."""


def build_opener(allowed: Collection[str] = ()) -> urllib.request.OpenerDirector:
    """allowed: as `api_base_rules.check_api_base` reads it."""
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        _NoRedirect(),
        _GuardedHTTPHandler(allowed),
        _GuardedHTTPSHandler(allowed),
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - urllib's signature
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


class _GuardedHTTPConnection(http.client.HTTPConnection):
    def __init__(self, *args: Any, allowed: Collection[str], **more: Any) -> None:
        super().__init__(*args, **more)
        self._allowed = allowed

    def connect(self) -> None:
        super().connect()
        _check_peer(self, self._allowed)


class _GuardedHTTPSConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, allowed: Collection[str], **more: Any) -> None:
        super().__init__(*args, **more)
        self._allowed = allowed

    def connect(self) -> None:
        super().connect()
        _check_peer(self, self._allowed)


def _check_peer(connection: http.client.HTTPConnection, allowed: Collection[str]) -> None:
    """At where the connection leads, before a byte of the request is sent."""
    where = str(connection.sock.getpeername()[0])
    if not may_connect(connection.host, where, allowed):
        connection.close()
        raise ClosedAddress("its name leads to a closed address")


class _GuardedHTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = allowed

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_GuardedHTTPConnection, allowed=self._allowed), req)


class _GuardedHTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = allowed

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_GuardedHTTPSConnection, allowed=self._allowed), req)
