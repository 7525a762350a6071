"""`swapgate init --from` prints what became of each key of another gateway's configuration."""

from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.domain.adoption.conversion import ConversionOutcome

if TYPE_CHECKING:
    from harness.app.config_import import ConfigImport

GATEWAYS = ("litellm",)
_MARKS = {
    ConversionOutcome.TAKEN: "✓",
    ConversionOutcome.CHANGED: "~",
    ConversionOutcome.LEFT: "✗",
}


def print_import(done: "ConfigImport") -> None:
    """Prints a line for each key: where it stands, what became of it, and why."""
    conversion = done.conversion
    click.echo(f"created {done.config} from {done.source}")
    output.table(
        ("place", "key", "", "what became of it"),
        [
            (note.place, note.key, f"{_MARKS[note.outcome]} {note.outcome}", note.text)
            for note in conversion.notes
        ],
        empty=f"{done.source} has no keys",
    )
    counts = ", ".join(f"{conversion.count(o)} {o}" for o in ConversionOutcome)
    click.echo(f"{counts}")
    if conversion.variables:
        output.note(f"set before `swapgate serve all`: {', '.join(conversion.variables)}")
    if not conversion.has_routes:
        output.note("no route was taken over: the report says why")
