"""The frame of every page: one installation for all visitors, banners, and errors as text.

A page calls `show_page` with its function, gets its data by `context`, and never shows a
traceback. The other functions are parts that several pages have: choosing a route, searching,
paging, exporting. Forms are in `dialog_forms`, HTML in `markup`.
"""

import csv
import json
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import streamlit as st

from dashboard import labels, markup, theme
from dashboard.theme import Palette
from harness.app import processes
from harness.app.installation import Installation, open_installation
from harness.frame.errors import (
    ConfigError,
    NotAllowed,
    NotFound,
    StoreUnavailable,
    SwapgateError,
)
from harness.frame.formatting import escape_formula
from harness.frame.pagination import Page
from harness.frame.people.access import Actor
from harness.frame.plain_data import to_shown
from harness.frame.signing.audit_log import AuditLog
from harness.operations import queries, route_status
from harness.operations.context import Context
from harness.operations.route_status import Banner
from harness.providers.records import Targets
from harness.providers.registry import named_models
from harness.routing.control import routes
from harness.routing.settings import OidcSettings

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("swapgate.dashboard")
Item = TypeVar("Item")

STATE: Final = "acting"  # session key of the actor for whom the page was drawn
DONE: Final = "done"
NOT_SIGNED_IN: Final = "you are not signed in: reload the page, and sign in"
UNCHANGED = "Nothing was changed."
ROUTER_SERVES = "The router continues to serve its last valid table; nothing was changed."
NOT_OPEN = "The dashboard cannot be opened now"
WHY_NOT_OPEN = (
    "Sign-in does not work until it opens. The dashboard's log has the reason; `swapgate "
    "doctor` shows it."
)


@cache
def installation() -> Installation:
    """Opens the installation once for the process. Raises SwapgateError, and tries again at the
    next call.
    """
    return open_installation()


def reopen() -> None:
    """Makes the next page open the installation again; running pages keep the old instance."""
    installation.cache_clear()


def visitor() -> Actor | None:
    """Returns the actor for whom this page was drawn; None for a reader."""
    found = st.session_state.get(STATE)
    return found if isinstance(found, Actor) else None


def context() -> Context:
    """Returns the use cases' context. Raises NotAllowed if reading needs a sign-in."""
    ctx = installation().context
    if visitor() is None and needs_sign_in():
        raise NotAllowed(NOT_SIGNED_IN)
    return ctx


class _Process:
    """State of the process, outside of Streamlit's sessions."""

    sign_on: OidcSettings | None = None


def serve_with(sign_on: OidcSettings | None) -> None:
    """Stores the settings of single sign-on with which the process started."""
    _Process.sign_on = sign_on


def sign_on() -> OidcSettings | None:
    """Returns the settings of single sign-on: from the file, else those of the start, so that
    an edit of the file cannot make the pages public. Raises SwapgateError.
    """
    return installation().settings.ui.oidc or _Process.sign_on


def needs_sign_in() -> bool:
    """Tells whether reading needs a sign-in, as it does with single sign-on. Raises
    SwapgateError.
    """
    return sign_on() is not None


def is_open() -> bool:
    """Tells whether the installation opens. Under single sign-on, only the log says why not."""
    if _Process.sign_on is None:
        return _guard("The dashboard", installation)
    try:
        installation()
    except SwapgateError as error:
        log.warning("not_open: %s", error)
        _failed(NOT_OPEN, WHY_NOT_OPEN, ROUTER_SERVES)
        return False
    return True


def palette() -> Palette:
    """Returns the palette for the visitor's theme."""
    return theme.palette(st.context.theme.type)


def show_page(name: str, show: Callable[[], None]) -> None:
    """Shows a page below the banners that every page has: kill switches, break-glasses and a
    broken
    audit log. name: for the message if the page fails.
    """

    def show_all() -> None:
        ctx = context()
        _show_banners(route_status.list_switch_banners(ctx, installation().standing_switches))
        _show_banners(route_status.list_break_glass_banners(ctx))
        if (broken := first_break()) is not None:
            heading = f"✕ The audit log is broken at event {broken:,}."
            words = "A recorded event was changed. `swapgate audit verify` shows where."
            st.html(markup.banner(heading, words, tone=labels.Tone.WORSE))
        show()

    _guard(name, show_all)


