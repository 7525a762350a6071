"""The Spending page answers: what did evals, judges, shadows, drift checks and agents cost in
this month, does the cap last, and what did swaps save?
"""

import streamlit as st

from dashboard import page_frame
from dashboard.text import html, labels, spending_text
from harness.control.operations.spending_report import load_report


def show() -> None:
    with page_frame.loading("the month's spending"):
        ctx = page_frame.context()
        report = load_report(ctx)
    st.html(html.title(spending_text.headline(report), labels.date_time(ctx.clock.now())))
    page_frame.show_html(spending_text.reason(report))
    if any(row.calls or row.spent_usd for row in report.purposes):
        st.html(spending_text.purposes(report))
    else:
        st.html(
            html.empty(
                "Nothing was spent in this month. An eval does:",
                "swapgate eval run SUITE PROVIDER/MODEL",
            )
        )
    st.html(spending_text.figures(report))
    page_frame.copy_as_cli("spending")


page_frame.show_page("The month's spending", show)
