"""Serves `/sign-in` beside Streamlit's pages. Each sign-in sets a new cookie, HttpOnly and
SameSite=Strict. The page accepts a POST only if its Origin is the dashboard. It logs wrong keys
and links and limits them by address; a valid key or link always works.

Streamlit does not serve this page, because Streamlit cannot set such a cookie.
`harness.operations` checks the sessions and links.
"""

import logging
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dashboard import theme
from dashboard.markup import escape, failure, strong
from harness.app.installation import Installation
from harness.frame.errors import NotAllowed, SwapproofError
from harness.frame.people.access import SIGN_IN_PATH, Actor, client_address
from harness.operations import dashboard_sessions
from harness.operations.dashboard_sessions import ActorSession
from harness.operations.single_sign_on import FailedAttempts

# The link's secret follows `#`, which browsers do not send: the page reads it, removes it from
# the address, and posts it.
_SCRIPT: Final = """
const link = location.hash.slice(1), form = document.getElementById("by-link");
if (link && form) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.link.value = link;
  form.submit();
}
addEventListener("hashchange", () => location.reload());
"""


@dataclass(frozen=True, slots=True)
class PageFrame:
    """The values that every rendering of the page needs."""

    nonce: str  # allows the page's script and styles
    next_page: str  # the page to show after the sign-in


def ask_key(frame: PageFrame, problem: str = "") -> str:
    """Renders the form for a key.

    Args:
        problem: the reason for refusing the last key.
    """
    field = (
        '<label for="key">Management key</label>'
        '<input id="key" name="key" type="password" autocomplete="off" autofocus required>'
        "<button>Sign in</button>"
    )
    other_ways = (
        '<p class="note">Or open a sign-in link: <code>swapproof key sign-in-link</code> '
        "prints one. It works once, and needs no key here.</p>"
        f'<p class="note"><a href="{escape(frame.next_page)}">Read without signing in</a></p>'
    )
    link_form = f'<form id="by-link" method="post" action="{SIGN_IN_PATH}" hidden>'
    link_form += _render_next_field(frame)
    link_form += '<input type="hidden" name="link"></form>'
    failure_html = failure("Not signed in", problem, "") if problem else ""
    return _render_page(
        frame, f"{failure_html}{_render_form(frame, field)}{other_ways}{link_form}"
    )


def ask_confirmation(
    frame: PageFrame,
    link: str,
    actor: Actor,
    present: Actor | None,
) -> str:
    """Asks the visitor to confirm a sign-in by a link, before the link is used up.

    Args:
        present: the actor who is signed in now.

    The question protects from a link that signs people in under another person's name.
    """
    identity = f"{strong(actor.name)} ({escape(actor.role.name.lower())})"
    if actor.key is None:
        identity += ", the operator of this machine"
    notice = ""
    if present is not None:
        notice = f"<p>You are signed in as {strong(present.name)}; that session ends then.</p>"
    field = (
        f"<p>This link signs you in as {identity}. The audit log records your acts under this "
        "name.</p>"
        f'{notice}<input type="hidden" name="link" value="{escape(link)}">'
        f'<button name="confirm" value="yes">Sign in as {escape(actor.name)}</button>'
    )
    advice = '<p class="note">If that is not you, close this page and tell the sender.</p>'
    return _render_page(frame, f"{_render_form(frame, field)}{advice}")


def refuse(frame: PageFrame, reason: str) -> str:
    """Renders a refusal, with a link to the form."""
    form_link = f'<p><a href="{SIGN_IN_PATH}">Sign in another way</a></p>'
    return _render_page(frame, f"{failure('Not signed in', reason, '')}{form_link}")


def _render_form(frame: PageFrame, fields: str) -> str:
    next_field = _render_next_field(frame)
    return f'<form method="post" action="{SIGN_IN_PATH}">{next_field}{fields}</form>'


def _render_next_field(frame: PageFrame) -> str:
    return f'<input type="hidden" name="next" value="{escape(frame.next_page)}">'


