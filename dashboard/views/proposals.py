"""The Proposals page answers: which swaps are proposed, and which wait for a person?

It also has the form that proposes a swap, with its forecast. The buttons of a proposal are in
`decisions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import streamlit as st

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import TYPE_A_MODEL, Action, PageLink
from dashboard.labels import Label
from dashboard.markup import escape, strong
from dashboard.resource_page import Cards, ResourceList, ResourcePage
from dashboard.views import decisions, verdict_text
from harness.canary import duration_estimate, status
from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_score
from harness.frame.pagination import Page
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict_sentences import describe_reason
from harness.operations.context import Context
from harness.operations.proposal_rows import ProposalRow, list_rows
from harness.proposals import route_rules, submission
from harness.proposals.candidates import estimate
from harness.proposals.context import dry_run_context
from harness.routing.control import routes as routes_control
from harness.routing.proposal import PROPOSAL_TEXTS, ProposalPhase

STATES: Final = ("open", "decided", "all")
AS_THE_POLICY: Final = "as the policy says"


@dataclass(frozen=True, slots=True)
class ProposalsView:
    """The page's data. page: all open proposals, and a page of the others."""

    page: Page[ProposalRow]
    routes: Sequence[str]
    canaries: Mapping[str, Label]  # the states of live canaries, by route
    titles: Mapping[str, str]  # of the suites
    now: datetime
    state: str = "all"

    @property
    def open_by_route(self) -> Mapping[str, ProposalRow]:
        """Returns the open proposals by route, if they prevent a further one for it."""
        return {
            row.proposal.route: row
            for row in self.page
            if row.proposal.open and not row.proposal.yields
        }

    @property
    def in_state(self) -> Sequence[ProposalRow]:
        """Returns the proposals in the chosen state."""
        return [
            row
            for row in self.page
            if self.state == "all" or row.proposal.open == (self.state == "open")
        ]


def load(ctx: Context, _: None) -> ProposalsView:
    """Loads the proposals, with the states of their canaries."""
    page = list_rows(ctx, st.query_params.get("after"))
    return ProposalsView(
        page,
        page_frame.route_names(ctx),
        _load_canary_labels(ctx, page),
        page_frame.titles(ctx),
        ctx.clock.now(),
    )


def _show_chosen(view: ProposalsView) -> None:
    """Asks for a state, and shows the proposals in it."""
    if not view.page.total:
        page_frame.show_empty(
            "No swap has been proposed yet. Use the form above, or this command:",
            "swapproof proposal create ROUTE PROVIDER/MODEL",
        )
        return
    state = st.segmented_control(
        "State",
        STATES,
        default="open",
        required=True,
        key="state",
        bind="query-params",
        wrap=True,
        label_visibility="collapsed",
    )
    filtered = replace(view, state=state or "open")
    PROPOSALS.show(filtered)
    if not filtered.in_state:
        newest = next(iter(view.page), None)
        decided_text = " The newest decided proposal:" if newest and state == "open" else ""
        st.html(markup.note(f"No proposal is “{state}”.{decided_text}"))
        if newest and decided_text:
            _show_link(newest)
    # No link for open proposals, because every page lists all of them.
    if state != "open":
        page_frame.show_page_links("proposals", "proposals", view.page.next)


def _build_command(_: None) -> Sequence[Sequence[str]]:
    state = st.session_state.get("state", "open")
    return [["proposal", "list", *([] if state == "all" else [f"--{state}"])]]


def _write_headline(page: Page[ProposalRow]) -> tuple[str, str]:
    awaiting = [row.proposal.route for row in page if decisions.awaits_decision(row.proposal)]
    labelled = [row.proposal.route for row in page if row.proposal.waits_for_labels]
    open_count = sum(row.proposal.open for row in page)
    note = f"{labels.plural(open_count, 'open proposal')} of {page.total:,}"
    waits = [
        _count_waiting(routes, purpose)
        for routes, purpose in ((awaiting, "approval"), (labelled, "people's labels"))
        if routes
    ]
    return "; ".join(waits) or "No proposal waits for a person", note


