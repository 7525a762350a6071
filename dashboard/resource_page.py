"""A page of resources, such as providers, keys or sessions.

A page is one declaration: `load` reads everything that the page shows, and the other fields are
functions of its result. `ResourceList` declares one list of the page: its rows, their
columns or cards, its search, and the actions with the role that each needs. This module draws
them.

Overview, Compare, Canary and Traffic have code of their own, because people compare and watch
there. They show single lists by `ResourceList`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Action, Opener, open_deferred, show_openers
from harness.frame.pagination import Page
from harness.operations.context import Context

Data = TypeVar("Data")  # the result of a page's `load`
Item = TypeVar("Item")  # a row of a list
Query = TypeVar("Query")  # the visitor's request to a page: its filters, or an id

REFRESH_INTERVAL: Final = "2s"  # how often a live page reads its data again


# The classes have no slots, because a frozen generic class with slots cannot be called with its
# types, as in `Search[Item](…)`.
@dataclass(frozen=True)
class Search(Generic[Item]):
    """The search of a list with more than `most` rows. The list then shows at most `most`
    matching rows.
    """

    label: str
    hint: str
    text: Callable[[Item], str]  # the text in which a person searches
    most: int
    nothing: str  # shown if no row matches
    key: str = "find"  # in the page's address


@dataclass(frozen=True)
class Cards(Generic[Data, Item]):
    """Shows each row as a card instead of a table's row. key: unique on the page. parts: HTML,
    one below the other.
    """

    key: Callable[[Item], str]
    parts: Callable[[Data, Item], Sequence[str]]
    actions: Callable[[Data, Item], Sequence[Action]] = lambda _, __: ()


@dataclass(frozen=True, kw_only=True)
class ResourceList(Generic[Data, Item]):
    """A list of a page: a heading, its actions, and its rows as a table or as cards.

    A list without rows shows `nothing`; if `nothing` is empty too, the page omits the list. If
    the rows are a `Page`, the list also shows its invalid rows, and how to see the rest.
    """

    rows: Callable[[Data], Sequence[Item]]
    cells: Callable[[Data, Item], markup.Row] | None = None  # a row's HTML by column
    cards: Cards[Data, Item] | None = None
    heading: str = ""
    note: str = ""
    nothing: str = ""
    fills: str = ""  # the command that makes the first row
    folded: tuple[str, str] | None = None  # a folded list's label: for one row, for several
    actions: Callable[[Data], Sequence[Action]] = lambda _: ()
    search: Search[Item] | None = None
    what: str = "rows"  # the plural noun for the rows, in sentences about their number
    lists_all: str = ""  # the command that lists all rows
    page: str = ""  # the page that shows older rows, by a cursor in its address
    live: bool = False  # whether the list is in a part that refreshes itself

    def show(self, data: Data) -> None:
        """Shows the list."""
        rows = self.rows(data)
        if isinstance(rows, Page):
            page_frame.show_html(markup.invalid(rows.invalid))
        if not (rows or self.nothing):
            return
        if self.heading:
            st.html(markup.section(self.heading, self.note))
        actions = self.actions(data)
        card_openers = self._list_card_openers(data, rows)
        if actions or card_openers:
            # One note above the cards names the roles that their buttons need.
            explained = [*find_openers(actions), *card_openers]
            show_openers(actions, explain=explained, deferred=self.live)
        if not rows:
            self._show_nothing()
            return
        matches = self._find(rows)
        if self.folded is None:
            self._show_rows(data, matches)
        else:
            with st.expander(labels.plural(len(rows), *self.folded)):
                self._show_rows(data, matches)
        if isinstance(rows, Page):
            self._show_rest(rows)

    def _list_card_openers(self, data: Data, rows: Iterable[Item]) -> Sequence[Opener]:
        if self.cards is None:
            return ()
        return [
            replace(opener, missing="")
            for item in rows
            for opener in find_openers(self.cards.actions(data, item))
        ]

    def _show_nothing(self) -> None:
        if self.fills:
            page_frame.show_empty(self.nothing, self.fills)
        else:
            st.html(markup.note(self.nothing))

    def _find(self, rows: Sequence[Item]) -> Sequence[Item]:
        search = self.search
        if search is None or len(rows) <= search.most:
            return rows
        is_match = page_frame.search(search.label, search.hint, search.key)
        matches = [item for item in rows if is_match(search.text(item))]
        count_text = f"{min(len(matches), search.most):,} of {len(rows):,} {self.what}"
        st.html(markup.note(count_text if matches else search.nothing))
        return matches[: search.most]

    def _show_rows(self, data: Data, rows: Sequence[Item]) -> None:
        if self.cells is not None:
            cells = self.cells
            table = markup.table((cells(data, item) for item in rows), stacked=True)
            page_frame.show_html(table)
        if self.cards is not None:
            for item in rows:
                self._show_card(self.cards, data, item)

    def _show_card(self, cards: Cards[Data, Item], data: Data, item: Item) -> None:
        with st.container(border=True, key=cards.key(item)):
            for part in cards.parts(data, item):
                st.html(part)
            actions = cards.actions(data, item)
            if not actions:
                return
            show_openers(actions, explain=(), deferred=self.live)
            obstacles = dict.fromkeys(opener.missing for opener in find_openers(actions))
            if words := " ".join(filter(None, obstacles)):
                st.html(markup.note(words))

    def _show_rest(self, page: Page[Item]) -> None:
        if self.page:
            page_frame.show_page_links(self.page, self.what, page.next)
        elif self.lists_all:
            page_frame.show_rest(page, self.what, self.lists_all)


def find_openers(actions: Sequence[Action]) -> list[Opener]:
    """Returns the actions that open a dialog; the others are links."""
    return [action for action in actions if isinstance(action, Opener)]


@dataclass(frozen=True, kw_only=True)
class ResourcePage(Generic[Query, Data]):
    """A page, declared once. A part is the `show` of a list, or a function of its own."""

    name: str  # in messages, such as "The providers"
    ask: Callable[[], Query]  # shows the filters, or reads the page's address
    load: Callable[[Context, Query], Data]  # the page's one function that reads
    title: Callable[[Data], tuple[str, str]]  # the page's answer and a note below it, in HTML
    parts: Sequence[Callable[[Data], object]]
    commands: Callable[[Query], Sequence[Sequence[str]]]  # print the page in a terminal
    actions: Callable[[Data], Sequence[Action]] = lambda _: ()
    live: bool = False  # whether the page reads its data again every 2 s

    def show(self) -> None:
        """Shows the page."""
        open_deferred()
        # The page's first line is its answer; the filters come below it.
        top = st.container()
        query = self.ask()
        if self.live:
            with top:
                page_frame.show_done_message()
            # styles.css selects this key, to prevent fading during refreshes.
            with st.container(key=f"live-{self.name.split()[-1]}"):
                _draw_live(self, query)
        else:
            self.draw(query, top)
        page_frame.copy_as_cli(*self.commands(query))

    def draw(self, query: Query, top: DeltaGenerator) -> None:
        """Reads the data; draws the title and the actions into `top`, and the parts below."""
        with top:
            with page_frame.loading(self.name[0].lower() + self.name[1:]):
                data = self.load(page_frame.context(), query)
            st.html(markup.title(*self.title(data)))
            if not self.live:
                page_frame.show_done_message()
            if actions := self.actions(data):
                show_openers(actions)
        for part in self.parts:
            # With containers, Streamlit need not redraw the parts below a part that disappears.
            with st.container():
                part(data)


@st.fragment(run_every=REFRESH_INTERVAL)
def _draw_live(page: ResourcePage[Query, Data], query: Query) -> None:
    """Draws a live page, and draws it again every 2 s."""
    with current_user.live_part(page.name):
        page.draw(query, st.container())
