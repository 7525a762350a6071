"""Writes entries into the configuration file, and keeps its comments.

It edits text, because a YAML library would drop comments and order. A form that it cannot edit
safely stays unchanged, and the caller shows the entry to the person instead.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from harness.app.configuration import configuration
from harness.frame import package_data
from harness.frame.configuration.core_yaml import write_value
from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import ConfigError


def format_entry(name: str, settings: Mapping[str, object]) -> str:
    """Formats an entry of a section as YAML, indented by two spaces, with values in JSON."""
    lines = [f"  {name}:"]
    lines += [f"    {key}: {write_value(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def add_to_section(text: str, section: str, entries: str) -> str | None:
    """Adds entries after `section:`, or with a new section at the end of the file's text.

    Returns None for a section in another form, such as `providers: {name: {…}}`.
    """
    head = rf"(?m)^{section}:[ \t]*(?:\{{[ \t]*\}}[ \t]*)?(?P<comment>#.*)?$"
    if section_line := re.search(head, text):
        line = f"{section}: {section_line['comment'] or ''}".rstrip()
        before = text[: section_line.start()]
        after = text[section_line.end() :]
        return f"{before}{line}\n{entries.rstrip()}{after}"
    if re.search(rf"(?m)^{section}\b", text):
        return None
    return text.rstrip("\n") + f"\n\n{section}:\n{entries}"


def add_entries(
    file: Path,
    entries_by_section: Mapping[str, Mapping[str, Mapping[str, object]]],
) -> bool:
    """Adds entries to sections of the configuration file. Keeps entries that the file has.

    Args:
        entries_by_section: the entries' settings by name, by section.

    Returns False, without a change, if a section has a form that Swapproof cannot edit. Raises
    ConfigError as `replace_config`.
    """
    text = file.read_text(encoding="utf-8")
    places = parse_file(file).places
    for section, entries in entries_by_section.items():
        new_entries = [
            format_entry(name, settings)
            for name, settings in entries.items()
            if (section, name) not in places
        ]
        if not new_entries:
            continue
        extended = add_to_section(text, section, "".join(new_entries))
        if extended is None:
            return False
        text = extended
    replace_config(file, text)
    return True


def replace_config(file: Path, text: str) -> None:
    """Replaces the configuration file's text at once. Raises ConfigError, without a change, if
    the file would be invalid or cannot be written.
    """
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
    except OSError as error:
        raise ConfigError(f"cannot write {file} ({error.strerror})") from None
    finally:
        new.unlink(missing_ok=True)
