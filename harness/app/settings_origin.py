"""Lists the current settings with their origin, without secrets."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harness.app.database import HIDDEN, without_password
from harness.config import configuration
from harness.config.model import Settings
from harness.config.source_locations import Document, KeyPath
from harness.frame import package_data
from harness.frame.plain_data import Plain, to_shown
from harness.frame.redaction import find_keys

# Values of these keys, in any section and case, may contain a secret.
SECRET_KEYS: Final = re.compile(
    r"(^|[_-])(secret|passwords?|passwd|api[_-]?key|apikey|(?<!first_)token|authorization"
    r"|credentials?)$"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
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
    value: str  # in the form of the file; hidden if it may be a secret
    source: SettingSource
    place: str  # `swapgate.yaml:12`, or the environment variable; empty for a default
    meaning: str  # its description; empty without one

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]


def list_settings(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> Sequence[Setting]:
    """Lists all settings with their current values. Raises ConfigError."""
    shipped = package_data.path("config/default.yaml")
    document = configuration.read_document(settings.source, environ, defaults=shipped)
    schema = configuration.json_schema()
    return [
        Setting(
            name=".".join(map(str, path)),
            value=_shown(path, value),
            source=source,
            place=place,
            meaning=_meaning(schema, path),
        )
        for path, value in _leaves((), to_shown(configuration.whole_file(document)))
        for source, place in [_origin(document, path, shipped)]
    ]


def _leaves(path: KeyPath, value: Plain) -> Iterator[tuple[KeyPath, Plain]]:
    if path and path[-1] == HIDDEN_GROUP and value:
        yield path, HIDDEN
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves((*path, name), inner)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _leaves((*path, number), item)
    else:
        yield path, value


def _origin(document: Document, path: KeyPath, shipped: Path) -> tuple[SettingSource, str]:
    place = document.places.get(path, "")
    if not place or place.startswith(f"{shipped}:"):
        return SettingSource.DEFAULT, ""
    if place.startswith("environment "):
        return SettingSource.ENVIRONMENT, place.removeprefix("environment variable ")
    file, _, line = place.rpartition(":")
    return SettingSource.FILE, f"{Path(file).name}:{line}"


def _shown(path: KeyPath, value: Plain) -> str:  # noqa: PLR0911 - one per kind of value
    key = str(path[-1])
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str() if not value:
            return "empty"
        case str() if SECRET_KEYS.search(_HUMP.sub("_", key).lower()) or _has_key(value):
            return HIDDEN
        case str() if key in SECRET_ADDRESSES and "://" in value:
            return _address(value)
        case str():
            return without_password(value) if "://" in value else value
        case dict() | list() if not value:
            return "none"
        case list():
            return ", ".join(_shown((*path, "item"), item) for item in value)
        case _:
            return str(value)


def _has_key(value: str) -> bool:
    return next(find_keys(value), None) is not None


def _address(url: str) -> str:
    """Returns only the host of a webhook's address, or the service of a chat's address
    (Apprise), because the rest may be a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}://{HIDDEN}"
    return f"{parts.scheme}://{parts.hostname or ''}/{HIDDEN}"


def _meaning(schema: Mapping[str, Any], path: KeyPath) -> str:
    place: Mapping[str, Any] = schema
    for part in path:
        place = _resolved(schema, place)
        if isinstance(part, int):
            place = place.get("items", {})
        else:
            extra = place.get("additionalProperties")
            inner = place.get("properties", {}).get(part, extra)
            place = inner if isinstance(inner, Mapping) else {}
    return str(place.get("description", ""))


def _resolved(schema: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any]:
    options = [place, *place.get("anyOf", ()), *place.get("allOf", ())]
    for option in options:
        name = str(option.get("$ref", ""))
        if name:
            found: Mapping[str, Any] = schema["$defs"][name.rpartition("/")[2]]
            return found
    objects = [option for option in options if "properties" in option or "items" in option]
    return objects[0] if objects else place