def _guard(name: str, show: Callable[[], object]) -> bool:
    """Runs a part of a page, and shows its errors as text. Returns whether it succeeded.

    An error of Swapgate's own code is shown without details, which only the log has.
    """
    try:
        show()
    except SwapgateError as error:
        what = f"{name} could not be shown"
        works = f"The other pages work. {ROUTER_SERVES}"
        if isinstance(error, NotFound):
            works = "The other pages work."
        elif isinstance(error, StoreUnavailable):
            what = "The database does not answer"
            works = ROUTER_SERVES
        elif isinstance(error, ConfigError):
            what = "The configuration cannot be used"
            works = ROUTER_SERVES
        _failed(what, str(error), works, error.docs_page)
    except Exception:
        # A fault of Swapgate: its details belong in the log and not on the page.
        log.exception("page_failed: %s", name)
        why = "An unexpected error; its details are in the dashboard's log."
        _failed(
            f"{name} could not be shown",
            why,
            f"The other pages may work. {ROUTER_SERVES}",
        )
    else:
        return True
    return False


def _failed(
    what: str,
    why: str,
    works: str,
    docs_page: str = "",
) -> None:
    """Shows an error with a button to try again."""
    st.html(markup.failure(what, why, works, docs_page=docs_page))
    if st.button("Try again", icon=":material/refresh:"):
        st.rerun()


def show_freezes(route: str | None = None) -> None:
    """Shows the freezes of a route, or of all routes."""
    _show_banners(route_status.list_freeze_banners(context(), route))


def _show_banners(found: Sequence[Banner]) -> None:
    for banner in found:
        tone = labels.Tone.WORSE if banner.serious else labels.Tone.UNDECIDED
        page = banner.docs_page
        st.html(
            markup.banner(
                banner.heading,
                banner.text,
                tone=tone,
                docs_page=page,
            )
        )


@st.cache_data(ttl=60, show_spinner=False)
def first_break() -> int | None:
    """Returns the first event at which the audit log's chain breaks; None if it is intact. May
    be a minute old, because checking the chain reads the whole log.
    """
    with context().store.read() as tx:
        return AuditLog(tx).first_break()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Shows a placeholder while the block reads, at the first run only."""
    key = f"shown:{what}"
    # Without a slot at each run, Streamlit would move and redraw all parts below.
    slot = st.empty()
    if key not in st.session_state:
        slot.html(markup.loading(what))
    try:
        yield
    finally:
        slot.empty()
    st.session_state[key] = True


def choose_route(routes: Sequence[str]) -> str | None:
    """Asks for a route; the page's address may name it. Returns None after showing that there
    is no such route.
    """
    name = st.query_params.get("route")
    if name is None or name in routes:
        return (
            st.selectbox(
                "Route",
                routes,
                key="route",
                bind="query-params",
            )
            or routes[0]
        )
    why = "The page's address names it. `swapgate route list` lists all routes."
    st.html(markup.title(f"There is no route {markup.strong(name)}", markup.rich(why)))
    choice = st.selectbox(
        "Show another route",
        routes,
        index=None,
        placeholder="Choose a route",
        key="instead",
    )
    if choice is not None:
        st.query_params["route"] = choice
        st.rerun()
    return None


def show_done_message() -> None:
    """Shows the message of the action that just succeeded, once."""
    message = st.session_state.pop(DONE, None)
    if message:
        st.html(markup.banner("Done.", message, tone=labels.Tone.BETTER))


def link(
    page: str,
    label: str,
    icon: str,
    **query: str,
) -> None:
    """Shows a link to another page. query: the page's filters."""
    symbol = f":material/{icon}:"
    st.page_link(
        f"views/{page}.py",
        label=label,
        icon=symbol,
        query_params=query or None,
    )


def search(label: str, placeholder: str) -> Callable[[str], bool]:
    """Asks for words. Returns a function that tells whether a text contains all of them."""
    wanted = st.text_input(
        label,
        key="find",
        bind="query-params",
        placeholder=placeholder,
    )
    words = (wanted or "").casefold().split()
    return lambda text: all(word in text.casefold() for word in words)


def find(
    items: Sequence[Item],
    most: int,
    label: str,
    hint: str,
    text: Callable[[Item], str],
) -> Sequence[Item]:
    """Returns the items whose text a person searches for; all if there are at most `most`."""
    if len(items) <= most:
        return items
    wanted = search(label, hint)
    return [item for item in items if wanted(text(item))]


def show_no_route() -> None:
    show_empty("Make one on Overview, or by this command:", "swapgate init --guided")


