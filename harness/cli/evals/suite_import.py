"""`swapgate suite import` makes labelled captures a suite: writes its data and manifest, and
adds it to swapgate.yaml.
"""

import json
from pathlib import Path
from typing import Final

import click

from harness.cli.frame import output
from harness.cli.frame.command import EXISTING_FILE, arg, command, opt
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session
from harness.control.operations import queries
from harness.control.serialize import to_plain
from harness.domain.errors import ConfigError, Conflict, InputError
from harness.domain.pagination import INVALID_ROWS_HINT

# Routes of a suite in the table; the document has all.
MOST_NAMED: Final = 20
IMPORT = LazyCommand(
    "harness.cli.evals.suite_import:import_suite", "Make a suite of labelled captures."
)


@click.command(cls=LazyCommandGroup, lazy={"import": IMPORT})
def suite() -> None:
    """Suites: items with their scorer, by which models are measured."""


@command(suite, "list")
def list_suites(session: Session) -> None:
    """List the suites of the configuration, and the routes that use each."""
    suites = queries.list_suites(session.context, pinned=session.json)
    most = None if session.json else MOST_NAMED
    users, invalid = queries.list_suite_users(session.context, most)
    for fault in invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    output.listing(
        suites,
        lambda summary: {
            "SUITE": summary.name,
            "ITEMS": summary.items,
            "SCORER": summary.scorer,
            "VERSION": summary.version,
            "ROUTES": str(users.get(summary.name, queries.NO_USERS)),
            "FAULT": summary.error,
        },
        empty="no suite yet: name one under `suites` in swapgate.yaml, or make one of labelled "
        "captures with `swapgate suite import`",
        as_document=lambda rows: [
            {**_plain(row), "routes": users.get(row.name, queries.NO_USERS).routes}
            for row in rows
        ],
    )


def _plain(summary: queries.SuiteSummary) -> dict[str, object]:
    shown = to_plain(summary)
    return dict(shown) if isinstance(shown, dict) else {}


@command(name="import")
def import_suite(
    session: Session,
    file: Path = arg(type=EXISTING_FILE),
    *,
    suite: str = opt("The new suite's name.", metavar="NAME"),
    scorer: str = opt("How an answer is compared with its label.", metavar="NAME"),
    options: tuple[str, ...] = opt(
        "Of the scorer, such as ignore_case=true; may be repeated.",
        "--option",
        metavar="NAME=JSON",
    ),
    max_output_tokens: int = opt("Of an answer.", type=click.IntRange(min=1), default=512),
    replace_: bool = opt("Instead of the suite of this name."),
) -> None:
    """Make a suite of labelled captures.

    Writes suites/NAME.jsonl and suites/manifest.toml beside swapgate.yaml, and the suite into
    swapgate.yaml. Lines without a label are left out. Every fault is named by file and line.
    """
    from harness.app.suite_import import (  # noqa: PLC0415 - only this command needs it
        add_to_config,
        import_labelled,
        lock_suites,
        suite_entry,
    )
    from harness.domain.settings import SuiteSettings  # noqa: PLC0415

    settings = session.settings
    if settings.source is None:
        raise ConfigError("there is no swapgate.yaml to write the suite to: `swapgate init`")
    if suite in settings.suites and not replace_:
        raise Conflict(f"there is a suite {suite!r} already: take another name, or --replace")
    wished = SuiteSettings(
        name=suite,
        scorer=scorer,
        scorer_options=dict(map(_option, options)),
        max_output_tokens=max_output_tokens,
    )
    with lock_suites(settings):
        done = import_labelled(
            file,
            wished,
            base=settings.source.resolve().parent,
            actor=session.actor.name,
            now=session.installation.clock.now(),
            replace_=replace_,
        )
        entry = suite_entry(suite, done.settings)
        if suite in settings.suites:
            written = False
        else:
            written = add_to_config(settings.source, entry, done.data)
    if session.json:
        files = {"data": str(done.data), "manifest": str(done.manifest)}
        output.document({**vars(done), **files, "configured": written})
        return
    click.echo(f"suite {suite}: {done.items} items in {done.data}, sha256 {done.sha256[:12]}…")
    if done.unlabelled:
        output.note(f"left out {done.unlabelled} without a label")
    if done.left_out:
        output.note(f"left out {done.left_out} that scorer {scorer} cannot judge")
    if written:
        click.echo(f"added to {settings.source}")
    else:
        output.note(f"see that {settings.source} has, under `suites:`\n{entry.rstrip()}")


def _option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--option {text!r}: write NAME=JSON, such as ignore_case=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
