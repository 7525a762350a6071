"""Writes suites into the configuration file, in place of their older entries."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Final

from evals.suites.suite_import import ImportedSuite
from harness.app.config_entries import add_to_section, format_entry, replace_config
from harness.frame.configuration.source_locations import parse_text
from harness.frame.errors import ConfigError

# An entry of a YAML mapping: its lines, and blank lines and comments between them.
_ENTRY_PATTERN: Final = (
    r"(?P<indent> +)(['\"]?){name}\2[ \t]*:.*"
    r"(?:\n(?:[ \t]*(?:#.*)?\n)*(?P=indent)[ \t]+.*)*\n?"
)


def write_suites(file: Path, suites: Sequence[ImportedSuite]) -> bool:
    """Writes the suites into the configuration file: in place of their old entries, else after
    `suites:` or at the file's end. Keeps other comments. Returns whether it wrote them.

    Raises ConfigError, without a change, if the file would become invalid.
    """
    text = file.read_text(encoding="utf-8")
    new_entries = ""
    for suite in suites:
        entry = format_entry(suite.suite, suite.settings)
        place = parse_text(text, file).places.get(("suites", suite.suite))
        if place is None:
            new_entries += entry
            continue
        lines_before = text.splitlines(keepends=True)[: int(place.rpartition(":")[2]) - 1]
        pattern = re.compile(_ENTRY_PATTERN.format(name=suite.suite))
        former_entry = pattern.match(text, len("".join(lines_before)))
        if former_entry is None:
            return False  # the entry has another form
        entry = indent(dedent(entry), former_entry["indent"])
        text = f"{text[: former_entry.start()]}{entry}{text[former_entry.end() :]}"
    if new_entries:
        extended = add_to_section(text, "suites", new_entries)
        if extended is None:
            return False
        text = extended
    try:
        replace_config(file, text)
    except ConfigError as error:
        raise ConfigError(
            f"{file} would not be valid with {suites[0].data} as a suite: {error}"
        ) from None
    return True
