"""The Providers page answers: which models can I reach, with which abilities and prices? It
also adds providers and models, stores keys, and asks a provider whether it works.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs, provider_dialogs, provider_key_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels, provider_text
from dashboard.text.html import escape
from harness.control.providers import checks
from harness.control.providers.matrix import MatrixRow, build_matrix, load_minute_use
from harness.domain.operations.access import Role
from harness.domain.providers.kinds import ProviderGroup
from harness.domain.providers.probe import ProviderCheck

# With more providers than these, the page has a search and shows no more at once.
MOST_CARDS: Final = 12


def show() -> None:
    with page_frame.loading("the providers"):
        ctx = page_frame.context()
        rows = build_matrix(ctx)
        checked = checks.load_checks(ctx)
    now = ctx.clock.now()
    st.html(html.title(provider_text.title(rows), escape(labels.date_time(now))))
    page_frame.show_done_message()
    provider_dialogs.show_outdated()
    provider_dialogs.show_unlisted()
    here = provider_text.configured(rows)
    add = Opener("Add a provider", ":material/add:", provider_dialogs.add_provider, "add")
    # Why a card's buttons are off is said once, and not on each card.
    of_cards = _openers(here[0]) if here else []
    action_dialogs.show_openers([add], explain=[add, *of_cards])
    if here:
        _cards(_find(provider_text.by_urgency(here)), checked, now)
    else:
        st.html(
            html.empty(
                "Add a provider above, or by this command:", "swapgate provider add openai"
            )
        )
    _others(rows)
    page_frame.copy_as_cli("provider", "matrix")


def _find(rows: Sequence[MatrixRow]) -> Sequence[MatrixRow]:
    """Lists the providers that somebody looks for, by name, kind or model."""
    if len(rows) <= MOST_CARDS:
        return rows
    wanted = st.text_input(
        "Find a provider",
        key="find",
        bind="query-params",
        placeholder="Part of its name, kind or of a model",
    )
    words = (wanted or "").casefold().split()
    found = [row for row in rows if all(word in _text(row) for word in words)]
    shown = f"{min(len(found), MOST_CARDS)} of {labels.plural(len(rows), 'provider')}"
    st.html(html.note(shown if found else "No provider has this in its name, kind or models."))
    return found[:MOST_CARDS]


def _text(row: MatrixRow) -> str:
    return " ".join((row.provider, row.kind, *(m.model for m in row.models))).casefold()


def _cards(
    rows: Sequence[MatrixRow], checked: Mapping[str, ProviderCheck], now: datetime
) -> None:
    quiet, used = load_minute_use(page_frame.context())
    limits = page_frame.installation().settings.eval_limits
    for row in rows:
        with st.container(border=True):
            parts = (
                provider_text.heading(row),
                provider_text.rates(used.get(row.provider, quiet), limits.get(row.provider)),
                provider_text.last_check(checked.get(row.provider), now),
            )
            st.html(html.block(*parts, kind="sg-provider"))
            _models(row)
            action_dialogs.show_openers(_openers(row), explain=())


def _models(row: MatrixRow) -> None:
    shown, others = provider_text.shown_models(row.models)
    if not shown:
        st.html(html.note("No model of it is known yet. Add the one that a route is to use."))
        return
    rows = map(provider_text.cells, shown)
    st.html(html.table(provider_text.HEADS, rows, stacked=True))
    if others:
        with st.expander(f"{labels.plural(len(others), 'more model')} that no route uses"):
            st.html(html.block(f"<p>{escape(', '.join(others))}</p>"))


def _openers(row: MatrixRow) -> list[Opener]:
    """Lists the buttons of a provider's card."""
    name, dialogs, proposer = row.provider, provider_dialogs, Role.PROPOSER
    access = "Sign in or out" if row.group is ProviderGroup.OAUTH else "Keys"
    check, model = partial(dialogs.check_now, name), partial(dialogs.add_model, name)
    keys = partial(provider_key_dialogs.change_keys, name)
    remove = partial(dialogs.remove, name)
    address = partial(dialogs.change_address, name)
    return [
        Opener("Check now", ":material/network_check:", check, f"check-{name}", proposer),
        Opener("Add a model", ":material/add:", model, f"model-{name}", proposer),
        Opener(access, ":material/key:", keys, f"set-{name}"),
        Opener("Change the address", ":material/link:", address, f"address-{name}"),
        Opener("Remove", ":material/delete:", remove, f"remove-{name}"),
    ]


def _others(rows: Sequence[MatrixRow]) -> None:
    here = {row.provider for row in provider_text.configured(rows)}
    kinds = [row for row in rows if row.provider not in here]
    with st.expander(f"{labels.plural(len(kinds), 'more kind')} that could be added"):
        heads = ("Kind", "Group", "Known limitations")
        cells = [
            (escape(e.kind), escape(e.group), escape("; ".join(e.limitations) or "none"))
            for e in kinds
        ]
        st.html(html.table(heads, cells))


page_frame.show_page("The providers", show)
