"""The Proposals page answers: what is proposed, and who has to act?

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
from dashboard.views.decisions import ProposalRow
from harness.canary import duration_estimate, status
from harness.frame.errors import SwapgateError
from harness.frame.formatting import format_score
from harness.frame.pagination import Page
from harness.gate.suite_plan import Claim
from harness.gate.verdict_sentences import describe_reason
from harness.operations.context import Context
from harness.proposals import route_rules, submission
from harness.proposals.candidates import estimate
from harness.routing.proposal import PROPOSAL_TEXTS, ProposalPhase

STATES: Final = ("open", "decided", "all")
AS_THE_POLICY: Final = "as the policy says"


@dataclass(frozen=True, slots=True)
class ProposalsView:
    """What the page shows. page: all open proposals, and a page of the others."""

    page: Page[ProposalRow]
    routes: Sequence[str]
    canaries: Mapping[str, Label]  # the states of live canaries, by route
    titles: Mapping[str, str]  # of the suites
    now: datetime
    state: str = "all"

    @property
    def busy(self) -> Mapping[str, ProposalRow]:
        """The open proposals that exclude another one on their route, by route."""
        return {
            row.proposal.route: row
            for row in self.page
            if row.proposal.open and not row.proposal.yields
        }

    @property
    def chosen(self) -> Sequence[ProposalRow]:
        """The proposals in the chosen state."""
        return [
            row
            for row in self.page
            if self.state == "all" or row.proposal.open == (self.state == "open")
        ]


def load(ctx: Context, _: None) -> ProposalsView:
    """Loads the proposals, with the states of their canaries."""
    page = decisions.list_rows(ctx, st.query_params.get("after"))
    return ProposalsView(
        page,
        page_frame.route_names(ctx),
        _canary_labels(ctx, page),
        page_frame.titles(ctx),
        ctx.clock.now(),
    )


def _show_chosen(view: ProposalsView) -> None:
    """Asks for a state, and shows the proposals in it."""
    if not view.page.total:
        page_frame.show_empty(
            "No swap has been proposed yet. Use the form above, or this command:",
            "swapgate proposal create ROUTE PROVIDER/MODEL",
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
    chosen = replace(view, state=state or "open")
    PROPOSALS.show(chosen)
    if not chosen.chosen:
        newest = next(iter(view.page), None)
        decided = " The newest decided proposal:" if newest and state == "open" else ""
        st.html(markup.note(f"No proposal is “{state}”.{decided}"))
        if newest and decided:
            _lead_to(newest)
    # No link for open proposals, because every page lists all of them.
    if state != "open":
        page_frame.show_page_links("proposals", "proposals", view.page.next)


def _command(_: None) -> Sequence[Sequence[str]]:
    state = st.session_state.get("state", "open")
    return [["proposal", "list", *([] if state == "all" else [f"--{state}"])]]


def _headline(page: Page[ProposalRow]) -> tuple[str, str]:
    routes = [row.proposal.route for row in page if decisions.awaits_decision(row.proposal)]
    opened = sum(row.proposal.open for row in page)
    note = f"{labels.plural(opened, 'open proposal')} of {page.total:,}"
    if not routes:
        return "No proposal waits for a person", note
    verb = "waits" if len(routes) == 1 else "wait"
    many = labels.plural(len(routes), "proposal")
    return f"{many} {verb} for approval: {strong(', '.join(routes))}", note


def _canary_labels(ctx: Context, rows: Sequence[ProposalRow]) -> Mapping[str, Label]:
    """Maps routes with a live canary to its label. Reads no canary if no proposal is in one."""
    if not any(row.proposal.phase is ProposalPhase.CANARY for row in rows):
        return {}
    live = status.list_canaries(ctx)
    return {
        canary.rollout.route: replace(
            labels.canary_label(canary.state), words=canary.state.of_route
        )
        for canary in live
        if not canary.rollout.baking
    }


def _live_canary(view: ProposalsView, row: ProposalRow) -> Label | None:
    """Returns the state of the proposal's canary; None without a live one."""
    if row.proposal.phase is not ProposalPhase.CANARY:
        return None
    return view.canaries.get(row.proposal.route)


def _card(view: ProposalsView, row: ProposalRow) -> Sequence[str]:
    label = _live_canary(view, row) or labels.phase_label(row.proposal)
    return [markup.block(_what(row, label, view.titles, view.now))]