def ask_filter(
    label: str,
    key: str,
    placeholder: str,
) -> str:
    """Asks for a filter that the page's address keeps. A change goes back to the first page."""
    wanted = st.text_input(
        label,
        key=key,
        bind="query-params",
        placeholder=placeholder,
        on_change=show_first_page,
    )
    return (wanted or "").strip()


def show_first_page() -> None:
    """Forgets the cursor, because it belongs to another filter."""
    st.query_params.pop("after", None)


def show_empty(sentence: str, command: str) -> None:
    st.html(markup.empty(sentence, command))


def show_rest(
    page: Page[Any],
    what: str,
    command: str,
) -> None:
    """Says how many more there are. command: lists all of them."""
    if page.next is not None:
        st.html(markup.note(f"{len(page):,} of {page.total:,} {what}; `{command}` lists all."))


def show_turns(
    page: str,
    what: str,
    following: str | None,
) -> None:
    """Shows links to the newest and to older entries. following: the next cursor; None at the
    end.
    """
    chosen = {k: v for k, v in st.query_params.to_dict().items() if k != "after"}
    if "after" in st.query_params:
        st.html(markup.block(markup.link(page, f"Newest {what}", **chosen)))
    if following is not None:
        st.html(
            markup.block(
                markup.link(
                    page,
                    f"Older {what}",
                    after=following,
                    **chosen,
                )
            )
        )


def show_html(text: str) -> None:
    if text:
        st.html(text)


def missing_control() -> str | None:
    """Returns advice if no control process answers; else None."""
    return processes.describe_missing_control(installation().settings.control)


def warn_without_control() -> None:
    """Shows that an action will wait, if no control process answers."""
    advice = missing_control()
    if advice is not None:
        st.html(markup.banner("Not now:", advice))


def copy_as_cli(*commands: Sequence[str]) -> None:
    """Shows the commands that give the page's content in a terminal."""
    with st.expander("Copy as CLI", icon=":material/terminal:"):
        for words in commands:
            st.code(
                shlex.join(["swapgate", *words]),
                language=None,
                wrap_lines=True,
            )


def titles(ctx: Context) -> Mapping[str, str]:
    return {name: ctx.suites.title(name) for name in ctx.suites.names()}


def route_names(ctx: Context) -> Sequence[str]:
    return [record.name for record in ctx.store.lists.routes()]


def name_target(ctx: Context, id_: str) -> str:
    """Returns a target's name; its id if the target is unknown."""
    return queries.load_target_names(ctx, {id_}).get(id_, id_)


def incumbent_name(ctx: Context, route: str) -> str:
    """Names the model that serves a route. Raises NotFound."""
    return name_target(ctx, queries.find_route(ctx, route).incumbent)


def candidates(ctx: Context, route: str) -> Sequence[str]:
    """Lists the targets that could replace the route's incumbent, by name. Raises NotFound."""
    with ctx.store.read() as tx:
        incumbent = routes.require_route(tx, route).incumbent
        found = Targets(tx).all()
    return sorted(target.name for target in found.values() if target.id != incumbent)


def model_names(ctx: Context) -> list[str]:
    """Lists the names of registered targets, then of models that configured providers offer."""
    with ctx.store.read() as tx:
        known = sorted({target.name for target in Targets(tx).all().values()})
    offered = (name for name, _ in named_models.list_configured_offers(ctx))
    return list(dict.fromkeys((*known, *offered)))


def to_csv(frame: "pd.DataFrame") -> bytes:
    """Writes CSV with a byte-order mark, by which spreadsheets recognise UTF-8. It quotes every
    text, so that a `;` in it never starts a new cell.
    """
    text = frame.map(escape_formula).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8-sig")


def frame_of(rows: Iterable[object]) -> "pd.DataFrame":
    """Builds a row of each record; lists and objects in it become JSON."""
    import pandas as pd  # noqa: PLC0415 - slow to import, and large

    plain = pd.DataFrame([to_shown(row) for row in rows])
    return plain.map(
        lambda cell: (
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
        )
    )


def offer_csv(name: str, load: "Callable[[], pd.DataFrame]") -> None:
    """Shows a button that downloads a table. load: builds the table when the button is used, in
    a thread without the visitor's session.
    """
    st.download_button(
        "CSV",
        lambda: to_csv(load()),
        f"{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        on_click="ignore",
    )
