"""Writes suites into the configuration file, and keeps its comments.

This module edits text, because a YAML library would drop comments and order. It does not change
a form that it cannot edit safely. In that case, the caller shows the entry to the person.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Final

from evals.suites.suite_import import ImportedSuite, write_value
from harness.app.configuration import configuration
from harness.frame import package_data
from harness.frame.configuration.source_locations import parse_text
from harness.frame.errors import ConfigError

_SUITES_LINE = re.compile(r"(?m)^suites:[ \t]*(?:\{[ \t]*\}[ \t]*)?(?P<comment>#.*)?$")
# An entry of a YAML mapping: its lines, and blank lines and comments between them.
_ENTRY_PATTERN: Final = (
    r"(?P<indent> +)(['\"]?){name}\2[ \t]*:.*"
    r"(?:\n(?:[ \t]*(?:#.*)?\n)*(?P=indent)[ \t]+.*)*\n?"
)


def format_suite_entry(name: str, settings: Mapping[str, object]) -> str:
    """Formats a suite's entry as YAML, indented by two spaces, with values in JSON."""
    lines = [f"  {name}:"]
    lines += [f"    {key}: {write_value(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def write_suites(file: Path, suites: Sequence[ImportedSuite]) -> bool:
    """Writes the suites into the configuration file: in place of their old entries, else after
    `suites:` or at the file's end. Keeps other comments. Returns whether it wrote them.

    Raises ConfigError, without a change, if the file would become invalid.
    """
    text = file.read_text(encoding="utf-8")
    new_entries = ""
    for suite in suites:
        entry = format_suite_entry(suite.suite, suite.settings)
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
    if new_entries and (suites_line := _SUITES_LINE.search(text)):
        head = f"suites: {suites_line['comment'] or ''}".rstrip()
        text_before = text[: suites_line.start()]
        text = f"{text_before}{head}\n{new_entries.rstrip()}{text[suites_line.end() :]}"
    elif new_entries and re.search(r"(?m)^suites\b", text):
        return False  # for example `suites: {name: {…}}` on one line
    elif new_entries:
        text = text.rstrip("\n") + "\n\nsuites:\n" + new_entries
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(file.stat().st_mode)
        configuration.load_settings(
            new,
            os.environ,
            defaults=package_data.path("config/default.yaml"),
        )
        new.replace(file)
    except ConfigError as error:
        raise ConfigError(
            f"{file} would not be valid with {suites[0].data} as a suite: {error}"
        ) from None
    finally:
        new.unlink(missing_ok=True)
    return True
