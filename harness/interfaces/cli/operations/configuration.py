"""`swapproof config`. Lists the current settings with their origin, without secrets."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import yaml

from harness.app.configuration import configuration
from harness.app.configuration.configuration import json_schema
from harness.app.configuration.model import Settings
from harness.app.database import HIDDEN, without_password
from harness.frame import package_data
from harness.frame.configuration.source_locations import Document, KeyPath
from harness.frame.errors import ConfigError, InputError
from harness.frame.plain_data import Plain, to_shown
from harness.frame.redaction import find_keys
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import command, opt
from harness.interfaces.cli.frame.session import Session

# Values of these keys, in any section and case, may contain a secret.
SECRET_KEYS: Final = re.compile(
    r"(^|[_-])(secret|passwords?|passwd|api[_-]?key|apikey|(?<!first_)token|authorization"
    r"|credentials?)$"
)
_CAMEL_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
HIDDEN_GROUP: Final = "extra_headers"
# Addresses with a secret in their path.
SECRET_ADDRESSES: Final = frozenset({"url", "webhook"})


class SettingSource(StrEnum):
    FILE = "file"
    ENVIRONMENT = "environment"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    name: str  # with its section, such as `router.port`
    value: str  # as in the file; hidden if it may be a secret
    source: SettingSource
    place: str  # `swapproof.yaml:12`, or the environment variable; empty for a default
    meaning: str  # the setting's description, or empty

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]


def list_settings(settings: Settings) -> Sequence[Setting]:
    """Lists all settings with their current values. Raises ConfigError."""
    default_file = package_data.path("config/default.yaml")
    document = configuration.read_document(settings.source, os.environ, defaults=default_file)
    schema = json_schema()
    return [
        Setting(
            name=".".join(map(str, path)),
            value=_show_value(path, value),
            source=source,
            place=place,
            meaning=_find_meaning(schema, path),
        )
        for path, value in _list_leaves((), to_shown(configuration.whole_file(document)))
        for source, place in [_find_origin(document, path, default_file)]
    ]


def _list_leaves(path: KeyPath, value: Plain) -> Iterator[tuple[KeyPath, Plain]]:
    if path and path[-1] == HIDDEN_GROUP and value:
        yield path, HIDDEN
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _list_leaves((*path, name), inner)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _list_leaves((*path, number), item)
    else:
        yield path, value


def _find_origin(
    document: Document,
    path: KeyPath,
    default_file: Path,
) -> tuple[SettingSource, str]:
    place = document.places.get(path, "")
    if not place or place.startswith(f"{default_file}:"):
        return SettingSource.DEFAULT, ""
    if place.startswith("environment "):
        return SettingSource.ENVIRONMENT, place.removeprefix("environment variable ")
    file, _, line = place.rpartition(":")
    return SettingSource.FILE, f"{Path(file).name}:{line}"


def _show_value(path: KeyPath, value: Plain) -> str:  # noqa: PLR0911 - one per kind of value
    key = str(path[-1])
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str() if not value:
            return "empty"
        case str() if SECRET_KEYS.search(_CAMEL_BOUNDARY.sub("_", key).lower()) or any(
            find_keys(value)
        ):
            return HIDDEN
        case str() if key in SECRET_ADDRESSES and "://" in value:
            return _hide_address(value)
        case str():
            return without_password(value) if "://" in value else value
        case dict() | list() if not value:
            return "none"
        case list():
            return ", ".join(_show_value((*path, "item"), item) for item in value)
        case _:
            return str(value)


def _hide_address(url: str) -> str:
    """Returns only the host of a webhook's address, or the scheme of an Apprise address
    (`slack://`), because the rest may be a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}://{HIDDEN}"
    return f"{parts.scheme}://{parts.hostname or ''}/{HIDDEN}"


def _find_meaning(schema: Mapping[str, Any], path: KeyPath) -> str:
    node: Mapping[str, Any] = schema
    for part in path:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            extra = node.get("additionalProperties")
            inner = node.get("properties", {}).get(part, extra)
            node = inner if isinstance(inner, Mapping) else {}
    return str(node.get("description", ""))


def _resolve(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows a node's reference, or the option of a union that describes parts."""
    options = [node, *node.get("anyOf", ()), *node.get("allOf", ())]
    for option in options:
        name = str(option.get("$ref", ""))
        if name:
            definition: Mapping[str, Any] = schema["$defs"][name.rpartition("/")[2]]
            return definition
    objects = [option for option in options if "properties" in option or "items" in option]
    return objects[0] if objects else node


@click.group()
def config() -> None:
    """The configuration."""


@command(config, example="swapproof config schema > swapproof.schema.json")
def schema() -> None:
    """Print the JSON Schema of swapproof.yaml, which editors use for completion."""
    output.document(json_schema())


@command(config, example="swapproof config show --origin")
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
    plain_settings = effective(session.settings)
    text = yaml.safe_dump(plain_settings, sort_keys=False, allow_unicode=True).rstrip("\n")
    output.answer(plain_settings, text)


@command(config, example="swapproof config apply")
def apply(
    session: Session,
    *,
    reason: str = opt(
        "Reason; required to change the address or headers of a provider in use.",
        default="",
    ),
) -> None:
    """Apply the file: update providers, and create new routes.

    Known routes stay. The command prints each difference, with the command that changes it.
    """
    from harness.app import seed  # noqa: PLC0415 - `--help` stays quick
    from harness.proposals.candidates import candidate_rounds  # noqa: PLC0415 - `--help` stays quick
    from harness.routing.control import routes  # noqa: PLC0415 - `--help` stays quick

    default_file = package_data.path("config/default.yaml")
    for fault in configuration.list_schedule_faults(
        session.settings, os.environ, defaults=default_file
    ):
        raise ConfigError(fault)
    changes = session.decide(seed.apply_file, session.settings, reason)
    table = routes.load_table(session.context).routes
    file_routes = [table[name] for name in session.settings.routes]
    faults = list(candidate_rounds.describe_schedule_faults(session.context, file_routes))
    if output.documented({**dataclasses.asdict(changes), "faults": faults}):
        return
    for name in changes.added:
        click.echo(f"added provider {name}")
    for name in changes.changed:
        click.echo(f"changed provider {name}")
    for name in changes.created:
        click.echo(f"created route {name}")
    if not (changes.added or changes.changed or changes.created):
        click.echo("nothing to change")
    for difference in changes.not_taken:
        output.note(f"not taken: {difference}")
    for fault in faults:
        output.note(fault)


def _show_origin(session: Session, section: str) -> None:
    settings = [
        setting
        for setting in list_settings(session.settings)
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
    plain_settings = to_shown(_replace_paths(settings))
    assert isinstance(plain_settings, dict)  # noqa: S101 - a dataclass becomes an object
    plain_settings["database_url"] = without_password(settings.database_url)
    for sink in plain_settings["alerts"]["sinks"]:  # type: ignore[index, call-overload, union-attr]  # plain data
        sink["url"] = HIDDEN if sink["url"] else ""  # type: ignore[index, call-overload]  # plain data
    for provider in settings.providers.values():
        hidden: Plain = dict.fromkeys(provider.extra_headers, HIDDEN)
        plain_settings["providers"][provider.name]["extra_headers"] = hidden  # type: ignore[index, call-overload]  # plain data
    return plain_settings


def _replace_paths(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _replace_paths(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, Enum | type):
        fields = dataclasses.fields(value)
        return {field.name: _replace_paths(getattr(value, field.name)) for field in fields}
    return value