def _count_waiting(routes: Sequence[str], purpose: str) -> str:
    verb = "waits" if len(routes) == 1 else "wait"
    names = strong(", ".join(dict.fromkeys(routes)))
    return f"{labels.plural(len(routes), 'proposal')} {verb} for {purpose}: {names}"


def _load_canary_labels(ctx: Context, rows: Sequence[ProposalRow]) -> Mapping[str, Label]:
    """Maps routes with a live canary to the canary's label. Without a proposal in canary, reads
    no canary.
    """
    if not any(row.proposal.phase is ProposalPhase.CANARY for row in rows):
        return {}
    live_canaries = status.list_canaries(ctx)
    return {
        canary.rollout.route: replace(
            labels.canary_label(canary.state), words=canary.state.of_route
        )
        for canary in live_canaries
        if not canary.rollout.baking
    }


def _find_live_canary(view: ProposalsView, row: ProposalRow) -> Label | None:
    """Returns the state of the proposal's canary; None without a live one."""
    if row.proposal.phase is not ProposalPhase.CANARY:
        return None
    return view.canaries.get(row.proposal.route)


def _render_card(view: ProposalsView, row: ProposalRow) -> Sequence[str]:
    label = _find_live_canary(view, row) or labels.phase_label(row.proposal)
    return [markup.block(_render_lines(row, label, view.titles, view.now))]


def _list_card_actions(view: ProposalsView, row: ProposalRow) -> Sequence[Action]:
    proposal = row.proposal
    links = [PageLink("compare", "Compare", "balance", {"id": proposal.id})]
    if _find_live_canary(view, row) is not None:
        links.append(PageLink("canary", "Canary", "monitor_heart", {"route": proposal.route}))
    if proposal.waits_for_labels:
        links.append(PageLink("labels", "Label", "rate_review", {}))
    return [*links, *decisions.openers(proposal, row.verdict, row.standing, view.now)]


def _render_lines(
    row: ProposalRow,
    label: Label,
    titles: Mapping[str, str],
    now: datetime,
) -> str:
    """Renders a proposal's lines: models, route, state, reasons and texts."""
    proposal = row.proposal
    phase_html = markup.state(label)
    comparison = markup.link("compare", escape(proposal.id), id=proposal.id)
    route = markup.link("routes", strong(proposal.route), route=proposal.route)
    origin = f"{comparison} · proposed by {strong(proposal.proposer)}"
    age_text = labels.age(proposal.created_at, now)
    if proposal.approver is not None:
        age_text += f" · approvals 1 of 1, by {proposal.approver}"
    elif decisions.awaits_decision(proposal):
        age_text += f" · approvals 0 of 1 · {labels.left(proposal.approval_ends_at, now)}"
    lines = [
        f"{strong(row.candidate)} instead of {strong(row.incumbent)}",
        f"Route {route} · {phase_html} · claim: {labels.CLAIMS[proposal.claim]}",
        f'<span class="note">{origin} {escape(age_text)}</span>',
    ]
    if (terms := proposal.slice_terms) is not None:
        whole = markup.link("compare", escape(terms.proposal), id=terms.proposal)
        requests = f"requests {strong(terms.predicate)}"
        lines.append(f"Slice {strong(terms.name)} of route {strong(terms.whole)}, {requests}")
        lines.append(f"Tested alone if {whole} does not pass")
    lines += _render_progress(row)
    lines += [f"▲ {escape(remark)}" for remark in row.remarks]
    if proposal.reason:
        lines.append(f"Reason: {escape(proposal.reason)}")
    lines += [f"{label}: {escape(value)}" for _, label, value in proposal.texts]
    if row.cost:
        lines.append(f"Cost: {escape(row.cost)}")
    if row.verdict is not None:
        verdict_html = markup.state(labels.verdict_label(row.verdict))
        lines.append(f"{verdict_html}: {escape(describe_reason(row.verdict, titles))}")
    closing_reason = proposal.closed_because
    if closing_reason and row.verdict is None:
        lines.append(escape(closing_reason))
    elif row.verdict and closing_reason not in ("", row.verdict.reason):
        lines.append(f"Closed: {escape(closing_reason[:1].upper() + closing_reason[1:])}")
    return "".join(f"<p>{line}</p>" for line in lines)


