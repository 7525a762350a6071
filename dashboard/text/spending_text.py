"""Markup of the Spending page: the month against its cap, its purposes, and the forecast."""

from dashboard.text import html
from harness.control.operations.spending_report import SpendingReport
from harness.domain.formatting import format_usd


def headline(report: SpendingReport) -> str:
    return html.rich(report.headline)


def reason(report: SpendingReport) -> str:
    """Says why work waits, and how it goes on; empty while nothing waits."""
    if not report.reason:
        return ""
    return html.note(f"{report.reason}. Users' requests are served as before.")


def purposes(report: SpendingReport) -> str:
    """The table of what was spent on what."""
    rows = [
        (
            html.escape(row.purpose.value),
            html.escape(format_usd(row.spent_usd)),
            f"{row.calls:,}",
            f"{row.unpriced:,}" if row.unpriced else "none",
            "waits for the cap" if row.purpose.value in report.waiting else "",
        )
        for row in report.purposes
    ]
    heads = ("On what", "Spent", "Calls", "Without a price", "State")
    return html.table(heads, rows, stacked=True)


def figures(report: SpendingReport) -> str:
    """The forecast, what canaries cost, and what swaps saved."""
    rows = [
        (html.escape(f"{name[0].upper()}{name[1:]}"), html.escape(text))
        for name, text in report.facts
    ]
    return html.section("Forecast, canaries and swaps") + html.facts(rows)
