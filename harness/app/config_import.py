"""Imports another gateway's configuration: reads its file, converts it, and writes it as
Swapgate's, if that loads. No key in clear is copied.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from harness import config, package_data
from harness.app.installation import config_file, read_dotenv
from harness.config.source_locations import parse_file
from harness.domain.config_conversion import Conversion, SourceConfig
from harness.domain.errors import ConfigError
from harness.domain.litellm_import import convert_litellm

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
    read_dotenv(source.resolve().parent)
    conversion = convert_file(source, os.environ)
    head = _HEAD.format(format=format_name, name=source.name)
    _write(file, head + yaml.safe_dump(dict(conversion.config), sort_keys=False, width=96))
    return ConfigImport(format_name, str(source), str(file), conversion)


def convert_file(source: Path, environ: Mapping[str, str]) -> Conversion:
    """Converts LiteLLM's file and writes nothing. Raises ConfigError for one that cannot be
    read.
    """
    document = parse_file(source)
    return convert_litellm(SourceConfig(document.values, document.places, environ))


def _write(file: Path, text: str) -> None:
    """Writes a configuration that loads; removes one that does not."""
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
        defaults = package_data.path("config/default.yaml")
        config.load_settings(file, os.environ, defaults=defaults)
    except FileExistsError:
        text = f"{file} is there already, and is left as it is: move it away, or use --config"
        raise ConfigError(text) from None
    except OSError as error:
        text = f"cannot write {file} ({error.strerror}): run `swapgate init` in another folder"
        raise ConfigError(text) from None
    except ConfigError as error:
        file.unlink()
        text = f"what was converted does not load, and was not written: {error}"
        raise ConfigError(text) from None
