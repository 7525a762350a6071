"""Finds the actor of this browser. Each action checks again that the session is live and its
key is valid.

A session comes from `sign_in_page` (a key or a link) or from single sign-on. This module shows
the account and runs actions; the sessions themselves are in `harness.operations`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import streamlit as st

from dashboard import markup, page_frame, sign_in_page
from dashboard.labels import time_of_day
from dashboard.markup import escape, strong
from harness.frame.errors import NotAllowed, SwapgateError
from harness.frame.people.access import SIGN_IN_PATH, Actor, Role
from harness.operations import dashboard_sessions, single_sign_on
from harness.operations.dashboard_sessions import ActorSession
from harness.operations.single_sign_on import read_identity

SIGN_IN: Final = (
    "Sign in first, at the top of this page; swapgate key sign-in-link prints a link for it."
)
READING_ONLY: Final = "You can read without signing in."
SIGN_IN_BROKEN: Final = (
    "The database does not answer, so sign-in does not work now: see the log."
)


def show_account() -> bool:
    """Shows the signed-in actor, or a link to sign in.

    Returns whether the page may be shown. False if single sign-on is required and there is no
    session, or if the installation cannot be opened.
    """
    if not page_frame.is_open():
        return False
    try:
        found, why = _find()
    except SwapgateError as error:
        # If reading needs no sign-in, the page itself reports the database's failure.
        found = None
        why = _hide(error) if page_frame.needs_sign_in() else ""
    if found is not None:
        actor = found.actor
        st.session_state[page_frame.STATE] = actor
        how = f"with the key {actor.key}" if actor.key else "as the operator of this machine"
        with st.container(key="account", horizontal=True, vertical_alignment="center"):
            st.html(
                '<div class="sg sg-account" '
                f'title="{escape(f"You act as {actor.name}, {how}")}">'
                f"<span>{strong(actor.name)} · {escape(actor.role.name.lower())}</span></div>"
            )
            if st.button("Sign out", icon=":material/logout:", type="tertiary"):
                _sign_out()
        return True
    st.session_state.pop(page_frame.STATE, None)
    if not page_frame.needs_sign_in():
        st.html(_account_line(why or READING_ONLY, sign_in_address()))
        return True
    _ask_sign_on(why)
    return False


def _ask_sign_on(why: str) -> None:
    """Shows the ways to sign in, instead of the page. why: why the visitor's session does not
    count.
    """
    st.html(markup.title("<b>Sign in</b> to Swapgate", markup.escape(why)))
    if page_frame.sign_on() is None:
        st.html(_account_line("With a key or a link:", sign_in_address()))
        return
    address = escape(sign_in_page.sign_on_address(current_page()))
    link = (
        f'<a class="sg-action" href="{address}" target="_self">Sign in with single sign-on</a>'
    )
    st.html(f'<p class="sg">{link}</p>')
    st.html(_account_line("Or with a key or a link:", sign_in_address()))
    if st.user.get("is_logged_in"):
        # The identity provider knows the visitor, but this account has no access here. Signing
        # out there lets the visitor use another account.
        st.button("Sign out there", type="tertiary", on_click=st.logout)


def _find() -> tuple[ActorSession | None, str]:
    """Returns the visitor's session, or why there is none. Raises SwapgateError without the
    database.
    """
    try:
        return _find_session(), ""
    except NotAllowed as error:
        return None, str(error)


def _find_actor() -> tuple[Actor | None, str]:
    """Returns the actor with the present role, or why there is none. Raises as `_find`."""
    found, why = _find()
    return (found.actor if found is not None else None), why


def _hide(error: SwapgateError) -> str:
    """Logs a database error, and returns a text that hides the database's address."""
    page_frame.log.warning("nobody_known: %s", error)
    return SIGN_IN_BROKEN


def _find_session() -> ActorSession | None:
    """Finds the session by the cookie, else by single sign-on.

    With single sign-on, an ended session of a key does not lock the visitor out: the identity
    provider's answer then counts. Raises NotAllowed, SwapgateError.
    """
    cookie = session_cookie()
    oidc = page_frame.sign_on()
    if cookie:
        with suppress(NotAllowed) if oidc is not None else nullcontext():
            return sign_in_page.resume(cookie)
    return _find_sign_on(cookie)


def _find_sign_on(former: str = "") -> ActorSession | None:
    """Finds or begins the session of a person whom the identity provider knows. None without
    one.

    former: the cookie of an earlier session, which ends. Raises NotAllowed.
    """
    oidc = page_frame.sign_on()
    if oidc is None or not st.user.get("is_logged_in"):
        return None
    installation = page_frame.installation()
    return single_sign_on.sign_in(
        installation.context,
        read_identity(st.user.to_dict(), oidc),
        secret=installation.secret,
        lasts=installation.settings.ui.session_duration,
        former=former,
    )


