"""Adds a suite to the configuration: its entry as YAML (`suite_entry`), written behind
`suites:` with the file's comments kept (`add_to_config`).

`add_suite` does all of it for a file that somebody uploads: labelled captures, or questions and
answers. `import_labelled`, which writes the suite's own files, is that of `evals`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from evals.scorers import SCORERS
from evals.suites.suite_import import (
    ImportedSuite,
    import_data,
    import_labelled,
    write_value,
)
from harness import config, package_data
from harness.app.installation import Installation
from harness.control import audit
from harness.domain.errors import ConfigError, Conflict, InputError
from harness.domain.operations.access import Actor, Role
from harness.domain.settings import SuiteSettings

__all__ = [
    "UPLOAD_SCORERS",
    "SuiteUpload",
    "add_suite",
    "add_to_config",
    "import_labelled",
    "suite_entry",
]

_SUITES = re.compile(r"(?m)^suites:[ \t]*(?:\{[ \t]*\}[ \t]*)?(?P<comment>#.*)?$")
MOST_BYTES: Final = 50 * 1024 * 1024
# Those that need neither a judge nor options: the others are written into the file by hand.
UPLOAD_SCORERS: Final = ("exact", "numeric", "choice", "label", "json_fields")


@dataclass(frozen=True, slots=True)
class SuiteUpload:
    """Describes a suite that somebody uploads."""

    name: str
    file_name: str  # its end says how it is read
    content: bytes = field(repr=False)
    scorer: str = "exact"
    title: str = ""


def add_suite(installation: Installation, actor: Actor, upload: SuiteUpload) -> ImportedSuite:
    """Write an uploaded suite beside swapgate.yaml and into it. Processes that run know it
    after a restart.

    Labelled captures are recognised by their lines. Raises InputError as `file:line: …`,
    Conflict where there is such a suite, ConfigError where the file cannot take it, NotAllowed
    for anybody but an admin; then nothing has changed.
    """
    actor.require(Role.ADMIN)
    settings = installation.settings
    if settings.source is None:
        raise ConfigError("there is no swapgate.yaml to write the suite to: `swapgate init`")
    if upload.name in settings.suites:
        raise Conflict(f"there is a suite {upload.name!r} already: take another name")
    if len(upload.content) > MOST_BYTES:
        raise InputError(f"a data file has at most {MOST_BYTES // 1024**2} MB")
    if upload.scorer not in SCORERS or upload.scorer not in UPLOAD_SCORERS:
        raise InputError(f"a suite is uploaded with one of {', '.join(UPLOAD_SCORERS)}")
    try:
        done = _write_data(installation, settings.source, actor, upload)
        context = installation.context
        details = {"items": done.items, "sha256": done.sha256, "scorer": upload.scorer}
        configured = False
        try:
            with context.store.write() as tx:
                # First: no suite stands in the file that the audit log knows nothing of.
                audit.record(context, tx, actor, "suite.add", f"suite {upload.name}", details)
                _configure(settings.source, done)
                configured = True
        finally:
            if not configured:
                done.data.unlink()
    except OSError as error:
        raise ConfigError(
            f"{error.filename or settings.source}: {error.strerror}. Mend that, or use "
            "`swapgate suite import` where the configuration can be written"
        ) from None
    return done


def _write_data(
    installation: Installation, source: Path, actor: Actor, upload: SuiteUpload
) -> ImportedSuite:
    base = source.resolve().parent
    wished = SuiteSettings(name=upload.name, scorer=upload.scorer, title=upload.title)
    if not _is_labelled(upload.content):
        suffix = Path(upload.file_name).suffix.lower()
        return import_data(upload.content, suffix, wished, base=base)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "labelled.jsonl"
        file.write_bytes(upload.content)
        return import_labelled(
            file,
            wished,
            base=base,
            actor=actor.name,
            now=installation.clock.now(),
            replace_=False,
        )


def _is_labelled(content: bytes) -> bool:
    """Whether the first line is one of `swapgate capture export`."""
    try:
        first = json.loads(content.partition(b"\n")[0])
    except ValueError:
        return False
    return isinstance(first, dict) and {"label", "messages", "provenance"} <= first.keys()


def _configure(source: Path, done: ImportedSuite) -> None:
    if not add_to_config(source, suite_entry(done.suite, done.settings), done.data):
        raise ConfigError(
            f"{source} has `suites:` in a form of its own: write the suite into it by hand"
        )


def suite_entry(name: str, settings: Mapping[str, object]) -> str:
    """Writes a suite's entry as YAML, indented by two spaces; JSON's values are YAML's."""
    lines = [f"  {name}:"]
    lines += [f"    {key}: {write_value(value)}" for key, value in settings.items()]
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
