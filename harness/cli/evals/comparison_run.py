"""What commands that compare two models without a server share: progress, and the report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from harness.cli.frame import output
from harness.cli.frame.waiting import TIMED_OUT, Progress, ProgressLine
from harness.cli.proposals.verdict_wait import REJECTED_BY_VERDICT
from harness.control.evals.run_costs import sum_cost_so_far
from harness.control.proposals import evaluation
from harness.ports import Clock
from harness.report.content import FILE, variables

if TYPE_CHECKING:
    from harness.control.context import Context
    from harness.domain.proposals.proposal import Proposal
    from harness.report.content import Report

PAUSE_S: Final = 0.2
EXITS: Final = REJECTED_BY_VERDICT | {"passed": 0}


@contextmanager
def progress_pauses(
    ctx: "Context", clock: Clock, timeout_s: float | None = None
) -> Iterator[Callable[["Proposal"], bool]]:
    """Gives the pause of `run_until_decided`, which writes a progress line to stderr."""
    ticker = ProgressLine()
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s

    def pause(now: "Proposal") -> bool:
        ticker.say(_progress(ctx, now), clock.monotonic())
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
        return True

    try:
        yield pause
    finally:
        ticker.end()


def _progress(ctx: "Context", proposal: "Proposal") -> Progress:
    with ctx.store.read() as tx:
        if proposal.retry_at is not None:
            verdicts = tx.verdicts.for_proposal(proposal.id)
            why = next((verdict.reason for verdict in verdicts), "")
            return Progress(f"{why[:1].lower()}{why[1:]} Trying again.")
        done, wanted = evaluation.count_answers(tx, proposal)
        cost = sum_cost_so_far(tx, evaluation.run_ids(proposal))
        waits = evaluation.describe_proposal_waits(tx, proposal)
    stage = "asking" if wanted else "starting"
    return Progress(
        stage, done, wanted, at_most=True, unit="answers", cost_usd=cost, note=waits
    )


def print_report(report: "Report", keep: Path | None) -> None:
    """Prints the verdict with its suites; keep: the folder with every answer."""
    from harness.cli.proposals import comparison  # noqa: PLC0415 - as above
    from harness.control.proposals.format_failures import find_format_failures  # noqa: PLC0415
    from harness.gate.text.sentences import reason_text  # noqa: PLC0415

    found = report.comparison
    if output.documented(
        {
            **comparison.as_json(found, None, standalone=True),
            "exit_code": exit_code(report),
        }
    ):
        return
    for fault in found.faults:
        click.echo(f"mind: {fault}")
    if found.verdict is None:
        click.echo(comparison.outcome_text(found))
    else:
        click.echo(f"{found.verdict.words}: {reason_text(found.verdict)}")
        rows = comparison.suite_rows(found.verdict)
        output.table(comparison.HEADINGS, rows, empty="no suites")
        click.echo(found.decided_on)
        click.echo(f"next: {report.next_step}")
        for lost in find_format_failures(found, standalone=True):
            comparison.print_format_failures(lost)
    if keep is not None and found.verdict:
        output.note(
            f"every answer is in {keep / FILE}: "
            f"{variables(keep)} "
            f"swapgate gate replay {found.verdict.id}"
        )


def exit_code(report: "Report") -> int:
    """Returns the exit code that the report's verdict has."""
    verdict = report.comparison.verdict
    if verdict is not None:
        return EXITS[verdict.outcome]
    # Without one it was given up, or ended for a reason of its own: that was no measurement.
    return TIMED_OUT if report.comparison.proposal.open else 1
