"""Parses the configuration file, one YAML file, into frozen dataclasses.

The user's file overrides the shipped defaults; the environment overrides both. An unknown key
or a wrong value raises a ConfigError with file, line, field and the nearest known key.
"""

from collections.abc import Mapping
from pathlib import Path

from harness.config import settings, source_locations
from harness.config.model import FILE_NAME, Settings
from harness.config.schema import json_schema, whole_file
from harness.config.source_locations import Document, merge_documents, parse_file


def load_settings(file: Path | None, environ: Mapping[str, str], *, defaults: Path) -> Settings:
    """Loads the settings. file: None for the shipped defaults. Raises ConfigError."""
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
