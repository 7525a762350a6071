"""`swapgate spending` shows what Swapgate itself spent on models in this month, by purpose and
against the cap.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.operations.spending_report import load_report
from harness.domain.formatting import format_spent_usd


@click.command()
@pass_session
def spending(session: Session) -> None:
    """Show what evals, judges, shadows, drift checks and agents cost in this month (UTC)."""
    report = load_report(session.context)
    if session.json:
        output.document(report)
        return
    click.echo(f"{report.headline}.")
    if report.reason:
        click.echo(f"{report.reason}.")
    click.echo()
    output.table(
        ["PURPOSE", "SPENT", "CALLS", "WITHOUT A PRICE", "STATE"],
        [
            (
                row.purpose.value,
                format_spent_usd(row.spent_usd, row.unpriced),
                f"{row.calls:,}",
                f"{row.unpriced:,}" if row.unpriced else None,
                row.purpose.at_the_cap if row.purpose in report.waiting else None,
            )
            for row in report.purposes
        ],
        empty="",
    )
    click.echo()
    output.facts(report.facts)
