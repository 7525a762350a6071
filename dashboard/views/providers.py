"""Providers: can I reach each model, what can it do, and what does it cost?"""

from collections.abc import Sequence

import streamlit as st

from dashboard import acting, cards, providers, shell, wording
from dashboard.cards import esc
from harness.control.providers import credentials
from harness.control.providers.credentials import Change
from harness.control.providers.matrix import MatrixRow, matrix


def show() -> None:
    with shell.loading("the providers"):
        ctx = shell.context()
        rows = matrix(ctx)
    now = ctx.clock.now()
    st.html(cards.title(providers.answer(rows), esc(wording.moment(now))))
    shell.say_what_was_done()
    here = providers.configured(rows)
    if not here:
        st.html(
            cards.empty("This adds one and asks for its key:", "swapgate provider add openai")
        )
    for row in here:
        with st.container(border=True):
            st.html(cards.block(providers.heading(row), kind="sg-provider"))
            if row.models:
                st.html(cards.table(providers.HEADS, map(providers.cells, row.models)))
            else:
                st.html(cards.note("No model of it is known: swapgate model add adds one."))
    set_key(here)
    others(rows)
    shell.copy_as_cli("provider", "matrix")


def set_key(rows: Sequence[MatrixRow]) -> None:
    """A value goes in and never comes out; Streamlit forgets it with the form."""
    if not rows:
        return
    with st.expander("Set a key", icon=":material/key:"), st.form("key", clear_on_submit=True):
        name = st.selectbox("Provider", [each.provider for each in rows])
        value = st.text_input("Key", type="password", autocomplete="off")
        st.html(cards.note("Stored encrypted. Routers use it within two seconds."))
        if st.form_submit_button("Store the key"):
            acting.attempt(
                lambda actor: credentials.put(
                    shell.context(), actor, name, Change(value=value)
                ),
                lambda _: f"{name} has a new key.",
            )


def others(rows: Sequence[MatrixRow]) -> None:
    here = {each.provider for each in providers.configured(rows)}
    kinds = [each for each in rows if each.provider not in here]
    with st.expander(f"{wording.several(len(kinds), 'more kind')} that could be configured"):
        heads = ("Kind", "Group", "Known limitations")
        st.html(
            cards.table(
                heads,
                [
                    (esc(e.kind), esc(e.group), esc("; ".join(e.limitations) or "none"))
                    for e in kinds
                ],
            )
        )


shell.page("The providers", show)
