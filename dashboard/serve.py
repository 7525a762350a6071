"""Serves the dashboard, on loopback alone unless people sign in by OpenID Connect.

Beside Streamlit's pages it serves the docs, the sign-in page, health checks and the redirect
to the identity provider. It refuses foreign host names, and writing requests of other sites.
Imports of pages come late, because Streamlit's options must be set first.
"""

import argparse
import importlib.util
import ipaddress
import os
from collections.abc import Sequence
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.errors import StreamlitAuthError
from streamlit.runtime.secrets import SecretsValue
from streamlit.user_info import generate_login_redirect_url
from streamlit.web import bootstrap as streamlit_bootstrap

from dashboard import sign_in_page, theme
from harness.app import installation
from harness.app.configuration.model import Settings
from harness.frame import package_data
from harness.frame.calm_server import run_app
from harness.frame.errors import ConfigError, SwapproofError
from harness.frame.imports import freeze_application
from harness.routing.records.routes import Routing
from harness.routing.settings import OidcSettings

DOCS_PATH: Final = "/docs"


def docs_routes() -> list[BaseRoute]:
    """Serves the built site of the docs, or its Markdown if the site was not built."""
    if (package_data.SITE / "index.html").exists():
        site = StaticFiles(directory=package_data.SITE, html=True)
        return [Route(DOCS_PATH, redirect_to_docs), Mount(DOCS_PATH, site)]
    return [
        Route(f"{DOCS_PATH}/{{page:path}}", show_markdown),
        Route(DOCS_PATH, show_markdown),
    ]


def redirect_to_docs(_request: Request) -> Response:
    """Redirects to the site's first page, whose links are relative to its folder."""
    return RedirectResponse(f"{DOCS_PATH}/")


def show_markdown(request: Request) -> Response:
    """Answers with a page of the docs as plain text; 404 for an unknown page."""
    try:
        page = package_data.find_page(request.path_params.get("page") or "index")
    except SwapproofError as error:
        return PlainTextResponse(f"{error}\n", status_code=404)
    return PlainTextResponse(page.markdown.read_text(encoding="utf-8"))


FOREIGN_REQUEST: Final = "this request comes from a page that is not the dashboard's\n"
READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY_VIOLATION: Final = 1008
HEADERS: Final = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class OwnOrigin:
    """Refuses writing requests and web sockets of other sites, and adds security headers.

    Without it, a page of another site could act through a visitor's browser.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] == "websocket" and _is_foreign(scope):
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

        if scope["method"] not in READ_METHODS and _is_foreign(scope):
            await PlainTextResponse(FOREIGN_REQUEST, 403)(scope, receive, send_protected)
            return
        await self._app(scope, receive, send_protected)


def _is_foreign(scope: Scope) -> bool:
    """Tells whether another site sent the request; browsers then add an Origin header."""
    connection = HTTPConnection(scope)
    return "origin" in connection.headers and not sign_in_page.is_own_page(connection)


SCRIPT: Final = Path(__file__).with_name("main.py")
SHUTDOWN_S: Final = 3
PING_INTERVAL_S: Final = 30.0
PING_TIMEOUT_S: Final = 90.0


def run(
    config: Path | None,
    host: str,
    port: int,
) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises ConfigError, as `require_loopback` does."""
    settings = installation.load_settings(config)
    require_loopback(host, settings.ui.oidc)
    if config is not None:
        os.environ[installation.CONFIG_VARIABLE] = str(config.resolve())
    streamlit_bootstrap.load_config_options(options(host, port, settings.ui.oidc))
    routes = [
        Route("/readyz", readyz),
        Route("/healthz", healthz),
        *(Route(path, redirect_to_overview) for path in OVERVIEW_PATHS),
        *sign_in_page.routes(),
        SIGN_ON_ROUTE,
        *docs_routes(),
    ]
    freeze_application()
    from dashboard import page_frame  # noqa: PLC0415 - Streamlit's options come first

    page_frame.serve_with(settings.ui.oidc)
    app = st.App(
        SCRIPT.resolve(),
        routes=routes,
        secrets=load_sign_on_secrets(settings),
        middleware=[
            Middleware(OwnOrigin),
            *sign_on_middleware(settings.ui.oidc),
        ],
    )
    run_app(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        # The timeout is long, because a browser on a busy machine may answer a ping late.
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
    )


def load_sign_on_secrets(settings: Settings) -> dict[str, SecretsValue] | None:
    """Builds the secrets of `st.login`; None without single sign-on. Raises ConfigError without
    a client secret or Authlib.
    """
    oidc = settings.ui.oidc
    if oidc is None:
        return None
    if importlib.util.find_spec("authlib") is None:
        raise ConfigError(
            "`ui.oidc` needs Authlib: install Swapproof with its extra, `pip install "
            "'swapproof[sso]'`"
        )
    cookie_secret, client_secret = installation.load_sign_on_secrets(settings, oidc)
    return {
        "auth": {
            "redirect_uri": oidc.redirect_url,
            "cookie_secret": cookie_secret,
            "client_id": oidc.client_id,
            "client_secret": client_secret,
            "server_metadata_url": oidc.metadata_url,
            "client_kwargs": {"scope": oidc.scope},
        }
    }


def sign_on_middleware(oidc: OidcSettings | None) -> list[Middleware]:
    """Returns the middleware that single sign-on needs; empty without it."""
    if oidc is None:
        return []
    return [Middleware(SignOnReturn, public_url=oidc.public_url)]


