"""Takes a browser through single sign-on and back to the page that it asked for: Streamlit's
own way ends on the first page. `ROUTES` begin it, `SignOnReturn` ends it, and marks all cookies
as `Secure` where the browser comes by TLS.
"""

from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.errors import StreamlitAuthError
from streamlit.user_info import generate_login_redirect_url

from dashboard import sign_in_page

RETURN_PATH: Final = "/oauth2callback"
# Who takes longer at the server lands on the first page.
WAITS_S: Final = 1_800
PROVIDER: Final = "default"
NOT_BEGUN: Final = "Single sign-on is not set up in this process: restart the dashboard.\n"


def cookie_name() -> str:
    """Names the cookie that remembers the page, by the port as that of the session."""
    return f"swapgate-next-{st.get_option('server.port')}"


async def begin(request: Request) -> Response:
    """Remembers the page in the browser, and sends it on to Streamlit's sign-in."""
    if not sign_in_page.is_own_host(request):
        return Response("this host is not the dashboard's", 421)
    try:
        address = generate_login_redirect_url(PROVIDER)
    except StreamlitAuthError:
        return Response(NOT_BEGUN, 503)
    answer = RedirectResponse(address, 303)
    answer.headers["Cache-Control"] = "no-store"
    page = sign_in_page.own_page(request.query_params.get("next", "/"))
    # Lax: the browser comes back from the server's pages.
    answer.set_cookie(
        cookie_name(), quote(page, safe=""), max_age=WAITS_S, httponly=True, samesite="lax"
    )
    return answer


ROUTES: Final = (Route(sign_in_page.SIGN_ON_PATH, begin, methods=["GET"]),)


class SignOnReturn:
    """Sends who comes back from the server to his page, and keeps cookies to TLS."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public = urlsplit(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_headers = Headers(scope=scope)
        by_tls = (
            self._public.scheme == "https"
            and request_headers.get("host") == self._public.netloc
        )
        place = _remembered(request_headers) if scope["path"] == RETURN_PATH else None

        async def send_changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Streamlit knows no page to return to, and names its first one.
                if place is not None and headers.get("location") == "/":
                    headers["location"] = place
                    headers.append("set-cookie", f"{cookie_name()}=; Max-Age=0; Path=/")
                if by_tls:
                    _mark_secure(message)
            await send(message)

        await self._app(scope, receive, send_changed)


def _remembered(headers: Headers) -> str | None:
    """Reads the page from the cookie; None without. Whoever serves pages on another port of
    this host can write cookies, so only a page of the dashboard counts.
    """
    cookies: SimpleCookie = SimpleCookie()
    for line in headers.getlist("cookie"):
        cookies.load(line)
    found = cookies.get(cookie_name())
    return None if found is None else sign_in_page.own_page(unquote(found.value))


def _mark_secure(message: Message) -> None:
    message["headers"] = [
        (name, value + b"; Secure")
        if name.lower() == b"set-cookie" and b"; secure" not in value.lower()
        else (name, value)
        for name, value in message["headers"]
    ]