def _render_progress(row: ProposalRow) -> Sequence[str]:
    """Renders the progress of an evaluation, and why it waits."""
    wait_lines = [f"It {markup.rich(row.proposal.waits)}."] if row.proposal.waits else []
    answered, most_answers = row.answers or (0, 0)
    if not most_answers:
        return wait_lines
    count_text = f"{answered:,} of at most {most_answers:,} answers; the gate may stop earlier"
    meter = markup.meter("Progress", answered / most_answers, labels.Tone.NEUTRAL)
    return [*wait_lines, escape(count_text) + meter]


def create(view: ProposalsView) -> None:
    """Shows the form for a proposal. A route with an open proposal takes no further one."""
    routes = view.routes
    open_by_route = view.open_by_route
    prefilled = st.query_params.get("candidate")
    with st.expander(
        "Propose a swap",
        icon=":material/add:",
        expanded=prefilled is not None,
    ):
        if not routes:
            page_frame.show_empty(
                "There is no route yet, so nothing can be proposed:",
                "swapproof init --guided",
            )
            return
        request = _read_form(routes, prefilled, open_by_route)
        obstacle = _find_obstacle(request, open_by_route)
        if not obstacle:
            obstacle = _show_forecast(request)
        elif request.route in open_by_route:
            _show_link(open_by_route[request.route])
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Propose", type="primary", disabled=bool(obstacle)):
                current_user.attempt(
                    lambda actor: submission.create_proposal(
                        page_frame.context(), actor, request
                    ),
                    lambda actor: (
                        f"{actor.name} proposed {request.candidate} for route {request.route}; "
                        f"{_describe_next()}."
                    ),
                )
            actor = current_user.signed_in()
            proposer_note = f"Proposed as {actor.name}." if actor else current_user.SIGN_IN
            st.html(markup.note(obstacle or proposer_note), width="content")


def _describe_next() -> str:
    """Describes the next step after a proposal, which may wait for the control process."""
    advice = page_frame.missing_control()
    if advice is None:
        return "its evaluation starts within seconds"
    return f"it waits, as {advice}"


def _show_link(row: ProposalRow) -> None:
    label = f"See {row.candidate} instead of {row.incumbent}"
    page_frame.link("compare", label, "balance", id=row.proposal.id)


def _read_form(
    routes: Sequence[str],
    prefilled: str | None,
    open_by_route: Mapping[str, ProposalRow],
) -> submission.ProposalRequest:
    """Shows the fields of a proposal. The address may name the route and the candidate."""
    ctx = page_frame.context()
    left, right = st.columns(2)
    named_route = st.query_params.get("route")
    free_route = next((name for name in routes if name not in open_by_route), routes[0])
    index = routes.index(named_route if named_route in routes else free_route)
    route = left.selectbox(
        "Route",
        routes,
        index=index,
        key="wish-route",
    )
    claims: list[Claim | None] = [None, *Claim]
    claim = left.selectbox(
        "Claim",
        claims,
        key="wish-claim",
        format_func=lambda claim: labels.CLAIMS[claim] if claim else AS_THE_POLICY,
    )
    registered = list(page_frame.candidates(ctx, route))
    candidates = list(dict.fromkeys([*([prefilled] if prefilled else []), *registered]))
    candidate = right.selectbox(
        "Candidate",
        candidates,
        index=0 if prefilled else None,
        accept_new_options=True,
        placeholder=TYPE_A_MODEL,
        key=f"wish-candidate-{route}",
    )
    margin = right.number_input(
        "Allowed loss, points",
        0.1,
        50.0,
        None,
        0.5,
        placeholder=AS_THE_POLICY,
        key="wish-margin",
    )
    reason = left.text_input("Reason", key="wish-reason")
    texts: dict[str, Any] = {
        name: right.text_input(
            f"{declaration['label']} (optional)", key=f"wish-{declaration['word']}"
        )
        for name, declaration in PROPOSAL_TEXTS.items()
    }
    return submission.ProposalRequest(
        route=route,
        candidate=(candidate or "").strip(),
        reason=reason,
        claim=claim,
        margin=None if margin is None else margin / 100,
        slices=_read_slices(ctx, route),
        **texts,
    )


