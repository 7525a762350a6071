"""Adds a suite of labelled captures to the configuration: its entry as YAML (`suite_entry`),
written behind `suites:` with the file's comments kept (`add_to_config`). `import_labelled`,
which writes the suite's own files, is that of `evals`.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from evals.suites.suite_import import import_labelled
from harness import config, package_data
from harness.domain.errors import ConfigError

__all__ = ["add_to_config", "import_labelled", "suite_entry"]

_SUITES = re.compile(r"(?m)^suites:[ \t]*(?:\{[ \t]*\}[ \t]*)?(?P<comment>#.*)?$")


def suite_entry(name: str, settings: Mapping[str, object]) -> str:
    """Writes a suite's entry as YAML, indented by two spaces; JSON's values are YAML's."""
    lines = [f"  {name}:"]
    lines += [f"    {key}: {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def add_to_config(file: Path, entry: str, data: Path) -> bool:
    """Adds an entry to the configuration file, behind `suites:`, else at the file's end;
    comments stay. Returns whether it could.

    Raises ConfigError, and leaves the file as it was, where it would not be valid any more.
    """
    before = file.read_text(encoding="utf-8")
    if found := _SUITES.search(before):
        head = f"suites: {found['comment'] or ''}".rstrip()
        after = f"{before[: found.start()]}{head}\n{entry.rstrip()}{before[found.end() :]}"
    elif re.search(r"(?m)^suites\b", before):
        return False  # in a form of its own
    else:
        after = before.rstrip("\n") + "\n\nsuites:\n" + entry
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(after, encoding="utf-8")
        new.chmod(file.stat().st_mode)
        config.load_settings(new, os.environ, defaults=package_data.path("config/default.yaml"))
        new.replace(file)
    except ConfigError as error:
        raise ConfigError(
            f"{data} is written, but {file} would not be valid with it: {error}"
        ) from None
    finally:
        new.unlink(missing_ok=True)
    return True
