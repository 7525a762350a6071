"""The configuration file: one YAML file, parsed once into frozen dataclasses.

Order, later wins: the shipped defaults, the user's file, the environment. An unknown key or a
wrong value is a ConfigError with file, line, field and, for a key, the nearest right one.
"""

from collections.abc import Mapping
from pathlib import Path

from harness.config import settings, source_locations
from harness.config.model import FILE_NAME, Settings
from harness.config.schema import json_schema, whole_file
from harness.config.source_locations import Document, merge_documents, parse_file


def load_settings(file: Path | None, environ: Mapping[str, str], *, defaults: Path) -> Settings:
    """Loads the settings; without a file the shipped defaults. Raises ConfigError."""
    document = read_document(file, environ, defaults=defaults)
    base = file.resolve().parent if file is not None else Path.cwd()
    return settings.build_settings(document, base=base, shipped=defaults.parent, source=file)


def read_document(file: Path | None, environ: Mapping[str, str], *, defaults: Path) -> Document:
    """Reads defaults, file and environment into one document. Raises ConfigError."""
    document = parse_file(defaults)
    if file is not None:
        document = merge_documents(document, parse_file(file))
    return merge_documents(document, source_locations.environment_document(environ))


__all__ = [
    "FILE_NAME",
    "Document",
    "json_schema",
    "load_settings",
    "read_document",
    "whole_file",
]
