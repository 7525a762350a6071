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
_ENTRY: Final = (
    r"(?P<indent> +)(['\"]?){name}\2[ \t]*:.*"
    r"(?:\n(?:[ \t]*(?:#.*)?\n)*(?P=indent)[ \t]+.*)*\n?"
)


def write_to_config(file: Path, suites: Sequence[ImportedSuite]) -> bool:
    """Writes the suites into the configuration file: in place of their old entries, else after
    `suites:` or at the file's end. Keeps other comments. Returns whether it wrote them.

    Raises ConfigError, without a change, if the file would become invalid.
    """
    after = file.read_text(encoding="utf-8")
    added = ""
    for suite in suites:
        entry = format_entry(suite.suite, suite.settings)
        place = parse_text(after, file).places.get(("suites", suite.suite))
        if place is None:
            added += entry
            continue
        before = after.splitlines(keepends=True)[: int(place.rpartition(":")[2]) - 1]
        pattern = re.compile(_ENTRY.format(name=suite.suite))
        old = pattern.match(after, len("".join(before)))
        if old is None:
            return False  # the entry has another form
        entry = indent(dedent(entry), old["indent"])
        after = f"{after[: old.start()]}{entry}{after[old.end() :]}"
    if added:
        extended = add_to_section(after, "suites", added)
        if extended is None:
            return False
        after = extended
    try:
        replace_config(file, after)
    except ConfigError as error:
        raise ConfigError(
            f"{file} would not be valid with {suites[0].data} as a suite: {error}"
        ) from None
    return True
