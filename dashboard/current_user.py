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
from harness.frame.errors import NotAllowed, SwapproofError
from harness.frame.people.access import SIGN_IN_PATH, Actor, Role
from harness.operations import dashboard_sessions, single_sign_on
from harness.operations.dashboard_sessions import ActorSession
from harness.operations.single_sign_on import read_identity

SIGN_IN: Final = (
    "Sign in first, at the top of this page; swapproof key sign-in-link prints a link for it."
)
READING_ONLY: Final = "You are not signed in."
SIGN_IN_BROKEN: Final = (
    "The database does not answer, so sign-in does not work now: see the log."
)


def show_account(page: str) -> bool:
    """Shows the page's name, and the signed-in actor or a link to sign in.

    Returns whether the page may be shown. A visitor without a session sees no page under
    single sign-on, and no visitor sees one if the installation cannot open.
    """
    if not page_frame.is_open():
        return False
    try:
        session, reason = _find_session_or_reason()
    except SwapproofError as error:
        # If reading needs no sign-in, the page itself reports the database's failure.
        session = None
        reason = _hide_database_error(error) if page_frame.needs_sign_in() else ""
    if session is not None:
        actor = session.actor
        st.session_state[page_frame.ACTOR_KEY] = actor
        credential = (
            f"with the key {actor.key}" if actor.key else "as the operator of this machine"
        )
        with st.container(key="account", horizontal=True, vertical_alignment="center"):
            st.html(
                '<div class="sg sg-account" '
                f'title="{escape(f"You act as {actor.name}, {credential}")}">'
                f'<b class="page">{escape(page)}</b>'
                f"<span>{strong(actor.name)} · {escape(actor.role.name.lower())}</span> "
                f"{markup.docs_link('index', 'Docs')}</div>"
            )
            if st.button("Sign out", icon=":material/logout:", type="tertiary"):
                _sign_out()
        return True
    st.session_state.pop(page_frame.ACTOR_KEY, None)
    if not page_frame.needs_sign_in():
        st.html(_render_account_line(reason or READING_ONLY, sign_in_address(), page))
        return True
    _ask_sign_on(reason)
    return False


def _ask_sign_on(reason: str) -> None:
    """Shows the ways to sign in, instead of the page.

    Args:
        reason: explains why the visitor has no valid session.
    """
    st.html(markup.title("<b>Sign in</b> to Swapproof", markup.escape(reason)))
    if page_frame.sign_on() is None:
        st.html(_render_account_line("With a key or a link:", sign_in_address()))
        return
    address = escape(sign_in_page.sign_on_address(current_page()))
    link = (
        f'<a class="sg-action" href="{address}" target="_self">Sign in with single sign-on</a>'
    )
    st.html(f'<p class="sg">{link}</p>')
    st.html(_render_account_line("Or with a key or a link:", sign_in_address()))
    if st.user.get("is_logged_in"):
        # The identity provider knows the visitor, but this account has no access to Swapproof.
        # After a sign-out at the provider, the visitor can use another account.
        st.button("Sign out there", type="tertiary", on_click=st.logout)


def _find_session_or_reason() -> tuple[ActorSession | None, str]:
    """Returns the visitor's session, or the reason why it is missing. Raises SwapproofError if
    the database does not answer.
    """
    try:
        return _find_session(), ""
    except NotAllowed as error:
        return None, str(error)


def _find_actor() -> tuple[Actor | None, str]:
    """Returns the actor with the present role, or the reason why it is missing.

    Raises SwapproofError if the database does not answer.
    """
    session, reason = _find_session_or_reason()
    return (session.actor if session is not None else None), reason


def _hide_database_error(error: SwapproofError) -> str:
    """Logs a database error, and returns a text that hides the database's address."""
    page_frame.log.warning("sign_in_unavailable: %s", error)
    return SIGN_IN_BROKEN


def _find_session() -> ActorSession | None:
    """Finds the session by the cookie, else by single sign-on.

    If the cookie's session has ended and single sign-on is set up, the visitor gets a session
    from the identity provider instead. Raises NotAllowed, SwapproofError.
    """
    cookie = session_cookie()
    oidc = page_frame.sign_on()
    if cookie:
        with suppress(NotAllowed) if oidc is not None else nullcontext():
            return sign_in_page.resume(cookie)
    return _find_sign_on(cookie)


