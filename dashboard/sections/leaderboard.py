"""The Suites page's section of models answers: which models did the suites of a route measure,
and which come next? Each has its score, difference, price and time, a place in a chart of
quality against cost, and a link that proposes it.
"""

from collections.abc import Sequence
from typing import Final

import pandas as pd
import streamlit as st

from dashboard import page_frame
from dashboard.charts import plots
from dashboard.text import html, labels
from dashboard.text.html import Row, escape, faint, noted, strong
from dashboard.text.labels import Label, Tone
from harness.control.proposals import leaderboard
from harness.control.proposals.leaderboard import Leaderboard, LeaderboardRow, Standing
from harness.domain.errors import SwapgateError
from harness.domain.formatting import (
    DASH,
    format_latency,
    format_points,
    format_points_interval,
    format_range,
    format_score,
    format_usd,
)

STANDINGS: Final = {
    Standing.INCUMBENT: Label("●", "serves now", Tone.NEUTRAL),
    Standing.BETTER: Label("✓", "better", Tone.BETTER),
    Standing.NOT_WORSE: Label("≥", "not worse", Tone.BETTER),
    Standing.OPEN: Label("?", "not decided", Tone.UNDECIDED),
    Standing.HOPELESS: Label("✕", "hopeless", Tone.WORSE),
    Standing.WORSE: Label("✕", "worse", Tone.WORSE),
    Standing.EARLIER: Label("=", "measured against another model", Tone.NEUTRAL),
    Standing.MEASURED_NOW: Label("◐", "measured now", Tone.NEUTRAL),
    Standing.NOT_MEASURED: Label("?", "not measured", Tone.UNDECIDED),
}
# A chart of one point compares nothing.
FEWEST_POINTS: Final = 2


def show(routes: Sequence[str]) -> None:
    """Shows the section. routes: names of those with suites."""
    if not routes:
        return
    st.html(html.section("Models", "Each model that the suites of a route measured."))
    asked = st.query_params.get("route")
    at = routes.index(asked) if asked in routes else 0
    route = st.selectbox("Route", routes, index=at, key="models-route")
    try:
        board = leaderboard.load_leaderboard(page_frame.context(), route)
    except SwapgateError as error:
        st.html(html.note(str(error)))
        return
    if board.ending:
        st.html(html.note(board.ending))
    if board.rows:
        frame = points(board.rows)
        if len(frame) >= FEWEST_POINTS:
            chart = plots.quality_against_cost(frame, page_frame.palette())
            st.altair_chart(chart, theme=None, width="stretch")
            if unpriced := [row.name for row in board.rows if row.usd_per_1000 is None]:
                names = ", ".join(unpriced)
                st.html(html.note(f"Without a known price, and so not in the chart: {names}."))
        st.html(html.table([row_cells(row, route) for row in board.rows], stacked=True))
    else:
        st.html(html.note("No candidate was measured on these suites, as they are, yet."))
    for line in next_lines(board):
        st.html(html.note(line))


def points(rows: Sequence[LeaderboardRow]) -> pd.DataFrame:
    """Builds one row for each model with a score and a price: points of 100, US dollars."""
    return pd.DataFrame(
        [
            {
                "name": row.name,
                "score": row.score * 100,
                "low": None if row.score_low is None else row.score_low * 100,
                "high": None if row.score_high is None else row.score_high * 100,
                "usd": row.usd_per_1000,
                "standing": STANDINGS[row.standing].words,
                "line": row.is_cheapest_so_good,
            }
            for row in rows
            if row.score is not None and row.usd_per_1000 is not None
        ]
    )


def row_cells(row: LeaderboardRow, route: str) -> Row:
    interval = (
        None
        if row.score_low is None or row.score_high is None
        else format_range((row.score_low, row.score_high), format_score)
    )
    score = DASH if row.score is None else format_score(row.score)
    between = format_points_interval(row.delta_low, row.delta_high)
    measured = row.measured_at.date().isoformat() if row.measured_at else ""
    look = f", look {row.look}" if row.look > 1 else ""
    best = "no other is both better and cheaper" if row.is_cheapest_so_good else ""
    ending = row.ending.removeprefix(f"{row.name} ")
    about = "; ".join(filter(None, (best, ending)))
    propose = (
        ""
        if row.standing is Standing.INCUMBENT
        else html.link("proposals", "Propose", route=route, candidate=row.name)
    )
    return {
        "Model": noted(strong(row.name), about),
        "Standing": html.state(STANDINGS[row.standing]),
        "Score": noted(escape(score), interval),
        "Difference": faint(DASH)
        if row.delta is None
        else noted(escape(format_points(row.delta)), between),
        "1,000 answers": escape(format_usd(row.usd_per_1000)),
        "Median": escape(format_latency(row.p50_s, DASH)),
        "Measured": noted(escape(measured or DASH), f"{row.items:,} items{look}"),
        "Swap": propose,
    }


def next_lines(board: Leaderboard) -> Sequence[str]:
    """Says in words what is measured next, and what waits."""
    if not board.schedule:
        command = f"`swapgate route settings {board.route} --candidates …`"
        return [f"No candidates are measured by the clock. {command} names them."]
    plan = board.next_round
    when = labels.date_time(board.next_round_at) if board.next_round_at else "never"
    if board.obstacle:
        when = f"once the route is free ({board.obstacle})"
    names = ", ".join(one.name for one in plan.measured)
    cost = f", {plan.cost_text}" if names else ""
    lines = [f"Next round {when}: {names or 'no model is new'}{cost}."]
    lines.append(f"Schedule: {board.schedule}.")
    lines += [f"{one.name} waits: {one.remark}." for one in plan.waiting]
    return [*lines, *(f"{warning}." for warning in plan.warnings)]
