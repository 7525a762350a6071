"""The Compare page answers: may I swap to this candidate, and if not, why? Verdict, effects by
suite, cost and latency, both answers to each item, pins, and the other comparisons.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from dashboard import format_failures, page_frame
from dashboard.charts import plots
from dashboard.data import frames, queries
from dashboard.data.queries import ComparisonView, ProposalRow
from dashboard.text import comparison_text, html, labels, selection_text, suite_text
from dashboard.text.html import escape, strong
from harness.control.proposals.selections import SelectionComparison
from harness.control.routing import monthly_bill
from harness.domain.evals.run import SuiteReport
from harness.domain.proposals.proposal import ProposalPhase
from harness.gate.text.sentences import share_text

ROW_PX, ROWS = 35, 6
CHARTS_A_ROW = 3


def show() -> None:
    with page_frame.loading("the comparison"):
        ctx = page_frame.context()
        rows = queries.proposals(ctx)
        chosen = st.query_params.get("id") or (newest(rows) if rows else None)
        view = queries.comparison(ctx, chosen) if chosen else None
    if view is None:
        st.html(html.title("Nothing to compare yet"))
        command = "swapgate proposal create ROUTE PROVIDER/MODEL"
        st.html(html.empty("No candidate was proposed so far; this proposes one:", command))
        return
    header(view)
    stale = banner(view)
    st.html(html.verdict(comparison_text.verdict_card(view), stale=stale))
    next_button(view)
    figures(view, stale=stale)
    if view.selection is not None:
        matrix(view, view.selection)
    if view.comparison.verdict is not None:
        format_failures.show(view.comparison, view.titles)
        effects(view, view.comparison.verdict.suites)
        slices(view, view.comparison.verdict.suites)
    elif view.comparison.proposal.open:
        progress(view)
    if samples_visible(view):
        samples(view)
    pins(view)
    others(rows, view.comparison.proposal.id)
    page_frame.copy_as_cli("proposal", "show", view.comparison.proposal.id)


def samples_visible(view: ComparisonView) -> bool:
    """Tells whether samples may be seen: not while they could still influence the decision."""
    return view.comparison.verdict is not None or not view.comparison.proposal.open


def newest(rows: Sequence[ProposalRow]) -> str:
    return max(rows, key=lambda row: row.proposal.created_at).proposal.id


def header(view: ComparisonView) -> None:
    comparison = view.comparison
    at = comparison.verdict.decided_at if comparison.verdict else comparison.proposal.created_at
    what = "decided" if comparison.verdict else "proposed"
    st.html(
        html.title(
            (
                f"{strong(comparison.candidate.name)} instead of "
                f"{strong(comparison.incumbent.name)}"
            ),
            f"Route {strong(comparison.proposal.route)} · comparison "
            f"{escape(comparison.proposal.id)} · {what} {escape(labels.date_time(at))}, "
            f"{escape(labels.age(at, view.now))} · proposed by "
            f"{escape(comparison.proposal.proposer)}",
        )
    )


def banner(view: ComparisonView) -> bool:
    """Show why the verdict is stale or not comparable; return whether it is stale."""
    because = comparison_text.stale_reason(view)
    if because:
        words = f"This verdict is no longer valid: {because}. Propose again to renew it."
        st.html(html.banner("STALE.", words))
    for suite, pieces in view.differing.items():
        name = view.titles.get(suite, suite)
        words = (
            f"{name}: the two models were measured with a different {', '.join(pieces)}, "
            "so "
            "their scores cannot be compared."
        )
        st.html(html.banner("Not comparable.", words))
    return bool(because)


def next_button(view: ComparisonView) -> None:
    """Offers the next sensible step, never the risky one."""
    proposal = view.comparison.proposal
    route = {"route": proposal.route}
    again = {**route, "candidate": view.comparison.candidate.name}
    match proposal.phase:
        case ProposalPhase.CANARY:
            step = ("Watch the canary", ":material/monitor_heart:", "views/canary.py", route)
            why = (
                "Its share rises automatically while no harm shows, and drops to 0 % as "
                "soon "
                "as harm shows."
            )
        case ProposalPhase.SHADOW:
            step = ("Watch the shadow", ":material/monitor_heart:", "views/canary.py", route)
            why = "It answers copies of users' requests; nobody sees its answers yet."
        case ProposalPhase.AWAITING_APPROVAL:
            step = ("Go to the approval", ":material/gavel:", "views/proposals.py", {})
            why = f"{proposal.proposer} proposed it, so somebody else has to approve it."
        case ProposalPhase.PROMOTED:
            step = ("See the route's history", ":material/history:", "views/routes.py", route)
            why = "The former model can be brought back there."
        case ProposalPhase.PROPOSED | ProposalPhase.EVALUATING:
            return
        case _:
            step = ("Propose again", ":material/add:", "views/proposals.py", again)
            why = comparison_text.why_again(view.comparison.verdict)
    label, icon, target, query = step
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(label, icon=icon, type="primary"):
            st.switch_page(target, query_params=query)
        st.html(html.note(why), width="content")


def figures(view: ComparisonView, *, stale: bool) -> None:
    comparison = view.comparison
    if comparison.candidate_figures.samples == 0:
        return
    st.html(
        html.tiles(
            comparison_text.tiles(comparison.incumbent_figures, comparison.candidate_figures),
            stale=stale,
        )
    )
    why = monthly_bill.describe_basis(comparison.forecast)
    st.html(
        html.block(
            f"<p>{escape(monthly_bill.describe_forecast(comparison.forecast))}</p>"
            + (f'<p class="note">{escape(why)}</p>' if why else "")
        )
    )


def matrix(view: ComparisonView, selection: SelectionComparison) -> None:
    """Shows the candidates that were proposed together, one a row; all but the current model
    and the one that this page is about lead to their own comparison.
    """
    st.html(
        html.section("The candidates side by side", share_text(len(selection.candidates)) + ".")
    )
    shown = [
        [_candidate(view, id_, cells[0]), *map(escape, cells[1:])]
        for id_, cells in selection_text.matrix(selection, view.titles)
    ]
    st.html(html.table(selection_text.MATRIX_HEADS, shown, stacked=True))


def _candidate(view: ComparisonView, proposal: str, name: str) -> str:
    if proposal == view.comparison.proposal.id:
        return f"{strong(name)} (this page)"
    if not proposal:
        return escape(name)
    return f'<a href="?id={escape(proposal)}" target="_self">{escape(name)}</a>'


def pins(view: ComparisonView) -> None:
    rows = comparison_text.pins(view)
    if not rows:
        return
    note = "The verdict stays valid as long as none of this changes."
    st.html(html.section("What was pinned", note))
    shown = [[escape(cell) for cell in row] for row in rows]
    st.html(html.table(comparison_text.PIN_HEADS, shown))


def effects(view: ComparisonView, reports: Sequence[SuiteReport]) -> None:
    shown = [r for r in frames.in_reading_order(reports) if r.suite not in view.differing]
    frame = frames.suites(shown, view.titles)
    if frame.empty:
        return
    note = (
        "Candidate minus current model, in percentage points. Whisker: 95 % CI. The gate "
        "decides by a test of its own; the whisker shows how precisely the change is known."
    )
    st.html(html.section("Change in score for each suite", note))
    st.altair_chart(plots.forest(frame, page_frame.palette()), theme=None, width="stretch")
    few = [view.titles.get(r.suite, r.suite) for r in shown if r.n_used < frames.FEWEST_PAIRS]
    less = f" Fewer than {frames.FEWEST_PAIRS} pairs, so no interval: {', '.join(few)}."
    limit = (
        "limit: the largest loss that the policy allows; 0 where the candidate must be better."
        f"{less if few else ''}"
    )
    mark = '<span class="limit"></span>'
    st.html(html.block(f'<p class="note">{mark}{escape(limit)}</p>'))
    st.html(html.section("Won, tied, lost", suite_text.bars_note(shown, view.titles)))
    st.html(html.pair_bars(frames.pair_counts(shown, view.titles)))


def slices(view: ComparisonView, reports: Sequence[SuiteReport]) -> None:
    """Shows the guarded slices as small multiples: a chart for each slice field, all of a suite
    on one scale.
    """
    for report in frames.in_reading_order(reports):
        charts = frames.slices(report)
        if not charts:
            continue
        name = view.titles.get(report.suite, report.suite)
        st.html(html.section(f"Slices of {name}", suite_text.slices_note(report)))
        everything = pd.concat(charts.values())
        fields, columns = list(charts), min(CHARTS_A_ROW, len(charts))
        for first in range(0, len(fields), columns):
            # The last row's charts are as wide as the others.
            row = fields[first : first + columns]
            for column, field in zip(st.columns(columns), row, strict=False):
                with column:
                    st.html(html.block(f"<p>By {strong(field)}</p>"))
                    chart = plots.forest(charts[field], page_frame.palette(), everything)
                    st.altair_chart(chart, theme=None, width="stretch")


def progress(view: ComparisonView) -> None:
    st.html(html.section("Progress", "Items that are answered."))
    for suite, done, planned, who in comparison_text.progress(view.comparison):
        name = view.titles.get(suite, suite)
        st.html(
            html.block(f"<p>{escape(name)}: {done:,} of {planned:,} {who}</p>")
            + html.meter(done / planned, labels.Tone.NEUTRAL)
        )
    if st.button("Refresh", icon=":material/refresh:"):
        st.rerun()


def samples(view: ComparisonView) -> None:
    everything = frames.samples(view.comparison, view.titles)
    if everything.empty:
        return
    st.html(html.section("Samples", "Select a row to see both answers side by side."))
    show, suite = filters(view.titles, list(dict.fromkeys(everything["suite"])))
    counts = everything["change"].value_counts()
    st.html(
        html.note(
            " · ".join(
                f"{frames.CHANGE_SYMBOLS[change]} {counts.get(change, 0):,} {change}"
                for change in frames.CHANGES
            )
            + f" · {len(everything):,} in all"
        )
    )
    rows = frames.filter_rows(everything, show, suite)
    if rows.empty:
        st.html(html.note(f"No sample here is “{show}”. Choose another filter."))
        return
    answers(view, rows.iloc[sample_table(rows, f"{show}-{suite}")])


def filters(titles: Mapping[str, str], suites: Sequence[str]) -> tuple[str, str]:
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    with left:
        show = st.segmented_control(
            "Change",
            [*frames.CHANGES, "all"],
            default="regressed",
            required=True,
            key="show",
            bind="query-params",
            wrap=True,
            label_visibility="collapsed",
        )
    with right:
        suite = st.selectbox(
            "Suite",
            ["all", *suites],
            key="suite",
            bind="query-params",
            help="all, or one of: " + ", ".join(titles.get(name, name) for name in suites),
        )
    return show or "regressed", suite or "all"


def sample_table(rows: pd.DataFrame, filter_key: str) -> int:
    """Show the table; return the position of the selected row (`sample` in the URL)."""
    keys = list(rows["key"])
    wanted = st.query_params.get("sample")
    first = keys.index(wanted) if wanted in keys else 0
    table = frames.sample_table(rows)
    event = st.dataframe(
        table,
        hide_index=True,
        height=ROW_PX * (min(ROWS, len(table)) + 1) + 3,
        row_height=ROW_PX,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [first]}},
        # The filter is part of the key: an old selection would point to a wrong row.
        key=f"samples-{filter_key}",
        column_config={
            "Sample": st.column_config.TextColumn(width=130),
            "Change": st.column_config.TextColumn(width=100),
            "Prompt": st.column_config.TextColumn(width="large"),
            "Current": st.column_config.TextColumn(width=110),
            "Candidate": st.column_config.TextColumn(width=110),
            "Latency": st.column_config.TextColumn(width=75, alignment="right"),
        },
    )
    picked = event["selection"]["rows"]
    place = int(picked[0]) if picked else first
    if picked and keys[place] != keys[0]:
        st.query_params["sample"] = keys[place]
    return place


def answers(view: ComparisonView, row: pd.Series) -> None:
    st.html(
        html.block(
            f"<p>{strong(row['item'])} · {escape(row['title'])} · "
            f'<span class="note">{escape(frames.one_line(str(row["prompt"]), 320))}'
            "</span></p>"
        )
        + html.answer_panels(
            _answer("Current", view.comparison.incumbent.name, row, "incumbent"),
            _answer("Candidate", view.comparison.candidate.name, row, "candidate"),
        )
    )


def _answer(side: str, name: str, row: pd.Series, arm: str) -> html.AnswerPanel:
    rating = str(row[arm])
    tones = {
        "✓": labels.Tone.BETTER,
        "✕": labels.Tone.WORSE,
        "◐": labels.Tone.NEUTRAL,
        "?": labels.Tone.UNDECIDED,
    }
    return html.AnswerPanel(
        who=f"{side} · {name}",
        text=str(row[f"{arm}_answer"]),
        rating=rating,
        tone=tones[rating[0]],
    )


def others(rows: Sequence[ProposalRow], current: str) -> None:
    """Offers the other comparisons, newest first."""
    names = {
        row.proposal.id: f"{row.proposal.route}: {row.candidate} instead of "
        f"{row.incumbent} ({labels.verdict_label(row.verdict).words})"
        for row in rows
        if row.proposal.id != current
    }
    if not names:
        return
    picked = st.selectbox(
        "Other comparisons",
        list(names),
        index=None,
        format_func=lambda id_: names[id_],
        placeholder="Choose one to open it",
        key=f"other-{current}",
    )
    if picked:
        st.query_params.clear()
        st.query_params["id"] = picked
        st.rerun()


page_frame.show_page("The comparison", show)
