"""The Routes page's section of policies: what must a candidate prove, and what does that take?
The route's policy in plain words, the items, money and time of a swap, and all other policies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.text import html, labels, policy_text
from dashboard.text.html import escape, strong
from harness.app.installation import Installation, load_settings, read_file_version
from harness.control.context import Context
from harness.control.operations import queries
from harness.control.proposals import estimate
from harness.control.proposals.estimate import PolicyForecast
from harness.domain.errors import ConfigError
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.proposals.policy import Policy, PromotionMode
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route

MOST_ROUTES: Final = 8
NOTE: Final = "It says what a candidate must prove, who approves, and how its canary grows."
FORECAST: Final = "Show what a swap would take, in items, money and time"


@dataclass(frozen=True)
class PolicyUse:
    policy: Policy
    routes: Sequence[Route]
    # Open proposals that were registered with another version of it, which holds for them.
    former: Sequence[Proposal]


def show(route: Route | None = None) -> None:
    """Shows the section, of a route or of an installation without one."""
    uses = list_policy_uses(page_frame.context())
    st.html(html.section("Policy", NOTE))
    page_frame.show_html(_changed(list_changed_policies(page_frame.installation())))
    own = route.settings.policy if route else ""
    others = [use for use in uses if use.policy.name != own]
    for use in uses:
        if use not in others:
            _show_policy(use)
    if route:
        _show_forecast(route.name)
    if others:
        with st.expander(labels.plural(len(others), "other policy", "other policies")):
            for use in others:
                _show_policy(use)


def _show_policy(use: PolicyUse) -> None:
    with st.container(border=True, key=f"policy-{use.policy.name}"):
        st.html(_heading(use))
        page_frame.show_html(_former(use))
        st.html(policy_text.summary(use.policy))
        st.html(policy_text.steps(use.policy.canary))


def _show_forecast(route: str) -> None:
    if st.toggle(FORECAST, key="forecast", bind="query-params"):
        with st.spinner(f"Estimating a swap on {route} …"):
            st.html(policy_text.forecast(_estimate(route)))


@st.cache_data(ttl=300, show_spinner=False)
def _estimate(route: str) -> PolicyForecast:
    return estimate.forecast_policy(page_frame.context(), route)


def list_policy_uses(ctx: Context) -> Sequence[PolicyUse]:
    """Lists the policies, those that most routes use first."""
    known = ctx.store.lists.routes()
    opened = queries.list_proposals(ctx, PageRequest(MOST_LISTED), open_only=True)
    uses = [
        PolicyUse(
            policy,
            [route for route in known if route.settings.policy == name],
            [proposal for proposal in opened if _has_former(proposal, policy)],
        )
        for name, policy in ctx.policies.items()
    ]
    return sorted(uses, key=lambda use: (-len(use.routes), use.policy.name))


def _has_former(proposal: Proposal, policy: Policy) -> bool:
    """Whether a proposal was registered with another version of the policy."""
    own = proposal.policy
    # Of most it is the same one, which takes less time to say than two digests.
    return own.name == policy.name and own != policy and own.digest != policy.digest


def list_changed_policies(installed: Installation) -> Sequence[str]:
    """Names the policies that the file has with other rules than this process; none of a file
    of no use, of which Settings says what is wrong.
    """
    source, known = installed.settings.source, installed.context.policies
    if source is None or read_file_version(source) == installed.file_version:
        return ()
    try:
        in_file = load_settings(source).policies
    except ConfigError:
        return ()
    return sorted(
        name
        for name, policy in in_file.items()
        if name in known and known[name].digest != policy.digest
    )


def _heading(use: PolicyUse) -> str:
    people = use.policy.promotion is PromotionMode.APPROVED
    who = "a person approves" if people else "automatic"
    tone = labels.Tone.UNDECIDED if people else labels.Tone.NEUTRAL
    return html.block(
        f'<p><span class="name">{strong(use.policy.name)}</span> {html.pill(who, tone)}</p>',
        f'<p class="note">{_used_by(use)}</p>',
    )


def _used_by(use: PolicyUse) -> str:
    if not use.routes:
        return "No route uses it."
    names = [html.link("routes", escape(r.name), route=r.name) for r in use.routes]
    count = escape(labels.plural(len(use.routes), "route"))
    return f"{count}: {labels.few(names, MOST_ROUTES)}"


def _former(use: PolicyUse) -> str:
    """Says which open proposals follow an older version; empty without one."""
    if not use.former:
        return ""
    verb = "follows" if len(use.former) == 1 else "follow"
    names = ", ".join(f"{p.id} on {p.route}" for p in use.former)
    words = (
        f"{labels.plural(len(use.former), 'open proposal')} {verb} an older version of this "
        f"policy, the one with which each was made: {names}."
    )
    return html.banner("STALE.", words)


def _changed(names: Sequence[str]) -> str:
    """Says which policies the file has with other rules by now; empty for none."""
    if not names:
        return ""
    which = labels.plural(len(names), "policy", "policies")
    return html.banner(
        f"The file has changed {which}: {', '.join(names)}.",
        "Every process keeps the rules with which it began: restart dashboard and control "
        "process to use those of the file. Below stand the former ones. An open proposal keeps "
        "the rules with which it was made.",
    )
