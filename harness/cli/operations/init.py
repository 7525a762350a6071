"""`swapgate init` makes a folder an installation: configuration file, secrets, database. It
prints the first admin key, client key and link to the dashboard, once, and keeps what is there.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.cli.frame.command import command, opt
from harness.cli.frame.session import Session
from harness.domain.config_conversion import ConversionOutcome

if TYPE_CHECKING:
    from harness.app.config_import import ConfigImport
    from harness.app.set_up import SetUpResult

GATEWAYS = ("litellm",)
_MARKS = {
    ConversionOutcome.TAKEN: "✓",
    ConversionOutcome.CHANGED: "~",
    ConversionOutcome.LEFT: "✗",
}


@command()
def init(
    session: Session,
    *,
    guided: bool = opt("Ask for a first provider, route and proposal, and make them."),
    source: tuple[str, Path] | None = opt(
        "Take over the configuration of LiteLLM's proxy.",
        "--from",
        nargs=2,
        type=(click.Choice(GATEWAYS), click.Path(path_type=Path)),
        metavar="GATEWAY FILE",
    ),
) -> None:
    """Set up Swapgate in this folder.

    Writes swapgate.yaml and its schema, makes the folder for state with the secret and the
    database, and prints an admin's key and a client's key, this once. Files that are there
    are kept as they are: run it again whenever something is missing.

    --guided then asks for a first provider, route and proposal, the simulator's by default.

    --from litellm config.yaml makes swapgate.yaml of LiteLLM's configuration, and says for each
    key of it what became of it.
    """
    from harness.app.config_import import import_config  # noqa: PLC0415 - `--help` stays quick
    from harness.app.set_up import set_up  # noqa: PLC0415 - as above

    if guided and session.json:
        raise click.UsageError("--guided asks questions, and --json answers none")
    taken = import_config(*source, session.config) if source else None
    done = set_up(session.config)
    if session.json:
        output.document({"import": taken, **asdict(done)} if taken else done)
        return
    if taken:
        _print_import(taken)
    for name in done.created:
        click.echo(f"created {name}")
    for name in done.kept:
        if taken and name == taken.config:
            continue
        click.echo(f"kept {name}: it was there, and is as it was")
    for name in done.seeded:
        click.echo(f"added {name} from {done.config}")
    _print_keys(done)
    if guided:
        from harness.cli.operations.guided_setup import guide  # noqa: PLC0415 - as above

        guide(session.config)
        return
    first = (
        f"name a provider and a route in {done.config}, or let `swapgate init --guided` ask; "
    )
    if done.has_routes:
        first = ""
    output.note(f"next: {first}`swapgate serve all`, and `swapgate doctor` once it runs")


def _print_keys(done: "SetUpResult") -> None:
    if done.admin_key is None:
        output.note("there are keys already: `swapgate key create` makes more")
        return
    output.facts(
        [
            ("admin key", done.admin_key),
            ("client key", done.data_key),
            ("dashboard", done.sign_in_link),
        ]
    )
    output.note("the keys are not shown again: keep them now")
    output.note(
        "the dashboard's link signs you in once, within an hour; "
        "`swapgate key sign-in-link` prints another"
    )


def _print_import(done: "ConfigImport") -> None:
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
    counts = Counter(note.outcome for note in conversion.notes)
    click.echo(", ".join(f"{counts[outcome]} {outcome}" for outcome in ConversionOutcome))
    if conversion.variables:
        output.note(f"set before `swapgate serve all`: {', '.join(conversion.variables)}")
    if "routes" not in conversion.config:
        output.note("no route was taken over: the report says why")
