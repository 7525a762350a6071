"""Imports another gateway's configuration: reads its file, converts it, checks the result by
loading it, and writes it as Swapgate's. No key in clear is copied.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from harness import config, package_data
from harness.app.installation import config_file, read_dotenv
from harness.config.source_locations import parse_file
from harness.domain.adoption.conversion import Conversion, SourceConfig
from harness.domain.adoption.litellm import convert_litellm
from harness.domain.errors import ConfigError

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
    conversion = convert_file(source, os.environ)
    head = _HEAD.format(format=format_name, name=source.name)
    body = yaml.safe_dump(
        dict(conversion.config), sort_keys=False, allow_unicode=True, width=96
    )
    _write_checked(file, head + body)
    return ConfigImport(format_name, str(source), str(file), conversion)


def convert_file(source: Path, environ: Mapping[str, str]) -> Conversion:
    """Converts LiteLLM's file and writes nothing. Raises ConfigError for one that cannot be
    read.
    """
    document = parse_file(source)
    return convert_litellm(SourceConfig(document.values, document.places, environ))


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
