"""`swapgate config`."""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import click
import yaml

from harness.app.database import HIDDEN, without_password
from harness.config.configuration import json_schema
from harness.config.model import Settings
from harness.frame.errors import InputError
from harness.frame.plain_data import Plain, to_shown
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import command, opt
from harness.interfaces.cli.frame.session import Session


@click.group()
def config() -> None:
    """The configuration."""


@command(config)
def schema() -> None:
    """Print the JSON Schema of swapgate.yaml, which editors use for completion."""
    output.document(json_schema())


@command(config)
def show(
    session: Session,
    *,
    origin: bool = opt("Show each setting's origin: file, environment or default."),
    section: str = opt("Only this section, with --origin.", metavar="NAME", default=""),
) -> None:
    """Show the effective settings of defaults, file and environment, without passwords."""
    if section and not origin:
        raise InputError("--section needs --origin")
    if origin:
        _show_origin(session, section)
        return
    shown = effective(session.settings)
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip("\n")
    output.answer(shown, text)


@command(config)
def apply(
    session: Session,
    *,
    reason: str = opt(
        "Reason; required to change the address or headers of a provider in use.",
        default="",
    ),
) -> None:
    """Apply the file: change providers to its settings, and create new routes.

    Known routes stay. The command prints each difference, with the command that changes it.
    """
    from harness.app import seed  # noqa: PLC0415 - `--help` stays quick
    from harness.proposals.candidates import candidate_rounds  # noqa: PLC0415 - `--help` stays quick
    from harness.routes import routes  # noqa: PLC0415 - `--help` stays quick

    done = session.decide(seed.apply_file, session.settings, reason)
    table = routes.load_table(session.context).routes
    filed = [table[name] for name in session.settings.routes]
    faults = list(candidate_rounds.judge_schedules(session.context, filed))
    if output.documented({**dataclasses.asdict(done), "faults": faults}):
        return
    for name in done.changed:
        click.echo(f"changed provider {name}")
    for name in done.created:
        click.echo(f"created route {name}")
    if not done.changed and not done.created:
        click.echo("nothing to change")
    for difference in done.not_taken:
        output.note(f"not taken: {difference}")
    for fault in faults:
        output.note(fault)


def _show_origin(session: Session, section: str) -> None:
    from harness.app import settings_origin  # noqa: PLC0415 - `--help` stays quick

    settings = [
        setting
        for setting in settings_origin.list_settings(session.settings)
        if section in ("", setting.section)
    ]
    output.listing(
        settings,
        lambda row: {
            "SETTING": row.name,
            "VALUE": row.value,
            "FROM": row.place or row.source.value,
        },
        empty=f"there is no section {section}",
    )


def effective(settings: Settings) -> Plain:
    """Returns the settings; hides the database's password, sinks' URLs and extra headers."""
    shown = to_shown(_with_texts(settings))
    assert isinstance(shown, dict)  # noqa: S101 - a dataclass becomes an object
    shown["database_url"] = without_password(settings.database_url)
    for sink in shown["alerts"]["sinks"]:  # type: ignore[index, call-overload, union-attr]  # plain data
        sink["url"] = HIDDEN if sink["url"] else ""  # type: ignore[index, call-overload]  # plain data
    for provider in settings.providers.values():
        hidden: Plain = dict.fromkeys(provider.extra_headers, HIDDEN)
        shown["providers"][provider.name]["extra_headers"] = hidden  # type: ignore[index, call-overload]  # plain data
    return shown


def _with_texts(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _with_texts(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, Enum | type):
        fields = dataclasses.fields(value)
        return {field.name: _with_texts(getattr(value, field.name)) for field in fields}
    return value
