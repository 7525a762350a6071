"""The Keys page's section of spending: what did evals, judges, shadows, drift checks and agents
cost in this month, does the cap last, and what did swaps save?
"""

import streamlit as st

from dashboard import page_frame
from dashboard.text import html
from harness.control.operations.spending import SpendingReport, load_report
from harness.domain.formatting import format_spent_usd


def show() -> None:
    report = load_report(page_frame.context())
    st.html(
        html.block(
            "<h2>What Swapgate itself spent this month</h2>",
            f"<p>{html.rich(report.headline)}</p>",
        )
    )
    if report.reason:  # why work waits
        st.html(html.note(f"{report.reason}. Users' requests are served as before."))
    if any(row.calls or row.spent_usd for row in report.purposes):
        st.html(purposes_table(report))
    else:
        page_frame.show_empty(
            "Nothing was spent in this month. An eval does:",
            "swapgate eval run SUITE PROVIDER/MODEL",
        )
    st.html(figures_section(report))


def purposes_table(report: SpendingReport) -> str:
    rows = [
        {
            "On what": html.escape(row.purpose.value),
            "Spent": html.escape(format_spent_usd(row.spent_usd, row.unpriced)),
            "Calls": f"{row.calls:,}",
            "Without a price": f"{row.unpriced:,}" if row.unpriced else "none",
            "State": f"{row.purpose.at_the_cap} at the cap"
            if row.purpose in report.waiting
            else "",
        }
        for row in report.purposes
    ]
    return html.table(rows, stacked=True)


def figures_section(report: SpendingReport) -> str:
    rows = [
        (html.escape(f"{name[0].upper()}{name[1:]}"), html.escape(text))
        for name, text in report.facts
    ]
    return html.section("Forecast, canaries and swaps") + html.facts(rows)
