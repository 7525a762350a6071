"""Serves `/sign-in` beside Streamlit's pages. Each sign-in sets a new cookie, HttpOnly and
SameSite=Strict. The page accepts a POST only if its Origin is the dashboard. It logs wrong keys
and links and limits them by address; a valid key or link always works.

It is a plain page and not Streamlit's, because Streamlit cannot set such a cookie. The sessions
and links are checked in `harness.operations`.
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
from harness.frame.errors import NotAllowed, SwapgateError
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
    """What each rendering of the page needs."""

    nonce: str  # allows the page's script and styles
    going_to: str  # the page to show next


def ask_key(frame: PageFrame, problem: str = "") -> str:
    """Renders the form for a key. problem: why the last key was refused."""
    field = (
        '<label for="key">Management key</label>'
        '<input id="key" name="key" type="password" autocomplete="off" autofocus required>'
        "<button>Sign in</button>"
    )
    ways = (
        '<p class="note">Or open a sign-in link: <code>swapgate key sign-in-link</code> prints '
        "one. It works once, and needs no key here.</p>"
        f'<p class="note"><a href="{escape(frame.going_to)}">Read without signing in</a></p>'
    )
    hidden = f'<form id="by-link" method="post" action="{SIGN_IN_PATH}" hidden>{_going(frame)}'
    hidden += '<input type="hidden" name="link"></form>'
    refused = failure("Not signed in", problem, "") if problem else ""
    return _page(frame, f"{refused}{_form(frame, field)}{ways}{hidden}")


def ask_whether(
    frame: PageFrame,
    link: str,
    actor: Actor,
    before: Actor | None,
) -> str:
    """Asks whether to sign in by a link, before the link is used up. before: who is signed in
    now.

    The question protects from a link that signs people in under another person's name.
    """
    who = f"{strong(actor.name)} ({escape(actor.role.name.lower())})"
    if actor.key is None:
        who += ", the operator of this machine"
    now = ""
    if before is not None:
        now = f"<p>You are signed in as {strong(before.name)}; that session ends then.</p>"
    field = (
        f"<p>This link signs you in as {who}. The audit log records your acts under this "
        "name.</p>"
        f'{now}<input type="hidden" name="link" value="{escape(link)}">'
        f'<button name="confirm" value="yes">Sign in as {escape(actor.name)}</button>'
    )
    refuse = '<p class="note">If that is not you, close this page and tell the sender.</p>'
    return _page(frame, f"{_form(frame, field)}{refuse}")


def refuse(frame: PageFrame, why: str) -> str:
    """Renders a refusal, with a way to the form."""
    on = f'<p><a href="{SIGN_IN_PATH}">Sign in another way</a></p>'
    return _page(frame, f"{failure('Not signed in', why, '')}{on}")


def _form(frame: PageFrame, fields: str) -> str:
    return f'<form method="post" action="{SIGN_IN_PATH}">{_going(frame)}{fields}</form>'


def _going(frame: PageFrame) -> str:
    return f'<input type="hidden" name="next" value="{escape(frame.going_to)}">'


def _page(frame: PageFrame, body: str) -> str:
    styles = theme.css().replace("<style>", f'<style nonce="{frame.nonce}">', 1)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sign in · Swapgate</title>{styles}</head>"
        '<body class="sg-sign-in"><main class="sg"><h1><b>Sign in</b> to Swapgate</h1>'
        f'{body}</main><script nonce="{frame.nonce}">{_SCRIPT}</script></body></html>'
    )


log = logging.getLogger("swapgate.dashboard")

SIGN_ON_PATH: Final = f"{SIGN_IN_PATH}/single-sign-on"
MOST_BYTES: Final = 8_192
# A page of the dashboard with its filters, never another host.
OWN_PAGE: Final = re.compile(r"/[A-Za-z0-9_-]*(\?[A-Za-z0-9_.~%=&+:/,-]*)?")
STRANGER: Final = (
    "the form was not sent from this dashboard's own page: open the dashboard and sign in there"
)
TOO_MANY: Final = (
    "too many wrong keys or links came from this address: wait {} s before the next wrong one. "
    "A valid key or link works at once"
)


def cookie_name() -> str:
    """Names the cookie by the port: browsers give one host's cookies to all of its ports."""
    return f"swapgate-session-{st.get_option('server.port')}"


def sign_on_address(page: str) -> str:
    """Returns the address that begins single sign-on. page: where to return to."""
    return f"{SIGN_ON_PATH}?next={quote(page, safe='/')}"


async def show(request: Request) -> Response:
    """Answers with the form. 421 for another host name."""
    if not is_own_host(request):
        return Response("this host is not the dashboard's", 421)
    frame = _frame(request.query_params.get("next", "/"))
    return _answer(frame, ask_key(frame))


