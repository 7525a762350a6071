"""The Policies page answers: what must a candidate prove, and what does that take? Each policy
in plain words with the routes that use it; below, the items, money and time of a swap on a
route of one's choice.
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
from harness.control.proposals import policy_forecast
from harness.control.proposals.policy_forecast import PolicyForecast
from harness.domain.errors import ConfigError
from harness.domain.pagination import MOST_LISTED, PageRequest
from harness.domain.proposals.policy import Policy, PromotionMode
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route

NONE: Final = "choose a route"
MOST_ROUTES: Final = 8


@dataclass(frozen=True)
class PolicyUse:
    """Says where a policy is used."""

    policy: Policy
    routes: Sequence[Route]
    # Open proposals that were registered with another version of it, which holds for them.
    former: Sequence[Proposal]


def show() -> None:
    with page_frame.loading("the policies"):
        ctx = page_frame.context()
        uses = list_policy_uses(ctx)
    heading, note = _headline(uses)
    st.html(html.title(heading, html.escape(note)))
    changed = list_changed_policies(page_frame.installation())
    page_frame.show_html(_changed(changed))
    if not any(use.routes for use in uses):
        page_frame.show_empty(
            "A route names its policy. This makes the first:", "swapgate init"
        )
    _forecast(uses)
    for number, use in enumerate(_chosen(uses)):
        with st.container(border=True, key=f"policy-{number}"):
            st.html(_heading(use))
            page_frame.show_html(_former(use))
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


def _headline(uses: Sequence[PolicyUse]) -> tuple[str, str]:
    """Writes the page's first line and its note, as HTML."""
    routes = sum(len(use.routes) for use in uses)
    used = sum(bool(use.routes) for use in uses)
    note = "A policy says what a candidate must prove, who approves, and how its canary grows."
    if not routes:
        return (
            f"{strong(labels.plural(len(uses), 'policy', 'policies'))}, and no route yet",
            note,
        )
    verb = "is" if used == 1 else "are"
    many = labels.plural(used, "policy", "policies")
    amount = labels.plural(routes, "route")
    return f"{strong(many)} {verb} used by {strong(amount)}", f"{note} {len(uses):,} are known."


def _heading(use: PolicyUse) -> str:
    """Renders a policy's name, and the routes that use it."""
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


if __name__ == "__main__":
    page_frame.show_page("The policies", show)
