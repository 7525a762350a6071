"""Adds a suite to the configuration, with the file's comments kept."""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from evals.scorers import SCORERS, find_scorer
from evals.scorers.assertions import ASSERTIONS, JUDGED_ASSERTIONS
from evals.suites import dataset_import, promptfoo_config
from evals.suites.suite_import import (
    ImportedSuite,
    import_data,
    import_items,
    import_labelled,
    withdraw_import,
    write_value,
)
from harness import config, package_data
from harness.app.installation import Installation, load_settings
from harness.config.source_locations import parse_file
from harness.domain.config_conversion import ConversionNote, SourceConfig
from harness.domain.errors import ConfigError, Conflict, InputError
from harness.domain.evals.text_files import decode_text
from harness.domain.operations.access import Actor, Role
from harness.domain.routing.target import Target
from harness.domain.settings import JudgeSettings, Settings, SuiteSettings
from harness.runtime import secret_files

__all__ = [
    "JUDGED_SCORERS",
    "UPLOAD_SCORERS",
    "SuiteUpload",
    "add_suite",
    "add_to_config",
    "import_dataset",
    "import_labelled",
    "import_promptfoo",
    "is_labelled_file",
    "lock_suites",
    "read_promptfoo",
    "suite_entry",
]

_SUITES = re.compile(r"(?m)^suites:[ \t]*(?:\{[ \t]*\}[ \t]*)?(?P<comment>#.*)?$")
MOST_BYTES: Final = 50 * 1024 * 1024
# What a suite is uploaded with: each scorer with the options that it takes and their defaults.
UPLOAD_SCORERS: Final[Mapping[str, Mapping[str, object]]] = {
    name: scorer.defaults for name, scorer in SCORERS.items()
}
JUDGED_SCORERS: Final = frozenset(name for name, scorer in SCORERS.items() if scorer.judged)
LOCK_WAIT_S: Final = 30.0
LOCK_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SuiteUpload:
    name: str
    file_name: str  # its end says how it is read
    content: bytes = field(repr=False)
    scorer: str = "exact"
    title: str = ""
    scorer_options: Mapping[str, object] = field(default_factory=dict)
    judge: str = ""  # provider/model, for JUDGED_SCORERS; empty for the others
    judge_max_cost_usd: float | None = None  # of a run; None for no limit

    def settings(self) -> SuiteSettings:
        """Returns the suite's settings. Raises InputError for a wrong judge."""
        judge = None
        if self.judge:
            judge = JudgeSettings(
                Target.from_name(self.judge), max_cost_usd=self.judge_max_cost_usd
            )
        return SuiteSettings(
            name=self.name,
            scorer=self.scorer,
            title=self.title,
            scorer_options=dict(self.scorer_options),
            judge=judge,
        )


def add_suite(installation: Installation, actor: Actor, upload: SuiteUpload) -> ImportedSuite:
    """Write an uploaded suite beside swapgate.yaml and into it. Processes that run know it at
    their next look (`ConfiguredSuites`).

    Labelled captures are recognised by their lines. Raises InputError as `file:line: …`,
    Conflict where there is such a suite, ConfigError where the file cannot take it, NotAllowed
    for anybody but an admin; then nothing has changed.
    """
    actor.require(Role.ADMIN)
    source = installation.settings.source
    if source is None:
        raise ConfigError("there is no swapgate.yaml to write the suite to: `swapgate init`")
    if len(upload.content) > MOST_BYTES:
        raise InputError(f"a data file has at most {MOST_BYTES // 1024**2} MB")
    find_scorer(upload.scorer)
    try:
        with lock_suites(installation.settings):
            # As the file is now: another upload may have ended since this process read it.
            if upload.name in load_settings(source).suites:
                raise Conflict(f"there is a suite {upload.name!r} already: take another name")
            return _add(installation, source, actor, upload)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or source}: {error.strerror}. Mend that, or use "
            "`swapgate suite import` where the configuration can be written"
        ) from None


@contextmanager
def lock_suites(settings: Settings) -> Iterator[None]:
    """Lets one at a time add suites. Raises Conflict where somebody else takes too long."""
    until = time.monotonic() + LOCK_WAIT_S
    with (secret_files.writable_home(settings) / "suites.lock").open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Conflict(
                        f"another suite has been under way for {LOCK_WAIT_S:g} s: look whether "
                        "it is there now, then add yours again"
                    ) from None
                time.sleep(LOCK_PAUSE_S)
        yield


