"""The Providers page answers: which models can I reach, with which abilities and prices? It
also stores a provider's key.
"""

from collections.abc import Sequence

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.text import html, labels, provider_text
from dashboard.text.html import escape
from harness.control.providers import credentials
from harness.control.providers.credentials import CredentialChange
from harness.control.providers.matrix import MatrixRow, build_matrix


def show() -> None:
    with page_frame.loading("the providers"):
        ctx = page_frame.context()
        rows = build_matrix(ctx)
    now = ctx.clock.now()
    st.html(html.title(provider_text.title(rows), escape(labels.date_time(now))))
    page_frame.show_done_message()
    here = provider_text.configured(rows)
    if not here:
        st.html(
            html.empty(
                "This adds a provider and asks for its key:", "swapgate provider add openai"
            )
        )
    for row in here:
        with st.container(border=True):
            st.html(html.block(provider_text.heading(row), kind="sg-provider"))
            if row.models:
                st.html(html.table(provider_text.HEADS, map(provider_text.cells, row.models)))
            else:
                st.html(
                    html.note(
                        "No model of this provider is known; swapgate model add adds one."
                    )
                )
    set_key(here)
    others(rows)
    page_frame.copy_as_cli("provider", "matrix")


def set_key(rows: Sequence[MatrixRow]) -> None:
    """The form takes a key and never shows one; Streamlit clears it with the form."""
    if not rows:
        return
    with st.expander("Set a key", icon=":material/key:"), st.form("key", clear_on_submit=True):
        name = st.selectbox("Provider", [row.provider for row in rows])
        value = st.text_input("Key", type="password", autocomplete="off")
        st.html(html.note("Stored encrypted. Routers use it within two seconds."))
        if st.form_submit_button("Store the key"):
            current_user.attempt(
                lambda actor: credentials.put_credential(
                    page_frame.context(), actor, name, CredentialChange(value=value)
                ),
                lambda _: f"{name} has a new key.",
            )


def others(rows: Sequence[MatrixRow]) -> None:
    here = {row.provider for row in provider_text.configured(rows)}
    kinds = [row for row in rows if row.provider not in here]
    with st.expander(f"{labels.plural(len(kinds), 'more kind')} that could be configured"):
        heads = ("Kind", "Group", "Known limitations")
        st.html(
            html.table(
                heads,
                [
                    (
                        escape(e.kind),
                        escape(e.group),
                        escape("; ".join(e.limitations) or "none"),
                    )
                    for e in kinds
                ],
            )
        )


page_frame.show_page("The providers", show)
