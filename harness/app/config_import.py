"""Imports another gateway's configuration: reads its file, converts it, checks the result by
loading it, and writes it as Swapgate's. No key in clear is copied.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

import yaml

from harness import config, package_data
from harness.app.installation import config_file, read_dotenv
from harness.config.source_locations import Document, parse_text
from harness.domain.adoption.conversion import Conversion, SourceConfig
from harness.domain.adoption.litellm_config import convert_litellm
from harness.domain.errors import ConfigError

CONVERTERS: Final[Mapping[str, Callable[[SourceConfig], Conversion]]] = {
    "litellm": convert_litellm,
}
_HEAD: Final = """\
# yaml-language-server: $schema=swapgate.schema.json
# Made by `swapgate init --from {format}` from {name}. Its report says what was not taken over.
# Keys are in environment variables, or are set by `swapgate provider key set`. A route is
# created once from here; from then on the database rules, and proposals swap its model.
"""


@dataclass(frozen=True, slots=True)
class ConfigImport:
    """Says what was written where, and what became of each key of the other file."""

    format: str
    source: str
    config: str
    conversion: Conversion


def import_config(format_name: str, source: Path, given: Path | None) -> ConfigImport:
    """Writes the configuration of this folder, or the given file, from another gateway's.

    Raises ConfigError for a source that cannot be read, and where there is a configuration
    already.
    """
    file = config_file(given, os.environ) or Path.cwd() / config.FILE_NAME
    if file.exists():
        raise ConfigError(
            f"{file} is there already, and is left as it is: move it away, or name another by "
            "--config"
        )
    read_dotenv(source.resolve().parent)
    conversion = convert_file(format_name, source, os.environ)
    head = _HEAD.format(format=format_name, name=source.name)
    body = yaml.safe_dump(
        dict(conversion.config), sort_keys=False, allow_unicode=True, width=96
    )
    _write_checked(file, head + body)
    return ConfigImport(format_name, str(source), str(file), conversion)


def convert_file(format_name: str, source: Path, environ: Mapping[str, str]) -> Conversion:
    """Converts a file and writes nothing. Raises ConfigError for one that cannot be read."""
    document = _read_document(source)
    if format_name == "litellm":
        document = _read_included(document, source)
    return CONVERTERS[format_name](
        SourceConfig(source.stem, document.values, document.places, environ)
    )


def _read_document(source: Path) -> Document:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{source}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from None
    # JSON is YAML, but for the tabs that may indent it.
    plain = text.replace("\t", "  ") if text.lstrip().startswith("{") else text
    return parse_text(plain, source)


def _read_included(document: Document, source: Path) -> Document:
    """Merges the files that LiteLLM's `include` names, in its order: each is sought beside
    the file that names it, else beside the first one, and is read once.
    """
    loaded = {source.resolve()}
    waiting = [(name, source) for name in _included_names(document, source)]
    while waiting:
        name, declared_in = waiting.pop(0)
        places = (declared_in.parent / name, source.parent / name)
        file = next((place for place in places if place.exists()), places[0])
        if file.resolve() in loaded:
            continue
        loaded.add(file.resolve())
        included = _read_document(file)
        waiting += [(further, file) for further in _included_names(included, file)]
        document = _extend_document(document, included)
    return document


def _included_names(document: Document, source: Path) -> list[str]:
    names = document.values.get("include", [])
    if not isinstance(names, list) or not all(map(_is_file_name, names)):
        place = document.places.get(("include",), f"{source}:1")
        raise ConfigError(f"{place}: include: give a list of file names, as LiteLLM needs it")
    return names


def _is_file_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and "\0" not in name


def _extend_document(document: Document, included: Document) -> Document:
    """An included file's lists are appended; any other value of it replaces the one before."""
    values, places = dict(document.values), dict(document.places)
    for key, value in included.values.items():
        old = values.get(key)
        shift = 0
        if isinstance(old, list) and isinstance(value, list):
            shift = len(old)
            values[key] = [*old, *value]
        else:
            values[key] = value
            places = {path: place for path, place in places.items() if path[:1] != (key,)}
        for path, place in included.places.items():
            match path:
                case (first, int(index), *rest) if first == key:
                    places[key, index + shift, *rest] = place
                case (first, *_) if first == key:
                    places.setdefault(path, place)
    return Document(values, places)


def _write_checked(file: Path, text: str) -> None:
    """Writes what the real loader takes; nothing is left of what it does not."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=".swapgate-", suffix=".yaml", delete=False
        ) as draft:
            draft.write(text)
    except OSError as error:
        raise ConfigError(
            f"cannot write {file} ({error.strerror}): run `swapgate init` in a folder of yours"
        ) from None
    try:
        defaults = package_data.path("config/default.yaml")
        config.load_settings(Path(draft.name), os.environ, defaults=defaults)
        # Not a rename: a file that another command wrote meanwhile is kept.
        os.link(draft.name, file)
    except FileExistsError:
        raise ConfigError(f"{file} is there already, and is left as it is") from None
    except ConfigError as error:
        raise ConfigError(
            f"what was converted does not load, and was not written: {error}"
        ) from None
    finally:
        with suppress(OSError):
            Path(draft.name).unlink()
