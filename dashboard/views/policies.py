"""The Policies page answers: what must a candidate prove, and what does that take? Each policy
in plain words with the routes that use it; below, the items, money and time of a swap on a
route of one's choice.
"""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import policies
from dashboard.data.policies import PolicyUse
from dashboard.text import html, policy_text
from harness.control.proposals import policy_forecast
from harness.control.proposals.policy_forecast import PolicyForecast

NONE: Final = "choose a route"


def show() -> None:
    with page_frame.loading("the policies"):
        ctx = page_frame.context()
        uses = policies.list_policy_uses(ctx)
    heading, note = policy_text.headline(uses)
    st.html(html.title(heading, html.escape(note)))
    changed = policies.list_changed_policies(page_frame.installation())
    page_frame.show_html(policy_text.changed(changed))
    if not any(use.routes for use in uses):
        st.html(html.empty("A route names its policy. This makes the first:", "swapgate init"))
    _forecast(uses)
    for number, use in enumerate(_chosen(uses)):
        with st.container(border=True, key=f"policy-{number}"):
            st.html(policy_text.heading(use))
            page_frame.show_html(policy_text.former(use))
            st.html(policy_text.summary(use.policy))
            st.html(policy_text.steps(use.policy.canary))
    page_frame.copy_as_cli("config", "show", "--origin", "--section", "policies")


def _chosen(uses: Sequence[PolicyUse]) -> Sequence[PolicyUse]:
    """Lists the used policies, and the others where somebody asks for them."""
    unused = [use for use in uses if not use.routes]
    if not unused or len(unused) == len(uses):
        return uses
    label = f"Show the {len(unused):,} that no route uses"
    every = st.toggle(label, key="all", bind="query-params")
    return uses if every else [use for use in uses if use.routes]


def _forecast(uses: Sequence[PolicyUse]) -> None:
    names = sorted(route.name for use in uses for route in use.routes)
    if not names:
        return
    route = st.selectbox(
        "What would a swap take, in items, money and time?",
        [NONE, *names],
        key="route",
        bind="query-params",
    )
    if route in (None, NONE):
        return
    with st.spinner(f"Estimating a swap on {route} …"):
        st.html(policy_text.forecast(_estimate(route)))


@st.cache_data(ttl=300, show_spinner=False)
def _estimate(route: str) -> PolicyForecast:
    return policy_forecast.forecast_policy(page_frame.context(), route)


page_frame.show_page("The policies", show)
