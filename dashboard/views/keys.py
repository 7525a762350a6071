"""The Keys & budgets page answers: does any client run out of its budget, and who may act? It
creates, limits and revokes client keys and management keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs, key_dialogs, people_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, key_text, labels
from dashboard.text.html import escape
from harness.app.installation import Installation
from harness.control.operations.keys import KeySummary
from harness.control.operations.queries import list_keys
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.reliability.rate_limits import LimitStatus, RateState, limit_statuses
from router.access import rate_limits


def load_rate_use(
    installation: Installation, keys: Iterable[KeySummary]
) -> Mapping[str, Sequence[LimitStatus]] | None:
    """Loads how the rate limits of keys stand, by the key's id; keys without one are left out.

    None where no router has a book here: it runs on another machine, or never ran.
    """
    limited = {key.id: key.limits.rate for key in keys if key.limits is not None}
    clock = installation.clock
    now = clock.monotonic()
    try:
        states = rate_limits.read_rates(
            installation.settings.home / rate_limits.BOOK,
            limited,
            since=clock.now().timestamp() - now,
        )
    except OSError:
        return None
    found = {
        id_: limit_statuses(states.get(id_, RateState()), rate, now)
        for id_, rate in limited.items()
    }
    return {id_: statuses for id_, statuses in found.items() if statuses}


# With more client keys than these, the page has a search and shows no more at once.
MOST_ROWS: Final = 50


def show() -> None:
    with page_frame.loading("the keys"):
        ctx = page_frame.context()
        page, now = list_keys(ctx, PageRequest(MOST_LISTED)), ctx.clock.now()
    live = [key for key in page if key.revoked_at is None]
    clients = [key for key in live if key.role is None]
    people = [key for key in live if key.role is not None]
    st.html(html.title(key_text.title(clients, now.date()), escape(labels.date_time(now))))
    if page.invalid:
        st.html(html.invalid(page.invalid))
    page_frame.show_done_message()
    key_dialogs.show_new_key()
    _buttons(live)
    if clients:
        _clients(clients, now.date(), load_rate_use(page_frame.installation(), clients))
    else:
        st.html(html.empty("Clients of the router send a key. This creates one:",
                           "swapgate key create CLIENT"))  # fmt: skip
    _people(people)
    people_dialogs.show_people()
    _revoked([key for key in page if key.revoked_at is not None])
    if page.next is not None:
        st.html(html.note(f"{len(page):,} of {page.total:,} keys; swapgate key list has all."))
    page_frame.copy_as_cli("key", "list")


def _buttons(live: Sequence[KeySummary]) -> None:
    names = sorted({key.principal_name for key in live if key.role is not None})
    manager = partial(key_dialogs.create_management_key, names)
    change = partial(key_dialogs.change_key, live)
    openers = [
        Opener(
            "Create a client key",
            ":material/add:",
            key_dialogs.create_client_key,
            "new-client",
        ),
        Opener("Create a management key", ":material/person_add:", manager, "new-manager"),
        Opener(
            "Change or revoke a key",
            ":material/edit:",
            change,
            "change-key",
            missing="" if live else "There is no key to change.",
        ),
    ]
    action_dialogs.show_openers(openers)


def _clients(
    clients: Sequence[KeySummary],
    today: date,
    rates: Mapping[str, Sequence[LimitStatus]] | None,
) -> None:
    note = (
        "A request's cost counts as soon as it is recorded, within seconds. A rate fills with "
        "each request and is empty again after a minute without one."
    )
    st.html(html.section("Client keys", note))
    found = sorted(clients, key=lambda key: key_text.urgency(key, today))
    if len(clients) > MOST_ROWS:
        wanted = st.text_input(
            "Find a client", key="find", bind="query-params", placeholder="Part of its name"
        )
        words = (wanted or "").casefold().split()
        found = [key for key in found if all(word in key.name.casefold() for word in words)]
        shown = f"{min(len(found), MOST_ROWS):,} of {len(clients):,}, the fullest budget first"
        st.html(html.note(shown if found else "No client has this in its name."))
    rows = [key_text.client_cells(key, today, rates) for key in found[:MOST_ROWS]]
    if rows:
        st.html(html.table(key_text.CLIENT_HEADS, rows, stacked=True))


def _people(people: Sequence[KeySummary]) -> None:
    note = (
        "With a role in API, command line and dashboard. Each belongs to a person or service."
    )
    st.html(html.section("Management keys", note))
    if not people:
        st.html(html.note("Nobody has one: only the operator of this machine can act."))
        return
    by_name = sorted(people, key=lambda key: (key.principal_name.casefold(), key.created_at))
    rows = map(key_text.person_cells, by_name)
    st.html(html.table(key_text.PEOPLE_HEADS, rows, stacked=True))


def _revoked(gone: Sequence[KeySummary]) -> None:
    if gone:
        with st.expander(labels.plural(len(gone), "revoked key")):
            rows = map(key_text.revoked_cells, gone)
            st.html(html.table(key_text.REVOKED_HEADS, rows, stacked=True))


page_frame.show_page("The keys", show)
