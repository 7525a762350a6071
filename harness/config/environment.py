"""Environment variables override the file: SWAPGATE__SECTION__KEY, and *_FILE for a value in a
file.

They become a `Document` like the file's, which is merged over it; each value's place is its
variable's name.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from harness.config.source_locations import Document, KeyPath, check_size
from harness.domain.errors import ConfigError

PREFIX = "SWAPGATE__"


def environment_document(environ: Mapping[str, str]) -> Document:
    """The document that the environment asks for. Values are read as YAML scalars.

    Raises ConfigError when a *_FILE cannot be read or a value is not YAML.
    """
    values: dict[str, object] = {}
    places: dict[KeyPath, str] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        text, plain = _text(name, environ[name])
        path = tuple(part.lower() for part in plain.removeprefix(PREFIX).split("__"))
        _put(values, path, _scalar(name, text))
        for end in range(1, len(path) + 1):
            places[path[:end]] = f"environment variable {name}"
    return Document(values, places)


def _text(name: str, value: str) -> tuple[str, str]:
    if not name.endswith("_FILE"):
        return value, name
    try:
        return Path(value).read_text(encoding="utf-8").strip(), name.removesuffix("_FILE")
    except OSError as error:
        raise ConfigError(
            f"environment variable {name}: cannot read {value}: {error}"
        ) from None


def _scalar(name: str, text: str) -> object:
    try:
        check_size(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment variable {name}: not a YAML value: {error}") from None


def _put(values: dict[str, object], path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"environment: {PREFIX}{'__'.join(path).upper()} contradicts another"
            )
        values = inner
    values[path[-1]] = value
