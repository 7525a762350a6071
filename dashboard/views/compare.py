"""The Compare page answers: may I swap to this candidate, and if not, why?

Texts are in `verdict_text`, buttons and dialogs in `decisions`, single answers in `samples`.
The page shows no difference before the gate has decided, so that no person decides by it.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from dashboard import labels, markup, page_frame, plots
from dashboard.markup import escape, strong
from dashboard.views import decisions, samples, verdict_text
from dashboard.views.samples import ComparisonView, show_format_failures
from harness.frame.pagination import PageRequest
from harness.gate.verdict import SuiteReport
from harness.operations.queries import list_proposals
from harness.proposals.report.content import list_pinned
from harness.routing.proposal import ProposalPhase
from harness.routing.reports import monthly_bill

CHARTS_A_ROW = 3


def show() -> None:
    """Shows the comparison that the address names, else the newest."""
    with page_frame.loading("the comparison"):
        ctx = page_frame.context()
        newest = next(iter(list_proposals(ctx, PageRequest(1))), None)
        chosen = st.query_params.get("id") or (newest.id if newest else None)
        view = samples.load(ctx, chosen) if chosen else None
    if view is None:
        st.html(markup.title("Nothing to compare yet"))
        command = "swapgate proposal create ROUTE PROVIDER/MODEL"
        page_frame.show_empty("No candidate is proposed yet. Propose one:", command)
        return
    _header(view)
    stale = banner(view)
    if view.comparison.proposal.open:
        page_frame.show_freezes(view.comparison.proposal.route)
    decide(view, stale=stale)
    figures(view, stale=stale)
    if view.comparison.proposal.selection:
        route = view.comparison.proposal.route
        board = markup.link(
            "/suites",
            "All candidates of the route side by side",
            route=route,
        )
        st.html(markup.block(f'<p class="note">{board}.</p>'))
    if view.comparison.verdict is not None:
        show_format_failures(view.comparison, view.titles)
        if view.comparison.is_measured:
            effects(view)
            slices(view, view.comparison.verdict.suites)
    elif view.comparison.proposal.open:
        progress(view)
    # Samples must not influence a decision that is still open.
    if view.comparison.verdict is not None or not view.comparison.proposal.open:
        samples.show(view)
    pins(view)
    page_frame.link("proposals", "Other comparisons", "balance", state="all")
    page_frame.copy_as_cli(["proposal", "show", view.comparison.proposal.id])


def _header(view: ComparisonView) -> None:
    comparison = view.comparison
    proposal = view.comparison.proposal
    at = comparison.verdict.decided_at if comparison.verdict else proposal.created_at
    what = "decided" if comparison.verdict else "proposed"
    facts = [
        f"comparison {proposal.id}",
        f"{what} {labels.date_time(at)}, {labels.age(at, view.now)}",
        f"proposed by {proposal.proposer}",
        *(f"{label.lower()} {value}" for _, label, value in proposal.texts),
    ]
    route = markup.link("routes", strong(proposal.route), route=proposal.route)
    heading = f"{strong(comparison.candidate.name)} instead of "
    heading += strong(comparison.incumbent.name)
    st.html(markup.title(heading, f"Route {route} · {escape(' · '.join(facts))}"))


def banner(view: ComparisonView) -> bool:
    """Shows why the comparison is stale, not comparable or faulty. Returns whether it
    is stale.
    """
    because = verdict_text.stale_reason(view)
    if because:
        words = f"This verdict is no longer valid: {because}. Propose again to renew it."
        st.html(markup.banner("STALE.", words))
    for suite, pieces in view.differing.items():
        name = view.titles.get(suite, suite)
        words = (
            f"{name}: the two models were measured with a different {', '.join(pieces)}, so "
            "their scores cannot be compared."
        )
        st.html(markup.banner("Not comparable.", words))
    for fault in view.comparison.faults:
        st.html(markup.banner("Note.", f"{fault}."))
    return bool(because)


def decide(view: ComparisonView, *, stale: bool) -> None:
    """Shows the verdict beside what speaks against the swap, and the buttons of the
    next step.
    """
    comparison = view.comparison
    against = verdict_text.against_card(view)
    main, side = st.columns([3, 2]) if against else (st.container(), None)
    with main:
        card = verdict_text.verdict_card(view)
        # The foot goes below the buttons. Above them, it would push the next step off a phone's
        # screen.
        st.html(markup.verdict(replace(card, foot=""), stale=stale))
        proposal = comparison.proposal
        paused = proposal.open and proposal.retry_at is not None
        if decisions.awaits_decision(proposal) or proposal.waits or paused:
            with st.container(horizontal=True, vertical_alignment="center"):
                decisions.show_buttons(
                    comparison.proposal,
                    comparison.verdict,
                    comparison.standing,
                    view.now,
                )
        else:
            next_button(view)
        if card.foot:
            st.html(markup.note(card.foot))
    if side is not None:
        side.html(against)


def next_button(view: ComparisonView) -> None:
    """Shows where a decided proposal continues, or how to propose again."""
    proposal = view.comparison.proposal
    query = {"route": proposal.route}
    match proposal.phase:
        case ProposalPhase.CANARY:
            label = "Watch the canary"
            icon = "monitor_heart"
            target = "canary"
            why = (
                "Its share rises automatically while no harm shows, and drops to 0 % as soon "
                "as harm shows."
            )
        case ProposalPhase.PROMOTED:
            label = "See the route's history"
            icon = "history"
            target = "routes"
            why = "The former model can be brought back there."
        case (
            # These need no button, because the control plane continues them.
            ProposalPhase.AWAITING_APPROVAL | ProposalPhase.PROPOSED | ProposalPhase.EVALUATING
        ):
            return
        case _:
            label = "Propose again"
            icon = "add"
            target = "proposals"
            query["candidate"] = view.comparison.candidate.name
            why = verdict_text.why_again(view.comparison.verdict)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(label, icon=f":material/{icon}:", type="primary"):
            st.switch_page(f"views/{target}.py", query_params=query)
        st.html(markup.note(why), width="content")


def figures(view: ComparisonView, *, stale: bool) -> None:
    """Shows cost, latency and speed of both models, and the forecast of the monthly bill."""
    comparison = view.comparison
    cost = f"<p>{escape(comparison.cost.text)}</p>"
    if comparison.candidate_figures.samples == 0:
        st.html(markup.block(cost))
        return
    st.html(
        markup.tiles(
            verdict_text.tiles(comparison.incumbent_figures, comparison.candidate_figures),
            stale=stale,
        )
    )
    why = monthly_bill.describe_basis(comparison.forecast)
    st.html(
        markup.block(
            f"{cost}<p>{escape(monthly_bill.describe_forecast(comparison.forecast))}</p>"
            + (f'<p class="note">{escape(why)}</p>' if why else "")
        )
    )


def pins(view: ComparisonView) -> None:
    """Shows the versions of data, scorer and prompt for which the verdict is valid."""
    shown = [
        {
            "Suite": escape(view.titles.get(side.plan.suite, side.plan.suite)),
            "Pin": escape(pin),
            "What was measured": f'<span class="details">{escape(measured)}</span>',
        }
        for side in view.comparison.suites
        for pin, measured in list_pinned(side)
    ]
    if shown:
        with st.expander("Pinned versions of data, scorer and prompt"):
            st.html(markup.note("The verdict is valid while none of these changes."))
            st.html(markup.table(shown))


def effects(view: ComparisonView) -> None:
    """Draws the change in score of each suite, and the pairs that each model won."""
    basis = view.comparison.basis
    if basis is None:
        return
    reports = verdict_text.measured(basis)
    shown = [r for r in reports if r.suite not in view.differing]
    frame = plots.suite_frame(shown, view.titles, basis)
    if frame.empty:
        return
    note = (
        "Candidate minus current model, in percentage points. Whisker: 95 % CI. The gate "
        "decides by a test of its own; the whisker shows how precisely the change is known."
    )
    st.html(markup.section("Change in score for each suite", note))
    st.altair_chart(
        plots.forest(frame, page_frame.palette()),
        theme=None,
        width="stretch",
    )
    few = [view.titles.get(r.suite, r.suite) for r in shown if r.n_used < plots.FEWEST_PAIRS]
    less = f" Fewer than {plots.FEWEST_PAIRS} pairs, so no interval: {', '.join(few)}."
    limit = (
        "limit: the largest loss that the policy allows; 0 if the candidate must be better."
        f"{less if few else ''}"
    )
    mark = '<span class="limit"></span>'
    st.html(markup.block(f'<p class="note">{mark}{escape(limit)}</p>'))
    alone = [report for report in shown if report is not basis.mean]
    st.html(markup.section("Won, tied, lost", verdict_text.bars_note(alone, view.titles)))
    counted = [
        (view.titles.get(r.suite, r.suite), r.wins, r.losses, r.ties) for r in alone if r.n_used
    ]
    st.html(markup.pair_bars(counted))


def slices(view: ComparisonView, reports: Sequence[SuiteReport]) -> None:
    """Draws the change in score within each slice. All charts of a suite share their scale."""
    for report in plots.in_reading_order(reports):
        charts = plots.slice_frames(report)
        if not charts:
            continue
        name = view.titles.get(report.suite, report.suite)
        st.html(markup.section(f"Slices of {name}", verdict_text.slices_note(report)))
        everything = pd.concat(charts.values())
        fields = list(charts)
        columns = min(CHARTS_A_ROW, len(charts))
        for first in range(0, len(fields), columns):
            # The last row may have fewer charts, but they keep the width.
            row = fields[first : first + columns]
            for column, field in zip(st.columns(columns), row, strict=False):
                with column:
                    st.html(markup.block(f"<p>By {strong(field)}</p>"))
                    chart = plots.forest(charts[field], page_frame.palette(), everything)
                    st.altair_chart(chart, theme=None, width="stretch")


def progress(view: ComparisonView) -> None:
    """Shows how many items both models have answered."""
    st.html(markup.section("Progress", "Items that both models have answered."))
    for suite, done, planned in verdict_text.progress(view.comparison):
        name = view.titles.get(suite, suite)
        st.html(
            markup.block(f"<p>{escape(name)}: {done:,} of {planned:,} on both sides</p>")
            + markup.meter(f"Progress of {name}", done / planned, labels.Tone.NEUTRAL)
        )
    if st.button("Refresh", icon=":material/refresh:"):
        st.rerun()


if __name__ == "__main__":
    page_frame.show_page("The comparison", show)
