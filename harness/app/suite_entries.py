"""Writes suites into the configuration file, and keeps its comments.

It edits text, because a YAML library would drop comments and order. A form that it cannot edit
safely stays unchanged, and the caller shows the entry to the person instead.
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

_SUITES = re.compile(r"(?m)^suites:[ \t]*(?:\{[ \t]*\}[ \t]*)?(?P<comment>#.*)?$")
# An entry of a YAML mapping: its lines, and blank lines and comments between them.
_ENTRY: Final = (
    r"(?P<indent> +)(['\"]?){name}\2[ \t]*:.*"
    r"(?:\n(?:[ \t]*(?:#.*)?\n)*(?P=indent)[ \t]+.*)*\n?"
)


def suite_entry(name: str, settings: Mapping[str, object]) -> str:
    """Formats a suite's entry as YAML, indented by two spaces, with values in JSON."""
    lines = [f"  {name}:"]
    lines += [f"    {key}: {write_value(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def write_to_config(file: Path, suites: Sequence[ImportedSuite]) -> bool:
    """Writes the suites into the configuration file: in place of their old entries, else after
    `suites:` or at the file's end. Keeps other comments. Returns whether it wrote them.

    Raises ConfigError, without a change, if the file would become invalid.
    """
    after = file.read_text(encoding="utf-8")
    added = ""
    for suite in suites:
        entry = suite_entry(suite.suite, suite.settings)
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
    if added and (found := _SUITES.search(after)):
        head = f"suites: {found['comment'] or ''}".rstrip()
        after = f"{after[: found.start()]}{head}\n{added.rstrip()}{after[found.end() :]}"
    elif added and re.search(r"(?m)^suites\b", after):
        return False  # for example `suites: {name: {…}}` on one line
    elif added:
        after = after.rstrip("\n") + "\n\nsuites:\n" + added
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(after, encoding="utf-8")
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