def _render_page(frame: PageFrame, body: str) -> str:
    styles = theme.css().replace("<style>", f'<style nonce="{frame.nonce}">', 1)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sign in · Swapproof</title>{styles}</head>"
        '<body class="sg-sign-in"><main class="sg"><h1><b>Sign in</b> to Swapproof</h1>'
        f'{body}</main><script nonce="{frame.nonce}">{_SCRIPT}</script></body></html>'
    )


log = logging.getLogger("swapproof.dashboard")

SIGN_ON_PATH: Final = f"{SIGN_IN_PATH}/single-sign-on"
MOST_FORM_BYTES: Final = 8_192
# A page of the dashboard with its filters, never another host.
OWN_PAGE: Final = re.compile(r"/[A-Za-z0-9_-]*(\?[A-Za-z0-9_.~%=&+:/,-]*)?")
FOREIGN_FORM: Final = (
    "the form was not sent from this dashboard's own page: open the dashboard and sign in there"
)
TOO_MANY_ATTEMPTS: Final = (
    "too many wrong keys or links came from this address: wait {} s before the next wrong one. "
    "A valid key or link works at once"
)


def cookie_name() -> str:
    """Returns the cookie's name. It has the port, because browsers share a host's cookies among
    its ports.
    """
    return f"swapproof-session-{st.get_option('server.port')}"


def sign_on_address(page: str) -> str:
    """Returns the address that begins single sign-on.

    Args:
        page: where to return to.
    """
    return f"{SIGN_ON_PATH}?next={quote(page, safe='/')}"


async def show(request: Request) -> Response:
    """Answers with the form. 421 for another host name."""
    if not is_own_host(request):
        return Response("this host is not the dashboard's", 421)
    frame = _build_frame(request.query_params.get("next", "/"))
    return _build_answer(frame, ask_key(frame))


class SignInForm:
    """Signs people in. Limits an address only after a wrong key or link, so that a guesser does
    not lock out other people at the address.
    """

    def __init__(self) -> None:
        self._attempts: FailedAttempts | None = None

    async def sign_in(self, request: Request) -> Response:
        """Answers a posted form: signs in, asks for a confirmation, or refuses. 403 for a form
        of another site.
        """
        if not is_own_host(request):
            return Response("this host is not the dashboard's", 421)
        fields = await _read_form(request)
        frame = _build_frame(fields.get("next", "/"))
        if fields == {} or not is_own_page(request):
            return _build_answer(frame, refuse(frame, FOREIGN_FORM), 403)
        try:
            return await run_in_threadpool(_sign_in, request, fields, frame)
        except NotAllowed as error:
            return self._refuse(request, fields, frame, str(error))

    def _refuse(
        self,
        request: Request,
        fields: Mapping[str, str],
        frame: PageFrame,
        reason: str,
    ) -> Response:
        """Refuses a wrong key or link. 429 after too many from the same address."""
        page = refuse if _get_field(fields, "link") else ask_key
        if self._attempts is None:
            self._attempts = FailedAttempts(_get_installation().clock)
        peer = request.client.host if request.client is not None else None
        address = client_address(peer, (), ())
        wait_s = math.ceil(self._attempts.wait_s(address))
        if wait_s > 0:
            answer = _build_answer(frame, page(frame, TOO_MANY_ATTEMPTS.format(wait_s)), 429)
            answer.headers["Retry-After"] = str(wait_s)
            return answer
        self._attempts.failed(address)
        credential = "link" if _get_field(fields, "link") else "key"
        log.warning("sign_in_refused: by a %s, from %s: %s", credential, address, reason)
        return _build_answer(frame, page(frame, reason), 403)