class SignInForm:
    """Signs people in. Limits an address only after a wrong key or link, so that a guesser does
    not lock out other people at the address.
    """

    def __init__(self) -> None:
        self._attempts: FailedAttempts | None = None

    async def sign_in(self, request: Request) -> Response:
        """Answers a posted form: signs in, asks whether, or refuses. 403 for a form of another
        site.
        """
        if not is_own_host(request):
            return Response("this host is not the dashboard's", 421)
        fields = await _read_form(request)
        frame = _frame(fields.get("next", "/"))
        if fields == {} or not is_own_page(request):
            return _answer(frame, refuse(frame, STRANGER), 403)
        try:
            return await run_in_threadpool(_sign_in, request, fields, frame)
        except NotAllowed as error:
            return self._refuse(request, fields, frame, str(error))

    def _refuse(
        self,
        request: Request,
        fields: Mapping[str, str],
        frame: PageFrame,
        why: str,
    ) -> Response:
        """Refuses a wrong key or link. 429 after too many from the same address."""
        page = refuse if _field(fields, "link") else ask_key
        if self._attempts is None:
            self._attempts = FailedAttempts(_installation().clock)
        peer = request.client.host if request.client is not None else None
        address = client_address(peer, (), ())
        wait_s = math.ceil(self._attempts.wait_s(address))
        if wait_s > 0:
            answer = _answer(frame, page(frame, TOO_MANY.format(wait_s)), 429)
            answer.headers["Retry-After"] = str(wait_s)
            return answer
        self._attempts.failed(address)
        by = "link" if _field(fields, "link") else "key"
        log.warning("sign_in_refused: by a %s, from %s: %s", by, address, why)
        return _answer(frame, page(frame, why), 403)


def _sign_in(
    request: Request,
    fields: Mapping[str, str],
    frame: PageFrame,
) -> Response:
    """Signs in by the posted key or link, and redirects with the cookie. Raises NotAllowed for
    a wrong one; answers 503 if the database fails.
    """
    former = request.cookies.get(cookie_name(), "")
    link = _field(fields, "link")
    key = _field(fields, "key")
    installation = _installation()
    ctx = installation.context
    secret = installation.secret
    lasts = installation.settings.ui.session_duration
    try:
        if link and "confirm" not in fields:
            offered = dashboard_sessions.preview_link(
                ctx,
                link,
                secret=secret,
                former=former,
            )
            page = ask_whether(frame, link, offered.actor, _find_actor(former))
            return _answer(frame, page)
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
    except SwapgateError as error:
        return _answer(frame, refuse(frame, str(error)), 503)
    answer = RedirectResponse(frame.going_to, 303)
    _protect(answer, frame)
    _set_cookie(request, answer, cookie)
    return answer


def _field(fields: Mapping[str, str], name: str) -> str:
    return fields.get(name, "").strip()


def _find_actor(cookie: str) -> Actor | None:
    """Returns who is signed in by a cookie; None if its session has ended."""
    try:
        return resume(cookie).actor if cookie else None
    except NotAllowed:
        return None


def resume(cookie: str) -> ActorSession:
    """Finds the session of a cookie. Raises NotAllowed, SwapgateError."""
    installation = _installation()
    return dashboard_sessions.resume(installation.context, cookie, secret=installation.secret)


def _installation() -> Installation:
    from dashboard.page_frame import installation  # noqa: PLC0415 - Streamlit's options come first

    return installation()


async def _read_form(request: Request) -> Mapping[str, str]:
    """Reads a form of at most `MOST_BYTES`. Empty for a longer or malformed one."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _frame(going_to: str) -> PageFrame:
    return PageFrame(secrets.token_urlsafe(16), own_page(going_to))


def own_page(going_to: str) -> str:
    """Returns the dashboard's page, else `/`, so that no link redirects to another site."""
    return going_to if OWN_PAGE.fullmatch(going_to) else "/"


def is_own_host(request: Request) -> bool:
    """Checks the host's name: any other name could give another site's page our origin."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    return host in st.get_option("server.allowedHosts")


def is_own_page(request: HTTPConnection) -> bool:
    """Tells whether the request's Origin is this dashboard."""
    origin = urlsplit(request.headers.get("origin", ""))
    return origin.scheme in (
        "http",
        "https",
    ) and origin.netloc == request.headers.get("host")


def _answer(
    frame: PageFrame,
    page: str,
    status: int = 200,
) -> Response:
    answer = HTMLResponse(page, status)
    _protect(answer, frame)
    return answer


def _protect(answer: Response, frame: PageFrame) -> None:
    """Adds headers that allow only this page's own script and styles, and forbid caching and
    framing.
    """
    own = f"'nonce-{frame.nonce}'"
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {own}; style-src {own}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
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
    """Sets the session's cookie, secure under TLS, also behind a proxy."""
    ui = _installation().settings.ui
    public = urlsplit(ui.url)
    # A proxy may have ended TLS without a header that says so.
    by_proxy = public.scheme == "https" and request.headers.get("host") == public.netloc
    answer.set_cookie(
        cookie_name(),
        cookie,
        max_age=int(ui.session_duration.total_seconds()),
        path="/",
        secure=request.url.scheme == "https" or by_proxy,
        httponly=True,
        samesite="strict",
    )


def routes() -> tuple[Route, ...]:
    """Returns the routes. Each call starts its own count of failed attempts."""
    return (
        Route(SIGN_IN_PATH, show, methods=["GET"]),
        Route(SIGN_IN_PATH, SignInForm().sign_in, methods=["POST"]),
    )