def _add(
    installation: Installation, source: Path, actor: Actor, upload: SuiteUpload
) -> ImportedSuite:
    done = _write_data(installation, source, actor, upload)
    context = installation.context
    details = {"items": done.items, "sha256": done.sha256, "scorer": upload.scorer}
    configured = False
    try:
        with context.store.write() as tx:
            # First: no suite stands in the file that the audit log knows nothing of.
            tx.audit.append(actor, "suite.add", f"suite {upload.name}", details)
            _configure(source, done)
            configured = True
    finally:
        if not configured:
            withdraw_import(done)
    return done


def _write_data(
    installation: Installation, source: Path, actor: Actor, upload: SuiteUpload
) -> ImportedSuite:
    base = source.resolve().parent
    wished = upload.settings()
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
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"label", "messages", "provenance"} <= first.keys()


def _configure(source: Path, done: ImportedSuite) -> None:
    if not add_to_config(source, suite_entry(done.suite, done.settings), done.data):
        raise ConfigError(
            f"{source} has `suites:` in a form of its own: write the suite into it by hand"
        )


@dataclass(frozen=True, slots=True)
class ConvertedImport:
    suites: Sequence[ImportedSuite]
    notes: Sequence[ConversionNote]  # a line for each key of the other tool's file
    configured: bool  # whether they stand in swapgate.yaml


def read_promptfoo(file: Path) -> SourceConfig | None:
    """Reads promptfoo's configuration; None for another file. Raises InputError for a
    file that looks like one and cannot be read.
    """
    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        return None
    try:
        document = parse_file(file)
    except ConfigError as error:
        if file.suffix.lower() == ".json":
            return None
        raise InputError(str(error)) from None
    if not promptfoo_config.is_promptfoo(document.values):
        return None
    return SourceConfig(document.values, document.places)


def import_promptfoo(
    file: Path,
    source: SourceConfig,
    wished: SuiteSettings,
    *,
    config_file: Path,
    replace_: bool,
) -> ConvertedImport:
    """Writes a suite for each prompt of promptfoo's configuration, and all of them into the
    configuration. wished: name and judge. Raises InputError, Conflict, ConfigError; then
    nothing has changed.
    """

    def read(name: str) -> str:
        path = file.parent / name
        try:
            return decode_text(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    found = promptfoo_config.convert(source, read, judged=wished.judge is not None)
    title = str(source.value(("description",)) or "promptfoo")
    several = len(found) > 1
    wanted = [
        (
            replace(
                wished,
                name=f"{wished.name}-{number}" if several else wished.name,
                title=f"{title}, prompt {number}" if several else title,
                scorer=(JUDGED_ASSERTIONS if suite.judged else ASSERTIONS).name,
                judge=wished.judge if suite.judged else None,
            ),
            suite.items,
        )
        for number, suite in enumerate(found, start=1)
    ]
    done, configured = _import_configured(wanted, config_file, replace_=replace_)
    return ConvertedImport(done, [*source.notes()], configured)


def import_dataset(
    file: Path, wished: SuiteSettings, *, config_file: Path, replace_: bool
) -> ConvertedImport:
    """Writes another tool's data set as a suite, and into the configuration. Raises as
    `import_promptfoo`.
    """
    read = dataset_import.read_dataset(file)
    found = [(replace(wished, title=read.tool or file.name), read.items)]
    done, configured = _import_configured(found, config_file, replace_=replace_)
    return ConvertedImport(done, read.notes, configured)


def _import_configured(
    wanted: Sequence[tuple[SuiteSettings, Sequence[Mapping[str, Any]]]],
    config_file: Path,
    *,
    replace_: bool,
) -> tuple[Sequence[ImportedSuite], bool]:
    """Writes suites, and those that are new into the configuration. Returns them, and whether
    they stand there. Raises Conflict for a name that is taken.
    """
    known = load_settings(config_file).suites
    there = sorted(settings.name for settings, _ in wanted if settings.name in known)
    if there and not replace_:
        raise Conflict(
            f"there is a suite {there[0]!r} already: take another name, or --replace"
        )
    configured = True

    def configure(done: Sequence[ImportedSuite]) -> None:
        nonlocal configured
        new = [one for one in done if one.suite not in there]
        if new:
            entries = "".join(suite_entry(one.suite, one.settings) for one in new)
            configured = add_to_config(config_file, entries, new[0].data)

    base = config_file.resolve().parent
    done = import_items(wanted, base=base, replace_=replace_, configure=configure)
    return done, configured


def is_labelled_file(file: Path) -> bool:
    """Tells whether a file is what `swapgate capture export` wrote."""
    with file.open("rb") as opened:
        return _is_labelled(opened.readline())


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
            f"{file} would not be valid with {data} as a suite: {error}"
        ) from None
    finally:
        new.unlink(missing_ok=True)
    return True