def _read_slices(ctx: Context, route: str) -> tuple[str, ...]:
    """Asks for the slices to test alone, if the route's primary suite declares any."""
    settings = routes_control.load_table(ctx).routes[route].settings
    suites = [suite.suite for suite in settings.suites if suite.role is SuiteRole.PRIMARY]
    declared = [name for suite in suites for name in ctx.suites.split(suite)]
    if not declared:
        return ()
    chosen = st.multiselect(
        "Slices to test alone if the whole route does not pass (optional)",
        declared,
        key=f"wish-slices-{route}",
    )
    return tuple(chosen)


def _find_obstacle(
    request: submission.ProposalRequest, open_by_route: Mapping[str, ProposalRow]
) -> str:
    """Names the obstacle to making the proposal now; empty without one."""
    if request.route in open_by_route:
        open_proposal = open_by_route[request.route].proposal
        phase_words = labels.phase_label(open_proposal).words
        return (
            f"Route {request.route} has an open proposal, {open_proposal.id} ({phase_words}); "
            "propose again after it has ended."
        )
    if not request.candidate:
        return "Choose a candidate first."
    if request.claim is Claim.NON_INFERIOR and not request.reason.strip():
        return "“Equal or better” accepts a small loss, so it needs a reason."
    return ""


def _show_forecast(request: submission.ProposalRequest) -> str:
    """Shows the forecast: items, cost, time, risk and the required approval.

    Returns the obstacle if the candidate's cost would end its canary; else an empty text.
    """
    ctx = page_frame.context()
    try:
        estimates = estimate.estimate_proposal(ctx, request)
        if request.slices and (actor := current_user.signed_in()):
            submission.create_selection(dry_run_context(ctx), actor, request)
    except SwapproofError as error:
        st.html(markup.note(f"No forecast is possible: {error}"))
        return ""
    terms = submission.preview_proposal(ctx, request, current_user.signed_in())
    titles = page_frame.titles(ctx)
    rows = [
        {
            "Suite": escape(titles.get(suite.plan.suite, suite.plan.suite)),
            "Items": suite.plan.n_max_text,
            "Smallest difference it can show": f"{format_score(suite.mde)} points",
            "Loss that fails": verdict_text.failing_loss(suite),
        }
        for suite in estimates
    ]
    claims = verdict_text.claim_rows(estimates, titles)
    page_frame.show_html(markup.table(rows) + markup.table(claims, stacked=True))
    second_person_reasons = route_rules.describe_second_person_reasons(terms.widened)
    ramp = duration_estimate.estimate_for_route(ctx, request.route)
    for line in (
        f"The candidate is {terms.candidate}.",
        *filter(None, [terms.unlisted]),
        verdict_text.outlook_line(estimates),
        terms.cost.text,
        f"This would be the {terms.risk.text}.",
        *(f"Another person must approve it: {line}" for line in second_person_reasons),
        *(f"{line}." for line in terms.untaken),
        ramp.words,
        *(f"Option: {option}" for option in ramp.options),
    ):
        st.html(markup.note(line))
    if not terms.cost.ends_canary:
        return ""
    if terms.cost.free:
        return terms.cost.text
    swap = f"{request.route} {request.candidate}"
    return (
        "The candidate's cost would end its canary. An approver must accept the cost first: "
        f"`swapproof proposal accept-cost {swap} --up-to TIMES --because WHY`."
    )


PROPOSALS: Final = ResourceList[ProposalsView, ProposalRow](
    rows=lambda view: view.in_state,
    cards=Cards(
        key=lambda row: f"proposal-{row.proposal.id}",
        parts=_render_card,
        actions=_list_card_actions,
    ),
)
PAGE: Final = ResourcePage[None, ProposalsView](
    name="The proposals",
    ask=lambda: None,
    load=load,
    title=lambda view: _write_headline(view.page),
    parts=(
        lambda view: page_frame.show_html(markup.invalid(view.page.invalid)),
        lambda _: page_frame.show_freezes(),
        create,
        _show_chosen,
    ),
    commands=_build_command,
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