def _sign_in(
    request: Request,
    fields: Mapping[str, str],
    frame: PageFrame,
) -> Response:
    """Signs in by the posted key or link, and redirects with the cookie. Raises NotAllowed for
    a wrong one; answers 503 if the database fails.
    """
    former = request.cookies.get(cookie_name(), "")
    link = _get_field(fields, "link")
    key = _get_field(fields, "key")
    installation = _get_installation()
    ctx = installation.context
    secret = installation.secret
    lasts = installation.settings.ui.session_duration
    try:
        if link and "confirm" not in fields:
            preview = dashboard_sessions.preview_link(
                ctx,
                link,
                secret=secret,
                former=former,
            )
            page = ask_confirmation(frame, link, preview.actor, _find_actor(former))
            return _build_answer(frame, page)
        if link:
            _, cookie = dashboard_sessions.open_link(
                ctx,
                link,
                secret=secret,
                lasts=lasts,
                former=former,
            )
        else:
            _, cookie = dashboard_sessions.open_with_key(
                ctx,
                key,
                secret=secret,
                lasts=lasts,
                former=former,
            )
    except NotAllowed:
        raise
    except SwapproofError as error:
        return _build_answer(frame, refuse(frame, str(error)), 503)
    answer = RedirectResponse(frame.next_page, 303)
    _add_security_headers(answer, frame)
    _set_cookie(request, answer, cookie)
    return answer


def _get_field(fields: Mapping[str, str], name: str) -> str:
    return fields.get(name, "").strip()


def _find_actor(cookie: str) -> Actor | None:
    """Returns the actor of a cookie's session; None if the session has ended."""
    try:
        return resume(cookie).actor if cookie else None
    except NotAllowed:
        return None


def resume(cookie: str) -> ActorSession:
    """Finds the session of a cookie. Raises NotAllowed, SwapproofError."""
    installation = _get_installation()
    return dashboard_sessions.resume(installation.context, cookie, secret=installation.secret)


def _get_installation() -> Installation:
    from dashboard.page_frame import installation  # noqa: PLC0415 - Streamlit's options come first

    return installation()


async def _read_form(request: Request) -> Mapping[str, str]:
    """Reads a form of at most `MOST_FORM_BYTES`. Empty for a longer or malformed one."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _build_frame(next_page: str) -> PageFrame:
    return PageFrame(secrets.token_urlsafe(16), own_page(next_page))


def own_page(next_page: str) -> str:
    """Returns the page if it is the dashboard's, else `/`, so that no link redirects to another
    site.
    """
    return next_page if OWN_PAGE.fullmatch(next_page) else "/"


def is_own_host(request: Request) -> bool:
    """Tells whether the request names an allowed host. With any other name, another site's page
    could get our origin.
    """
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    return host in st.get_option("server.allowedHosts")


def is_own_page(request: HTTPConnection) -> bool:
    """Tells whether the request's Origin is this dashboard."""
    origin = urlsplit(request.headers.get("origin", ""))
    return origin.scheme in (
        "http",
        "https",
    ) and origin.netloc == request.headers.get("host")


def _build_answer(
    frame: PageFrame,
    page: str,
    status: int = 200,
) -> Response:
    answer = HTMLResponse(page, status)
    _add_security_headers(answer, frame)
    return answer


def _add_security_headers(answer: Response, frame: PageFrame) -> None:
    """Adds headers that allow only this page's own script and styles, and forbid caching and
    framing.
    """
    nonce_source = f"'nonce-{frame.nonce}'"
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {nonce_source}; style-src {nonce_source}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    # Not `no-referrer`: browsers would send the form with the Origin `null`.
    answer.headers["Referrer-Policy"] = "same-origin"


def _set_cookie(
    request: Request,
    answer: Response,
    cookie: str,
) -> None:
    """Sets the session's cookie. The cookie is secure under TLS, even if a proxy ends TLS."""
    ui = _get_installation().settings.ui
    public = urlsplit(ui.url)
    # A proxy may have ended TLS without a header that says so.
    proxy_uses_tls = public.scheme == "https" and request.headers.get("host") == public.netloc
    answer.set_cookie(
        cookie_name(),
        cookie,
        max_age=int(ui.session_duration.total_seconds()),
        path="/",
        secure=request.url.scheme == "https" or proxy_uses_tls,
        httponly=True,
        samesite="strict",
    )


def routes() -> tuple[Route, ...]:
    """Returns the routes. Each call starts its own count of failed attempts."""
    return (
        Route(SIGN_IN_PATH, show, methods=["GET"]),
        Route(SIGN_IN_PATH, SignInForm().sign_in, methods=["POST"]),
    )