def options(
    host: str,
    port: int,
    oidc: OidcSettings | None = None,
) -> dict[str, object]:
    """Returns Streamlit's options. They turn off telemetry, tracebacks, reloads and foreign
    host names.
    """
    host_names = {host, "localhost", "127.0.0.1", "::1"}
    if oidc is not None:
        host_names = {
            urlsplit(oidc.public_url).hostname or "",
            "localhost",
            "127.0.0.1",
            "::1",
        }
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "runner.magicEnabled": False,
        # A full garbage collection after each run would delay each page by 90 ms.
        "runner.postScriptGC": False,
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        # Refuses other host names: a page of another site could send requests through them (DNS
        # rebinding).
        "server.allowedHosts": sorted(host_names),
        "server.enableXsrfProtection": True,
        # Megabytes; no page takes more.
        "server.maxUploadSize": 50,
        # This API would let programs run pages without a session cookie.
        "server.enableAgentApi": False,
        **theme.streamlit_options(),
    }


def require_loopback(host: str, oidc: OidcSettings | None = None) -> None:
    """Refuses a host beyond loopback if reading needs no sign-in. Raises ConfigError."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and oidc is None:
        raise ConfigError(
            f"without single sign-on the dashboard listens on loopback only, not on {host!r}: "
            "set ui.oidc, or set ui.host to 127.0.0.1 and reach it by an SSH tunnel"
        )


def healthz(_request: Request) -> Response:
    """Answers that the process runs."""
    return JSONResponse({"status": "ok"})


def readyz(_request: Request) -> Response:
    """Answers whether the dashboard can read the routing table. 503 with the reason if it
    cannot.
    """
    from dashboard import page_frame  # noqa: PLC0415 - Streamlit's options come first

    try:
        with page_frame.installation().context.store.read() as tx:
            Routing(tx).table()
    except SwapproofError as error:
        return JSONResponse({"status": "not ready", "reason": str(error)}, status_code=503)
    return JSONResponse({"status": "ready"})


# Alerts and settings once had their own pages.
OVERVIEW_PATHS: Final = ("/overview", "/alerts", "/settings")


def redirect_to_overview(request: Request) -> Response:
    """Redirects to `/`, the only address of Streamlit's first page."""
    query = request.url.query if request.url.path == "/overview" else ""
    return RedirectResponse(f"/?{query}" if query else "/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the dashboard as a program. Options override the configuration."""
    parser = argparse.ArgumentParser(prog="swapproof serve ui")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parsed = parser.parse_args(arguments)
    ui = installation.load_settings(parsed.config).ui
    run(parsed.config, parsed.host or ui.host, parsed.port or ui.port)


RETURN_PATH: Final = "/oauth2callback"
# A visitor who stays longer at the identity provider returns to the first page.
NEXT_PAGE_COOKIE_S: Final = 1_800
PROVIDER: Final = "default"
NO_SIGN_ON: Final = "Single sign-on is not set up in this process: restart the dashboard.\n"


def next_page_cookie() -> str:
    """Returns the name of the cookie that keeps the page to return to. The name has the port,
    because browsers share a host's cookies among its ports.
    """
    return f"swapproof-next-{st.get_option('server.port')}"


async def begin_sign_on(request: Request) -> Response:
    """Redirects to the identity provider, and keeps the page to return to. 421 for another host
    name, 503 if this process has no single sign-on.
    """
    if not sign_in_page.is_own_host(request):
        return Response("this host is not the dashboard's", 421)
    try:
        address = generate_login_redirect_url(PROVIDER)
    except StreamlitAuthError:
        return Response(NO_SIGN_ON, 503)
    answer = RedirectResponse(address, 303)
    answer.headers["Cache-Control"] = "no-store"
    page = sign_in_page.own_page(request.query_params.get("next", "/"))
    # Lax: the browser comes back from the identity provider's pages.
    answer.set_cookie(
        next_page_cookie(),
        quote(page, safe=""),
        max_age=NEXT_PAGE_COOKIE_S,
        httponly=True,
        samesite="lax",
    )
    return answer


SIGN_ON_ROUTE: Final = Route(sign_in_page.SIGN_ON_PATH, begin_sign_on, methods=["GET"])


class SignOnReturn:
    """Redirects from single sign-on to the previous page. Marks cookies as secure under TLS."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public = urlsplit(public_url)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_headers = Headers(scope=scope)
        uses_tls = (
            self._public.scheme == "https"
            and request_headers.get("host") == self._public.netloc
        )
        next_page = _read_next_page(request_headers) if scope["path"] == RETURN_PATH else None

        async def send_redirected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Streamlit does not know the previous page, and redirects to its first page.
                if next_page is not None and headers.get("location") == "/":
                    headers["location"] = next_page
                    headers.append(
                        "set-cookie",
                        f"{next_page_cookie()}=; Max-Age=0; Path=/",
                    )
                if uses_tls:
                    _mark_secure(message)
            await send(message)

        await self._app(scope, receive, send_redirected)


def _read_next_page(headers: Headers) -> str | None:
    """Reads the page to return to from the cookie. Accepts only pages of the dashboard, because
    servers on other ports can set this cookie too.
    """
    cookies: SimpleCookie = SimpleCookie()
    for line in headers.getlist("cookie"):
        cookies.load(line)
    cookie = cookies.get(next_page_cookie())
    return None if cookie is None else sign_in_page.own_page(unquote(cookie.value))


def _mark_secure(message: Message) -> None:
    """Adds `Secure` to all cookies of an answer."""
    message["headers"] = [
        (name, value + b"; Secure")
        if name.lower() == b"set-cookie" and b"; secure" not in value.lower()
        else (name, value)
        for name, value in message["headers"]
    ]


if __name__ == "__main__":
    main()
