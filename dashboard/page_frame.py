"""The frame of every page: one installation for all visitors, banners, and errors as text.

A page calls `show_page` with its function, gets its data by `context`, and never shows a
traceback. The other functions are shared parts: choosing a route, searching, paging,
exporting. Forms are in `dialog_forms`, HTML in `markup`.
"""

import csv
import json
import logging
import shlex
from collections import Counter
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
    SwapproofError,
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

log = logging.getLogger("swapproof.dashboard")
Item = TypeVar("Item")

ACTOR_KEY: Final = "acting"  # session key of the actor for whom the page was drawn
DONE_KEY: Final = "done"  # session key of the message after an action
NOT_SIGNED_IN: Final = "you are not signed in: reload the page, and sign in"
UNCHANGED = "Nothing was changed."
ROUTER_SERVES = "The router continues to serve its last valid table; nothing was changed."
NOT_OPEN = "The dashboard cannot be opened now"
WHY_NOT_OPEN = (
    "Sign-in does not work until it opens. The dashboard's log has the reason; `swapproof "
    "doctor` shows it."
)


@cache
def installation() -> Installation:
    """Returns the process's installation, which the first call opens.

    Raises SwapproofError if it cannot open; the next call tries again.
    """
    return open_installation()


def reopen() -> None:
    """Makes the next page open the installation again; running pages keep the old instance."""
    installation.cache_clear()


def visitor() -> Actor | None:
    """Returns the actor for whom this page was drawn; None for a reader."""
    actor = st.session_state.get(ACTOR_KEY)
    return actor if isinstance(actor, Actor) else None


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
    """Returns the settings of single sign-on. Raises SwapproofError.

    Without settings in the file, the settings at the process's start hold, so that an edit of
    the file cannot make the pages public.
    """
    return installation().settings.ui.oidc or _Process.sign_on


def needs_sign_in() -> bool:
    """Tells whether visitors must sign in to read; single sign-on requires it. Raises
    SwapproofError.
    """
    return sign_on() is not None


def is_open() -> bool:
    """Tells whether the installation opens, and shows an error if it does not. With single
    sign-on, only the log has the error's details.
    """
    if _Process.sign_on is None:
        return _guard("The dashboard", installation)
    try:
        installation()
    except SwapproofError as error:
        log.warning("not_open: %s", error)
        _show_failure(NOT_OPEN, WHY_NOT_OPEN, ROUTER_SERVES)
        return False
    return True


def palette() -> Palette:
    """Returns the palette for the visitor's theme."""
    return theme.palette(st.context.theme.type)


def show_page(name: str, show: Callable[[], None]) -> None:
    """Shows a page below the banners of every page: kill switches, break-glasses and a broken
    audit log.

    Args:
        name: the page's name in an error message.
    """

    def show_all() -> None:
        ctx = context()
        _show_banners(route_status.list_switch_banners(ctx, installation().standing_switches))
        _show_banners(route_status.list_break_glass_banners(ctx))
        if (broken := first_break()) is not None:
            heading = f"✕ The audit log is broken at event {broken:,}."
            words = "A recorded event was changed. `swapproof audit verify` shows where."
            st.html(markup.banner(heading, words, tone=labels.Tone.WORSE))
        show()

    _guard(name, show_all)


def _guard(name: str, show: Callable[[], object]) -> bool:
    """Runs a part of a page, and shows its errors as text. Returns whether the part succeeded.

    Only the log has the details of an error in Swapproof's own code.
    """
    try:
        show()
    except SwapproofError as error:
        problem = f"{name} could not be shown"
        still_works = f"The other pages work. {ROUTER_SERVES}"
        if isinstance(error, NotFound):
            still_works = "The other pages work."
        elif isinstance(error, StoreUnavailable):
            problem = "The database does not answer"
            still_works = ROUTER_SERVES
        elif isinstance(error, ConfigError):
            problem = "The configuration cannot be used"
            still_works = ROUTER_SERVES
        _show_failure(problem, str(error), still_works, error.docs_page)
    except Exception:
        # A fault of Swapproof: the log gets its details, and the page does not.
        log.exception("page_failed: %s", name)
        reason = "An unexpected error; its details are in the dashboard's log."
        _show_failure(
            f"{name} could not be shown",
            reason,
            f"The other pages may work. {ROUTER_SERVES}",
        )
    else:
        return True
    return False


def _show_failure(
    problem: str,
    reason: str,
    still_works: str,
    docs_page: str = "",
) -> None:
    """Shows an error with a button to try again."""
    st.html(markup.failure(problem, reason, still_works, docs_page=docs_page))
    if st.button("Try again", icon=":material/refresh:"):
        st.rerun()


def show_freezes(route: str | None = None) -> None:
    """Shows the freezes of a route, or of all routes."""
    _show_banners(route_status.list_freeze_banners(context(), route))


def _show_banners(banners: Sequence[Banner]) -> None:
    for banner in banners:
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
def loading(part: str) -> Iterator[None]:
    """Shows a placeholder while the block runs, at the page's first run only."""
    shown_key = f"shown:{part}"
    # Every run needs the slot: without it, Streamlit would move and redraw all parts below.
    slot = st.empty()
    if shown_key not in st.session_state:
        slot.html(markup.loading(part))
    try:
        yield
    finally:
        slot.empty()
    st.session_state[shown_key] = True


