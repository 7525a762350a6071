"""The Spending page answers: what did evals, judges, shadows, drift checks and agents cost in
this month, does the cap last, and what did swaps save?
"""

import streamlit as st

from dashboard import page_frame
from dashboard.text import html, labels
from harness.control.operations.spending_report import SpendingReport, load_report
from harness.domain.formatting import format_spent_usd


def show() -> None:
    with page_frame.loading("the month's spending"):
        ctx = page_frame.context()
        report = load_report(ctx)
    st.html(html.title(html.rich(report.headline), labels.date_time(ctx.clock.now())))
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
    page_frame.copy_as_cli("spending")


def purposes_table(report: SpendingReport) -> str:
    """The table of what was spent on what."""
    rows = [
        (
            html.escape(row.purpose.value),
            html.escape(format_spent_usd(row.spent_usd, row.unpriced)),
            f"{row.calls:,}",
            f"{row.unpriced:,}" if row.unpriced else "none",
            f"{row.purpose.at_the_cap} at the cap" if row.purpose in report.waiting else "",
        )
        for row in report.purposes
    ]
    heads = ("On what", "Spent", "Calls", "Without a price", "State")
    return html.table(heads, rows, stacked=True)


def figures_section(report: SpendingReport) -> str:
    """The forecast, what canaries cost, and what swaps saved."""
    rows = [
        (html.escape(f"{name[0].upper()}{name[1:]}"), html.escape(text))
        for name, text in report.facts
    ]
    return html.section("Forecast, canaries and swaps") + html.facts(rows)


if __name__ == "__main__":
    page_frame.show_page("The month's spending", show)