def require_reader() -> None:
    """Reruns the whole page after a sign-out, since a fragment would keep refreshing itself."""
    if not page_frame.needs_sign_in():
        return
    try:
        gone = _find_session() is None
    except NotAllowed:
        gone = True
    except SwapgateError:
        # Stop here. Otherwise, if the database recovers now, the fragment would read it without
        # a session.
        st.html(markup.failure(page_frame.NOT_OPEN, SIGN_IN_BROKEN, page_frame.ROUTER_SERVES))
        st.stop()
    if gone:
        st.rerun()


@contextmanager
def live_part(what: str) -> Iterator[None]:
    """Checks that the visitor may still read a fragment, and shows its errors as text."""
    require_reader()
    try:
        yield
        now = page_frame.context().clock.now()
        st.html(markup.note(f"updated {time_of_day(now)} UTC, every 2 s"))
    except SwapgateError as error:
        why = f"Trying again. {page_frame.ROUTER_SERVES}"
        st.html(markup.failure(f"{what} cannot be read at the moment", str(error), why))


def session_cookie() -> str:
    """Returns the cookie of this dashboard's session; empty without one."""
    found = st.context.cookies.get(sign_in_page.cookie_name(), "")
    # Streamlit's AppTest has no connection, and returns a value of another type here.
    return found if isinstance(found, str) else ""


def sign_in_address() -> str:
    """Returns the sign-in page's address, which leads back to the present page."""
    return f"{SIGN_IN_PATH}?next={quote(current_page(), safe='/')}"


def current_page() -> str:
    """Returns the present page's path with its filters."""
    here = urlsplit(st.context.url or "").path or "/"
    if st.query_params:
        here += f"?{urlencode(st.query_params.to_dict())}"
    return here


def _sign_out() -> None:
    """Ends all sessions of the visitor: of a key, of single sign-on, and at the identity
    provider.
    """
    ctx = page_frame.installation().context
    try:
        if (found := _find_session()) is not None:
            dashboard_sessions.end(ctx, found)
        # A visitor who signed in with a key may also have a single sign-on cookie, valid for a
        # month. It would sign the visitor in again, so end that session too.
        with suppress(NotAllowed):
            if (other := _find_sign_on()) is not None:
                dashboard_sessions.end(ctx, other)
    except SwapgateError as error:
        st.html(markup.failure("Not signed out", str(error), "You are still signed in."))
        return
    if page_frame.sign_on() is not None and st.user.get("is_logged_in"):
        st.logout()
        # A rerun would drop unsent messages, among them the redirect to the provider.
        st.stop()
    st.rerun()


def signed_in() -> Actor | None:
    """Returns the actor for whom the page was drawn; None for a reader. `attempt` asks
    again.
    """
    return page_frame.visitor()


def why_not(role: Role) -> str:
    """Explains why the visitor may not do what needs this role; empty if the visitor may."""
    actor = signed_in()
    if actor is None:
        return SIGN_IN
    if actor.role < role:
        present = actor.role.name.lower()
        needed = role.name.lower()
        return f"{actor.name} has the role {present}; this needs {needed}."
    return ""


def may_read_content() -> bool:
    """Tells whether the visitor is signed in, or `agents.open_on_loopback` is set."""
    if page_frame.installation().settings.agents.open_on_loopback:
        return True
    return signed_in() is not None and _find_actor()[0] is not None


def attempt(
    action: Callable[[Actor], object],
    done: Callable[[Actor], str],
    *,
    refused: str = page_frame.UNCHANGED,
) -> None:
    """Runs an action with the actor's present role, and reruns the page with a message.

    done: writes the message after success. refused: describes the state after a refusal. An
    error of the action is shown as text.
    """
    docs_page = ""
    holds = page_frame.UNCHANGED
    try:
        actor, why = _find_actor()
    except SwapgateError as error:
        actor = None
        why = str(error)
        docs_page = error.docs_page
        if page_frame.needs_sign_in():
            why = _hide(error)
            docs_page = ""
    if actor is not None:
        try:
            action(actor)
        except SwapgateError as error:
            why = str(error)
            docs_page = error.docs_page
            holds = refused
        else:
            st.session_state[page_frame.DONE] = done(actor)
            st.rerun()
    st.html(markup.failure("Not done", why or SIGN_IN, holds, docs_page=docs_page))


def _account_line(words: str, address: str) -> str:
    link = f'<a href="{escape(address)}" target="_self"><b>Sign in</b></a>'
    return f'<div class="sg sg-account"><span>{escape(words)}</span> {link}</div>'