def choose_route(routes: Sequence[str]) -> str | None:
    """Asks for a route, which the page's address may name. If the route does not exist, shows
    that, and returns None.
    """
    named_route = st.query_params.get("route")
    if named_route is None or named_route in routes:
        return (
            st.selectbox(
                "Route",
                routes,
                key="route",
                bind="query-params",
            )
            or routes[0]
        )
    note = "The page's address names it. `swapproof route list` lists all routes."
    st.html(markup.title(f"There is no route {markup.strong(named_route)}", markup.rich(note)))
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
    message = st.session_state.pop(DONE_KEY, None)
    if message:
        st.html(markup.banner("Done.", message, tone=labels.Tone.BETTER))


def link(
    page: str,
    label: str,
    icon: str,
    **query: str,
) -> None:
    """Shows a link to another page.

    Args:
        query: the page's filters.
    """
    symbol = f":material/{icon}:"
    st.page_link(
        f"views/{page}.py",
        label=label,
        icon=symbol,
        query_params=query or None,
    )


def search(label: str, placeholder: str, key: str = "find") -> Callable[[str], bool]:
    """Asks for words, which the page's address keeps under `key`. Returns a function that tells
    whether a text contains all of them.
    """
    entered = st.text_input(
        label,
        key=key,
        bind="query-params",
        placeholder=placeholder,
    )
    words = (entered or "").casefold().split()
    return lambda text: all(word in text.casefold() for word in words)


def find(
    items: Sequence[Item],
    most: int,
    label: str,
    hint: str,
    text: Callable[[Item], str],
) -> Sequence[Item]:
    """Asks for words, and returns the items whose text contains them. If there are at most
    `most` items, returns all without asking.
    """
    if len(items) <= most:
        return items
    is_match = search(label, hint)
    return [item for item in items if is_match(text(item))]


def show_no_route() -> None:
    show_empty("Make one on Overview, or by this command:", "swapproof init --guided")


def ask_filter(
    label: str,
    key: str,
    placeholder: str,
) -> str:
    """Asks for a filter, which the page's address keeps. A new filter shows the first page."""
    entered = st.text_input(
        label,
        key=key,
        bind="query-params",
        placeholder=placeholder,
        on_change=show_first_page,
    )
    return (entered or "").strip()


def show_first_page() -> None:
    """Forgets the cursor, because it belongs to another filter."""
    st.query_params.pop("after", None)


def show_empty(sentence: str, command: str) -> None:
    st.html(markup.empty(sentence, command))


def show_rest(
    page: Page[Any],
    noun: str,
    command: str,
) -> None:
    """Counts the shown rows of an incomplete page.

    Args:
        noun: names the rows.
        command: lists all.
    """
    if page.next is not None:
        st.html(markup.note(f"{len(page):,} of {page.total:,} {noun}; `{command}` lists all."))


def show_page_links(
    page: str,
    noun: str,
    next_cursor: str | None,
) -> None:
    """Shows links to the newest and to older entries.

    Args:
        noun: names the entries.
        next_cursor: None at the end.
    """
    filters = {
        name: value for name, value in st.query_params.to_dict().items() if name != "after"
    }
    if "after" in st.query_params:
        st.html(markup.block(markup.link(page, f"Newest {noun}", **filters)))
    if next_cursor is not None:
        st.html(
            markup.block(
                markup.link(
                    page,
                    f"Older {noun}",
                    after=next_cursor,
                    **filters,
                )
            )
        )


def show_html(text: str) -> None:
    if text:
        st.html(text)


def missing_control() -> str | None:
    """Returns the advice for a missing control process; None if one answers."""
    return processes.describe_missing_control(installation().settings.control)


def warn_without_control() -> None:
    """Warns that an action will wait, if no control process answers."""
    advice = missing_control()
    if advice is not None:
        st.html(markup.banner("Not now:", advice))


def copy_as_cli(*commands: Sequence[str]) -> None:
    """Shows the commands that print the page's content in a terminal."""
    with st.expander("Copy as CLI", icon=":material/terminal:"):
        for arguments in commands:
            st.code(
                shlex.join(["swapproof", *arguments]),
                language=None,
                wrap_lines=True,
            )


def titles(ctx: Context) -> Mapping[str, str]:
    """Returns the titles by suite. Suites with the same title also have their names in it."""
    titles_by_suite = {name: ctx.suites.title(name) for name in ctx.suites.names()}
    counts = Counter(titles_by_suite.values())
    return {
        name: title if counts[title] == 1 else f"{name}: {title}"
        for name, title in titles_by_suite.items()
    }


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
        targets = Targets(tx).all()
    return sorted(target.name for target in targets.values() if target.id != incumbent)


def model_names(ctx: Context) -> list[str]:
    """Lists the names of registered targets, then of models that configured providers offer."""
    with ctx.store.read() as tx:
        registered = sorted({target.name for target in Targets(tx).all().values()})
    offered_names = (name for name, _ in named_models.list_configured_offers(ctx))
    return list(dict.fromkeys((*registered, *offered_names)))


def to_csv(frame: "pd.DataFrame") -> bytes:
    """Writes CSV with a byte-order mark, by which spreadsheets recognise UTF-8. It quotes every
    text, so that a `;` in it never starts a new cell.
    """
    csv_text = frame.map(escape_formula).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return csv_text.encode("utf-8-sig")


def build_frame(rows: Iterable[object]) -> "pd.DataFrame":
    """Builds a table with a row for each record; lists and objects become JSON."""
    import pandas as pd  # noqa: PLC0415 - slow to import, and large

    plain = pd.DataFrame([to_shown(row) for row in rows])
    return plain.map(
        lambda cell: (
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
        )
    )


def offer_csv(name: str, load: "Callable[[], pd.DataFrame]") -> None:
    """Shows a button that downloads a table.

    Args:
        load: builds the table at a click, in a thread without the visitor's session.
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