def _find_sign_on(former: str = "") -> ActorSession | None:
    """Finds or begins the session of a person whom the identity provider knows. Returns None
    for other visitors.

    Args:
        former: the cookie of an earlier session, which the new session ends.

    Raises NotAllowed.
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
    """Reruns the whole page if the visitor has signed out.

    Otherwise a fragment would continue to refresh itself, and to show data.
    """
    if not page_frame.needs_sign_in():
        return
    try:
        is_signed_out = _find_session() is None
    except NotAllowed:
        is_signed_out = True
    except SwapproofError:
        # Stop here. Otherwise, if the database recovers now, the fragment would read it without
        # a session.
        st.html(markup.failure(page_frame.NOT_OPEN, SIGN_IN_BROKEN, page_frame.ROUTER_SERVES))
        st.stop()
    if is_signed_out:
        st.rerun()


@contextmanager
def live_part(name: str) -> Iterator[None]:
    """Checks that the visitor may still read a fragment, and shows its errors as text."""
    require_reader()
    try:
        yield
        now = page_frame.context().clock.now()
        st.html(markup.note(f"updated {time_of_day(now)}, every 2 s"))
    except SwapproofError as error:
        advice = f"Trying again. {page_frame.ROUTER_SERVES}"
        st.html(markup.failure(f"{name} cannot be read at the moment", str(error), advice))


def session_cookie() -> str:
    """Returns the cookie of this dashboard's session; empty without one."""
    cookie = st.context.cookies.get(sign_in_page.cookie_name(), "")
    # Streamlit's AppTest has no connection, and returns a value of another type here.
    return cookie if isinstance(cookie, str) else ""


def sign_in_address() -> str:
    """Returns the sign-in page's address, with the present page to return to."""
    return f"{SIGN_IN_PATH}?next={quote(current_page(), safe='/')}"


def current_page() -> str:
    """Returns the present page's path with its filters."""
    path = urlsplit(st.context.url or "").path or "/"
    if st.query_params:
        path += f"?{urlencode(st.query_params.to_dict())}"
    return path


def _sign_out() -> None:
    """Ends all sessions of the visitor: of a key, of single sign-on, and at the identity
    provider.
    """
    ctx = page_frame.installation().context
    try:
        if (session := _find_session()) is not None:
            dashboard_sessions.end(ctx, session)
        # A visitor who signed in with a key may also have a single sign-on cookie, valid for a
        # month. It would sign the visitor in again, so end that session too.
        with suppress(NotAllowed):
            if (sign_on_session := _find_sign_on()) is not None:
                dashboard_sessions.end(ctx, sign_on_session)
    except SwapproofError as error:
        st.html(markup.failure("Not signed out", str(error), "You are still signed in."))
        return
    if page_frame.sign_on() is not None and st.user.get("is_logged_in"):
        st.logout()
        # A rerun would drop unsent messages, among them the redirect to the provider.
        st.stop()
    st.rerun()


def signed_in() -> Actor | None:
    """Returns the actor for whom the page was drawn; None for a reader.

    The session may have ended since then, so `attempt` finds the actor again.
    """
    return page_frame.visitor()


def why_not(role: Role) -> str:
    """Explains why the visitor lacks a role; empty if the visitor has it."""
    actor = signed_in()
    if actor is None:
        return SIGN_IN
    if actor.role < role:
        own_role = actor.role.name.lower()
        required_role = role.name.lower()
        return f"{actor.name} has the role {own_role}; this needs {required_role}."
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

    Shows an error of the action as text.

    Args:
        done: writes the message after success.
        refused: describes the state after a refusal.
    """
    docs_page = ""
    consequence = page_frame.UNCHANGED
    try:
        actor, reason = _find_actor()
    except SwapproofError as error:
        actor = None
        reason = str(error)
        docs_page = error.docs_page
        if page_frame.needs_sign_in():
            reason = _hide_database_error(error)
            docs_page = ""
    if actor is not None:
        try:
            action(actor)
        except SwapproofError as error:
            reason = str(error)
            docs_page = error.docs_page
            consequence = refused
        else:
            st.session_state[page_frame.DONE_KEY] = done(actor)
            st.rerun()
    st.html(markup.failure("Not done", reason or SIGN_IN, consequence, docs_page=docs_page))


def _render_account_line(text: str, address: str, page: str = "") -> str:
    link = f'<a href="{escape(address)}" target="_self"><b>Sign in</b></a>'
    docs = markup.docs_link("index", "Docs")
    name = f'<b class="page">{escape(page)}</b>'
    return f'<div class="sg sg-account">{name}<span>{escape(text)}</span> {link} {docs}</div>'
