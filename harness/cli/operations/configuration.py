"""`swapgate config` prints the file's schema (`schema`) and the settings in force (`show`),
and makes the database's providers what the file says (`apply`).
"""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import click
import yaml

from harness.app.database import HIDDEN, without_password
from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.config import json_schema
from harness.control.serialize import Plain, to_plain
from harness.domain.settings import Settings


@click.group()
def config() -> None:
    """The configuration."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of swapgate.yaml, for editors that complete it."""
    output.document(json_schema())


@config.command()
@pass_session
def show(session: Session) -> None:
    """Show the settings in force: defaults, file and environment; passwords are hidden."""
    shown = effective(session.settings)
    if session.json:
        output.document(shown)
    else:
        click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


@config.command()
@click.option(
    "--reason",
    default="",
    help="Reason; required to change the address or headers of a provider that a route uses.",
)
@pass_session
def apply(session: Session, reason: str) -> None:
    """Make the database's providers what the file says."""
    from harness.control.routing import seed  # noqa: PLC0415 - `--help` stays quick

    changed = seed.apply_providers(session.context, session.actor, session.settings, reason)
    if session.json:
        output.document(to_plain({"changed": changed}))
    else:
        click.echo(f"changed: {', '.join(changed)}" if changed else "nothing to change")


def effective(settings: Settings) -> Plain:
    """Returns the settings without the database's password and the values of extra headers."""
    shown = to_plain(_with_texts(settings))
    assert isinstance(shown, dict)  # noqa: S101 - a dataclass becomes an object
    shown["database_url"] = without_password(settings.database_url)
    for sink in shown["alerts"]["sinks"]:  # type: ignore[index, call-overload, union-attr]  # as above
        sink["url"] = HIDDEN if sink["url"] else ""  # type: ignore[index, call-overload]  # as above
    for provider in settings.providers.values():
        hidden: Plain = dict.fromkeys(provider.extra_headers, HIDDEN)
        shown["providers"][provider.name]["extra_headers"] = hidden  # type: ignore[index, call-overload]  # as above
    return shown


def _with_texts(value: object) -> object:
    """Paths as texts, which `to_plain` takes."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _with_texts(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, Enum | type):
        fields = dataclasses.fields(value)
        return {field.name: _with_texts(getattr(value, field.name)) for field in fields}
    return value
