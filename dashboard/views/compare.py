"""The Compare page answers: may I swap to this candidate, and if not, why?

Texts are in `verdict_text`, buttons and dialogs in `decisions`, single answers in `samples`.
Before the gate has decided, the page shows no difference, so that no person decides by one. It
draws figures and charts; its other parts are the blocks of the comparison's document.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pandas as pd
import streamlit as st

from dashboard import labels, markup, page_frame, plots
from dashboard.dialog_forms import show_openers
from dashboard.markup import escape, rich, strong
from dashboard.serving import outage_banner, serving_line
from dashboard.views import decisions, samples, verdict_text
from dashboard.views.provider_dialogs import price_openers
from dashboard.views.samples import ComparisonView, show_format_failures
from harness.frame.pagination import PageRequest
from harness.gate.offline.decision_intervals import decision_intervals
from harness.gate.verdict import SuiteReport
from harness.gate.verdict_sentences import list_reports, sort_for_reading
from harness.operations.queries import list_proposals
from harness.operations.route_queries import load_serving
from harness.proposals.report.measurements import (
    describe_bill,
    describe_pins,
    describe_recorded_runs,
)
from harness.proposals.report.page import render_html
from harness.routing.proposal import ProposalPhase

CHARTS_PER_ROW = 3


def show() -> None:
    """Shows the comparison that the address names, else the newest."""
    with page_frame.loading("the comparison"):
        ctx = page_frame.context()
        newest = next(iter(list_proposals(ctx, PageRequest(1))), None)
        proposal_id = st.query_params.get("id") or (newest.id if newest else None)
        view = samples.load(ctx, proposal_id) if proposal_id else None
    if view is None:
        st.html(markup.title("Nothing to compare yet"))
        command = "swapproof proposal create ROUTE PROVIDER/MODEL"
        page_frame.show_empty(
            "No candidate is proposed yet. Once a route exists, propose one:", command
        )
        return
    _show_header(view)
    is_stale = show_banners(view)
    if view.comparison.proposal.open:
        page_frame.show_freezes(view.comparison.proposal.route)
    show_decision(view, stale=is_stale)
    show_figures(view, stale=is_stale)
    if view.comparison.proposal.selection:
        route = view.comparison.proposal.route
        leaderboard_link = markup.link(
            "/suites",
            "All candidates of the route side by side",
            route=route,
        )
        st.html(markup.block(f'<p class="note">{leaderboard_link}.</p>'))
    if view.comparison.verdict is not None:
        show_format_failures(view.comparison, view.titles)
        if view.comparison.is_measured:
            show_effects(view)
            runs = render_html(describe_recorded_runs(view.comparison, view.titles))
            page_frame.show_html(markup.block(runs) if runs else "")
            show_slices(view, view.comparison.verdict.suites)
    elif view.comparison.proposal.open:
        show_progress(view)
    # Samples must not influence a decision that is still open.
    if view.comparison.verdict is not None or not view.comparison.proposal.open:
        samples.show(view)
    show_pins(view)
    page_frame.link("proposals", "Other comparisons", "balance", state="all")
    page_frame.copy_as_cli(["proposal", "show", view.comparison.proposal.id])


def _show_header(view: ComparisonView) -> None:
    comparison = view.comparison
    proposal = view.comparison.proposal
    at = comparison.verdict.decided_at if comparison.verdict else proposal.created_at
    event = "decided" if comparison.verdict else "proposed"
    facts = [
        f"comparison {proposal.id}",
        f"{event} {labels.date_time(at)}, {labels.age(at, view.now)}",
        f"proposed by {proposal.proposer}",
        *(f"{label.lower()} {value}" for _, label, value in proposal.texts),
    ]
    route = markup.link("routes", strong(proposal.route), route=proposal.route)
    serving = load_serving(page_frame.context(), proposal.route)
    heading = f"{strong(comparison.candidate.name)} instead of "
    heading += strong(comparison.incumbent.name)
    note = f"Route {route} · {serving_line(serving)} · {rich(' · '.join(facts))}"
    st.html(markup.title(heading, note))
    page_frame.show_html(outage_banner(serving))


def show_banners(view: ComparisonView) -> bool:
    """Shows a banner if the comparison is stale, not comparable or faulty. Returns whether it
    is stale.
    """
    reason = verdict_text.stale_reason(view)
    if reason:
        text = f"This verdict is no longer valid: {reason}. Propose again to renew it."
        st.html(markup.banner("STALE.", text))
    for suite, pin_names in view.differing.items():
        name = view.titles.get(suite, suite)
        text = (
            f"{name}: the two models were measured with a different {', '.join(pin_names)}, so "
            "their scores cannot be compared."
        )
        st.html(markup.banner("Not comparable.", text))
    for fault in view.comparison.faults:
        st.html(markup.banner("Note.", f"{fault}."))
    return bool(reason)


def show_decision(view: ComparisonView, *, stale: bool) -> None:
    """Shows the verdict beside the drawbacks of the swap, and the buttons of the next step."""
    comparison = view.comparison
    drawbacks = verdict_text.against_card(view)
    main, side = st.columns([3, 2]) if drawbacks else (st.container(), None)
    with main:
        card = verdict_text.verdict_card(view)
        # The foot goes below the buttons. Above them, it would push the next step off a phone's
        # screen.
        st.html(markup.verdict(replace(card, foot=""), stale=stale))
        proposal = comparison.proposal
        is_paused = proposal.open and proposal.retry_at is not None
        if decisions.awaits_decision(proposal) or proposal.waits or is_paused:
            show_openers(
                decisions.openers(
                    comparison.proposal,
                    comparison.verdict,
                    comparison.standing,
                    view.now,
                )
            )
        else:
            show_next_button(view)
        if card.foot:
            st.html(markup.note(card.foot))
    if side is not None:
        side.html(drawbacks)


def show_next_button(view: ComparisonView) -> None:
    """Shows where a decided proposal continues, or how to propose again."""
    proposal = view.comparison.proposal
    query = {"route": proposal.route}
    match proposal.phase:
        case ProposalPhase.CANARY:
            label = "Watch the canary"
            icon = "monitor_heart"
            page = "canary"
            note = (
                "Its share rises automatically while no harm shows, and drops to 0 % as soon "
                "as harm shows."
            )
        case ProposalPhase.PROMOTED:
            label = "See the route's history"
            icon = "history"
            page = "routes"
            note = "The former model can be brought back there."
        case (
            # The control plane continues these proposals, so they need no button.
            ProposalPhase.AWAITING_APPROVAL | ProposalPhase.PROPOSED | ProposalPhase.EVALUATING
        ):
            return
        case _:
            label = "Propose again"
            icon = "add"
            page = "proposals"
            query["candidate"] = view.comparison.candidate.name
            note = verdict_text.why_again(view.comparison.verdict)
    with st.container(horizontal=True, vertical_alignment="center"):
        # After a proposal that did not pass, no button is the step to take.
        kind: Literal["primary", "secondary"] = (
            "secondary" if page == "proposals" else "primary"
        )
        if st.button(label, icon=f":material/{icon}:", type=kind):
            st.switch_page(f"views/{page}.py", query_params=query)
        st.html(markup.note(note), width="content")


def show_figures(view: ComparisonView, *, stale: bool) -> None:
    """Shows cost, latency and speed of both models, and the forecast of the monthly bill."""
    comparison = view.comparison
    cost = f"<p>{rich(comparison.cost.text)}</p>"
    if comparison.candidate_figures.samples == 0:
        st.html(markup.block(cost))
        show_openers(price_openers(comparison.cost.unpriced))
        return
    st.html(
        markup.tiles(
            verdict_text.tiles(comparison.incumbent_figures, comparison.candidate_figures),
            stale=stale,
        )
    )
    st.html(markup.block(f"{cost}{render_html(describe_bill(comparison))}"))
    show_openers(price_openers(comparison.cost.unpriced))


def show_pins(view: ComparisonView) -> None:
    """Shows the versions of data, scorer and prompt for which the verdict is valid."""
    if pins_html := render_html(describe_pins(view.comparison, view.titles)):
        with st.expander("Pinned versions of data, scorer and prompt"):
            st.html(markup.block(pins_html))


def show_effects(view: ComparisonView) -> None:
    """Draws the change in score of each suite, and the pairs that each model won."""
    verdict = view.comparison.verdict
    basis = view.comparison.basis
    if verdict is None or basis is None:
        return
    reports = list_reports(basis)
    comparable = [r for r in reports if r.suite not in view.differing]
    intervals = decision_intervals(verdict)
    frame = plots.suite_frame(comparable, view.titles, basis, intervals)
    if frame.empty:
        return
    note = verdict_text.intervals_note(basis, view.titles, has_intervals=bool(intervals))
    st.html(markup.section("Change in score for each suite", note))
    st.altair_chart(
        plots.forest(frame, page_frame.palette()),
        theme=None,
        width="stretch",
    )
    limit_note = (
        "limit: the largest loss that the policy allows; 0 if the candidate must be better."
    )
    mark = '<span class="limit"></span>'
    st.html(markup.block(f'<p class="note">{mark}{escape(limit_note)}</p>'))
    single_suites = [report for report in comparable if report is not basis.mean]
    st.html(
        markup.section("Won, tied, lost", verdict_text.bars_note(single_suites, view.titles))
    )
    bars = [
        (view.titles.get(r.suite, r.suite), r.wins, r.losses, r.ties)
        for r in single_suites
        if r.n_used
    ]
    st.html(markup.pair_bars(bars))


def show_slices(view: ComparisonView, reports: Sequence[SuiteReport]) -> None:
    """Draws the change in score within each slice. All charts of a suite share their scale."""
    for report in sort_for_reading(reports):
        charts = plots.slice_frames(report)
        if not charts:
            continue
        name = view.titles.get(report.suite, report.suite)
        st.html(markup.section(f"Slices of {name}", verdict_text.slices_note(report)))
        scale_rows = pd.concat(charts.values())
        fields = list(charts)
        columns = min(CHARTS_PER_ROW, len(charts))
        for start in range(0, len(fields), columns):
            # The last row may have fewer charts, but they keep the width.
            row = fields[start : start + columns]
            for column, field in zip(st.columns(columns), row, strict=False):
                with column:
                    st.html(markup.block(f"<p>By {strong(field)}</p>"))
                    chart = plots.forest(charts[field], page_frame.palette(), scale_rows)
                    st.altair_chart(chart, theme=None, width="stretch")


def show_progress(view: ComparisonView) -> None:
    """Shows how many items both models have answered; nothing while they are hidden."""
    if view.comparison.hidden:
        return
    st.html(markup.section("Progress", "Items that both models have answered."))
    for suite, answered, planned in verdict_text.list_progress(view.comparison):
        name = view.titles.get(suite, suite)
        st.html(
            markup.block(f"<p>{escape(name)}: {answered:,} of {planned:,} on both sides</p>")
            + markup.meter(f"Progress of {name}", answered / planned, labels.Tone.NEUTRAL)
        )
    if st.button("Refresh", icon=":material/refresh:"):
        st.rerun()


if __name__ == "__main__":
    page_frame.show_page("The comparison", show)
