"""`swapgate gate`: the offline rule."""

import click

from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup

DECIDE = LazyCommand(
    "harness.cli.evals.file_decision:gate_decide",
    "Decide about a candidate from the scores in PAIRS.csv.",
)

RUN = LazyCommand(
    "harness.cli.evals.gate_run:gate_run", "Compare two targets without a server."
)


@click.command(cls=LazyCommandGroup, lazy={"decide": DECIDE, "run": RUN})
def gate() -> None:
    """The gate's rule, on plain files or on two targets."""