def _card_actions(view: ProposalsView, row: ProposalRow) -> Sequence[Action]:
    proposal = row.proposal
    links = [PageLink("compare", "Compare", "balance", {"id": proposal.id})]
    if _live_canary(view, row) is not None:
        links.append(PageLink("canary", "Canary", "monitor_heart", {"route": proposal.route}))
    return [*links, *decisions.openers(proposal, row.verdict, row.standing, view.now)]


def _what(
    row: ProposalRow,
    label: Label,
    titles: Mapping[str, str],
    now: datetime,
) -> str:
    """Renders a proposal's lines: models, route, state, reasons and texts."""
    proposal = row.proposal
    phase = markup.state(label)
    comparison = markup.link("compare", escape(proposal.id), id=proposal.id)
    route = markup.link("routes", strong(proposal.route), route=proposal.route)
    proposed = f"{comparison} · proposed by {strong(proposal.proposer)}"
    when = labels.age(proposal.created_at, now)
    if proposal.approver is not None:
        when += f" · approvals 1 of 1, by {proposal.approver}"
    elif decisions.awaits_decision(proposal):
        when += f" · approvals 0 of 1 · {labels.left(proposal.approval_ends_at, now)}"
    lines = [
        f"{strong(row.candidate)} instead of {strong(row.incumbent)}",
        f"Route {route} · {phase} · claim: {labels.CLAIMS[proposal.claim]}",
        f'<span class="note">{proposed} {escape(when)}</span>',
    ]
    lines += _progress(row)
    lines += [f"▲ {escape(remark)}" for remark in row.remarks]
    if proposal.reason:
        lines.append(f"Reason: {escape(proposal.reason)}")
    lines += [f"{label}: {escape(value)}" for _, label, value in proposal.texts]
    if row.cost:
        lines.append(f"Cost: {escape(row.cost)}")
    if row.verdict is not None:
        decided = markup.state(labels.verdict_label(row.verdict))
        lines.append(f"{decided}: {escape(describe_reason(row.verdict, titles))}")
    why = proposal.closed_because
    if why and row.verdict is None:
        lines.append(escape(why))
    elif row.verdict and why not in ("", row.verdict.reason):
        lines.append(f"Closed: {escape(why[:1].upper() + why[1:])}")
    return "".join(f"<p>{line}</p>" for line in lines)


def _progress(row: ProposalRow) -> Sequence[str]:
    """Renders the progress of an evaluation, and why it waits."""
    waits = [f"It {escape(row.proposal.waits)}."] if row.proposal.waits else []
    done, most = row.answers or (0, 0)
    if not most:
        return waits
    counted = f"{done:,} of at most {most:,} answers; the gate may stop earlier"
    meter = markup.meter("Progress", done / most, labels.Tone.NEUTRAL)
    return [*waits, escape(counted) + meter]


def create(view: ProposalsView) -> None:
    """Shows the form for a proposal. An open proposal of the route excludes another one."""
    routes = view.routes
    busy = view.busy
    prefilled = st.query_params.get("candidate")
    with st.expander(
        "Propose a swap",
        icon=":material/add:",
        expanded=prefilled is not None,
    ):
        if not routes:
            page_frame.show_empty(
                "There is no route yet, so nothing can be proposed:",
                "swapgate init --guided",
            )
            return
        request = _read_form(routes, prefilled, busy)
        why_not = _why_not(request, busy)
        if not why_not:
            why_not = _outlook(request)
        elif request.route in busy:
            _lead_to(busy[request.route])
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Propose", type="primary", disabled=bool(why_not)):
                current_user.attempt(
                    lambda actor: submission.create_proposal(
                        page_frame.context(), actor, request
                    ),
                    lambda actor: (
                        f"{actor.name} proposed {request.candidate} for route {request.route}; "
                        f"{_what_follows()}."
                    ),
                )
            actor = current_user.signed_in()
            whose = f"Proposed as {actor.name}." if actor else current_user.SIGN_IN
            st.html(markup.note(why_not or whose), width="content")


def _what_follows() -> str:
    """Says what happens after a proposal, and if it has to wait for the control process."""
    advice = page_frame.missing_control()
    if advice is None:
        return "its evaluation starts within seconds"
    return f"it waits, as {advice}"


