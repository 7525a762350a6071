"""`swapgate gate`: the offline rule."""

import click

from harness.cli.lazy import Lazy, LazyGroup

DECIDE = Lazy(
    "harness.cli.decide:gate_decide", "Decide about a candidate from the scores in PAIRS.csv."
)


@click.command(cls=LazyGroup, lazy={"decide": DECIDE})
def gate() -> None:
    """The gate's rule, on plain files."""
