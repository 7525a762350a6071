"""Keeps pages of other origins away from the dashboard: `OwnOrigin` refuses a WebSocket and a
form or upload that a page of another origin opened, and lets no page frame ours.

Streamlit takes a WebSocket from every port of this machine, and browsers send one host's
cookies to all of its ports: a page of whatever else is served here could click in a signed-in
person's name, or have him click on ours below its own.
"""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import sign_in_page

STRANGER: Final = "a page of another origin than the dashboard's sent this\n"
READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY_VIOLATION: Final = 1008
HEADERS: Final = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class OwnOrigin:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and _is_stranger(scope):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    # The sign-in page has a stricter policy of its own.
                    headers.setdefault(name, value)
            await send(message)

        if scope["method"] not in READ_METHODS and _is_stranger(scope):
            await PlainTextResponse(STRANGER, 403)(scope, receive, send_protected)
            return
        await self._app(scope, receive, send_protected)


def _is_stranger(scope: Scope) -> bool:
    """Whether a page of another origin asks. Who sends no Origin is no browser's page, and has
    no cookie but his own.
    """
    connection = HTTPConnection(scope)
    return "origin" in connection.headers and not sign_in_page.is_own_page(connection)