def _lead_to(row: ProposalRow) -> None:
    label = f"See {row.candidate} instead of {row.incumbent}"
    page_frame.link("compare", label, "balance", id=row.proposal.id)


def _read_form(
    routes: Sequence[str],
    prefilled: str | None,
    busy: Mapping[str, ProposalRow],
) -> submission.ProposalRequest:
    """Shows the fields of a proposal. The address may name the route and the candidate."""
    ctx = page_frame.context()
    left, right = st.columns(2)
    param = st.query_params.get("route")
    free = next((name for name in routes if name not in busy), routes[0])
    at = routes.index(param if param in routes else free)
    route = left.selectbox(
        "Route",
        routes,
        index=at,
        key="wish-route",
    )
    claims: list[Claim | None] = [None, *Claim]
    claim = left.selectbox(
        "Claim",
        claims,
        key="wish-claim",
        format_func=lambda claim: labels.CLAIMS[claim] if claim else AS_THE_POLICY,
    )
    known = list(page_frame.candidates(ctx, route))
    names = list(dict.fromkeys([*([prefilled] if prefilled else []), *known]))
    candidate = right.selectbox(
        "Candidate",
        names,
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
        name: right.text_input(f"{text['label']} (optional)", key=f"wish-{text['word']}")
        for name, text in PROPOSAL_TEXTS.items()
    }
    return submission.ProposalRequest(
        route=route,
        candidate=(candidate or "").strip(),
        reason=reason,
        claim=claim,
        margin=None if margin is None else margin / 100,
        **texts,
    )


def _why_not(request: submission.ProposalRequest, busy: Mapping[str, ProposalRow]) -> str:
    """Explains why the proposal cannot be made yet; empty if it can."""
    if request.route in busy:
        open_ = busy[request.route].proposal
        waiting = labels.phase_label(open_).words
        return (
            f"Route {request.route} has an open proposal, {open_.id} ({waiting}); propose "
            "again after it has ended."
        )
    if not request.candidate:
        return "Choose a candidate first."
    if request.claim is Claim.NON_INFERIOR and not request.reason.strip():
        return "“Equal or better” accepts a small loss, so it needs a reason."
    return ""


def _outlook(request: submission.ProposalRequest) -> str:
    """Shows the forecast: items, cost, time, risk and who must approve.

    Returns why the proposal cannot be made: its cost would end the canary. Empty if it can.
    """
    ctx = page_frame.context()
    try:
        planned = estimate.estimate_proposal(ctx, request)
    except SwapgateError as error:
        st.html(markup.note(f"No forecast is possible: {error}"))
        return ""
    terms = submission.preview_proposal(ctx, request, current_user.signed_in())
    names = page_frame.titles(ctx)
    rows = [
        {
            "Suite": escape(names.get(suite.plan.suite, suite.plan.suite)),
            "Items": suite.plan.n_max_text,
            "Smallest difference it can show": f"{format_score(suite.mde)} points",
            "Loss that fails": verdict_text.failing_loss(suite),
        }
        for suite in planned
    ]
    claims = verdict_text.claim_rows(planned, names)
    page_frame.show_html(markup.table(rows) + markup.table(claims, stacked=True))
    widening = route_rules.describe_second_person_reasons(terms.widened)
    ramp = duration_estimate.estimate_for_route(ctx, request.route)
    for line in (
        f"The candidate is {terms.candidate}.",
        *filter(None, [terms.unlisted]),
        verdict_text.outlook_line(planned),
        terms.cost.text,
        f"This would be the {terms.risk.text}.",
        *(f"Another person must approve it: {line}" for line in widening),
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
        f"`swapgate proposal accept-cost {swap} --up-to TIMES --because WHY`."
    )


PROPOSALS: Final = ResourceList[ProposalsView, ProposalRow](
    rows=lambda view: view.chosen,
    cards=Cards(
        key=lambda row: f"proposal-{row.proposal.id}", parts=_card, actions=_card_actions
    ),
)
PAGE: Final = ResourcePage[None, ProposalsView](
    name="The proposals",
    ask=lambda: None,
    load=load,
    title=lambda view: _headline(view.page),
    parts=(
        lambda view: page_frame.show_html(markup.invalid(view.page.invalid)),
        lambda _: page_frame.show_freezes(),
        create,
        _show_chosen,
    ),
    commands=_command,
)

if __name__ == "__main__":
    page_frame.show_page(PAGE.name, PAGE.show)
