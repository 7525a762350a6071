"""Creates suites from a file: promptfoo's configuration, labelled captures or a data set, which
its content distinguishes. Adds the suites to the configuration, and keeps its comments. Turns
logged requests into a file to label.

`evals.suites` reads the formats. This module connects them to the file, the lock and the audit
log. A failed import leaves neither the suite's file nor its entry.
"""

import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from evals.scorers import SCORERS, find_scorer
from evals.scorers.assertions import ASSERTIONS, JUDGED_ASSERTIONS
from evals.suites import dataset_import, hosted, openai_evals, promptfoo
from evals.suites.source_formats import CAPTURES, REQUESTS, check_source
from evals.suites.source_records import SourceFile, read_source
from evals.suites.suite import load_suite
from evals.suites.suite_import import (
    FOLDER,
    ImportedSuite,
    SuiteItems,
    converted,
    import_suites,
    read_labelled,
    with_slices,
    writing,
)
from harness.app import secret_files
from harness.app.capture_import import RequestsToLabel, export_requests
from harness.app.configuration.model import Settings
from harness.app.installation import Installation, load_settings
from harness.app.suite_entries import write_suites
from harness.evals.settings import SuiteSettings
from harness.frame.configuration.config_conversion import (
    ConversionNote,
    NothingTaken,
    SourceConfig,
)
from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import ConfigError, Conflict, InputError
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.frame.text_files import decode_text
from harness.gate.suite_plan import TRAFFIC_SCORER

MAX_UPLOAD_BYTES: Final = 50 * 1024 * 1024
UPLOAD_SUFFIXES: Final = (".jsonl", ".csv")
# The scorers for uploaded suites, each with its options and their defaults.
# Only a draw makes a suite of traffic.
UPLOAD_SCORERS: Final[Mapping[str, Mapping[str, object]]] = {
    name: scorer.defaults for name, scorer in SCORERS.items() if name != TRAFFIC_SCORER
}
JUDGED_SCORERS: Final = frozenset(name for name, scorer in SCORERS.items() if scorer.judged)
LOCK_WAIT_S: Final = 30.0
LOCK_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SuiteImport:
    """The result of an import. configured: False if a person must add the entries by hand."""

    suites: Sequence[ImportedSuite]
    notes: Sequence[ConversionNote]  # one for each key of another tool's file
    configured: bool  # whether swapproof.yaml contains the suites
    replaced: Sequence[str] = ()  # names of suites that existed
    to_label: RequestsToLabel | None = None  # for logged requests, which become no suite


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """Says how to read a source.

    format: one of SUITE_SOURCES; empty to recognise it by content.
    human_score: the score that gives labels. route: the route of logged requests.
    items: files with the runs and items of an OpenAI eval.
    """

    format: str = ""
    human_score: str = ""
    route: str = ""
    items: tuple[Path, ...] = ()


def import_source(
    installation: Installation,
    actor: Actor,
    source: str,
    suite_settings: SuiteSettings,
    choice: SourceChoice,
    *,
    replace_: bool = False,
) -> SuiteImport:
    """Imports a file, or a data set such as `langfuse://NAME` by its tool's SDK.

    Raises as `import_file`. The messages name the address, not a temporary file.
    """
    if "://" not in source:
        return import_file(
            installation,
            actor,
            Path(source),
            suite_settings,
            choice=choice,
            replace_=replace_,
        )
    tool = hosted.tool_of(source)
    if choice.format not in ("", tool):
        raise InputError(f"{source} is a data set of {tool}: omit --from {choice.format}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "data.jsonl"
        file.write_bytes(hosted.fetch(source))
        titled_settings = replace(suite_settings, title=suite_settings.title or source)
        choice = replace(choice, format=tool)
        try:
            result = import_file(
                installation,
                actor,
                file,
                titled_settings,
                choice=choice,
                replace_=replace_,
            )
        except NothingTaken as error:
            raise NothingTaken(str(error).replace(str(file), source), error.notes) from None
        except InputError as error:
            raise InputError(str(error).replace(str(file), source)) from None
    return replace(result, notes=[replace(note, place=source) for note in result.notes])


def add_suite(
    installation: Installation,
    actor: Actor,
    suite_settings: SuiteSettings,
    file_name: str,
    content: bytes,
) -> ImportedSuite:
    """Writes an uploaded suite's file beside swapproof.yaml, and adds the suite to
    swapproof.yaml. Running processes find it when they next read the file (`ConfiguredSuites`).

    Args:
        suite_settings: without a path.
        file_name: its suffix determines the format.

    Raises, without a change, InputError as `file:line: …`, Conflict for an existing suite,
    ConfigError if swapproof.yaml cannot contain it, and NotAllowed unless the actor is an
    admin.
    """
    actor.require(Role.ADMIN)
    if len(content) > MAX_UPLOAD_BYTES:
        raise InputError(f"a data file has at most {MAX_UPLOAD_BYTES // 1024**2} MB")
    suffix = Path(file_name).suffix.lower()
    if suffix not in UPLOAD_SUFFIXES:
        raise InputError(
            f"a data file ends in {' or '.join(UPLOAD_SUFFIXES)}, not in {suffix!r}"
        )
    find_scorer(suite_settings.scorer)
    try:
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"data{suffix}"
            file.write_bytes(content)
            try:
                result = import_file(installation, actor, file, suite_settings, uploaded=True)
            except InputError as error:
                raise InputError(str(error).replace(str(file), Path(file_name).name)) from None
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}. Fix this, or use `swapproof suite import` "
            "where the configuration is writable"
        ) from None
    return result.suites[0]


def import_file(
    installation: Installation,
    actor: Actor,
    file: Path,
    suite_settings: SuiteSettings,
    *,
    choice: SourceChoice = SourceChoice(),
    replace_: bool = False,
    uploaded: bool = False,
) -> SuiteImport:
    """Writes a file's suites beside swapproof.yaml, and their settings into swapproof.yaml.

    Args:
        suite_settings: without a path, and with a judge for scorers that need a judge.
        uploaded: requires that each item and swapproof.yaml accept the suite, and logs the
            upload.

    Raises, without a change, InputError, Conflict for an existing name, ConfigError.
    """
    config_file = installation.settings.source
    if config_file is None:
        raise ConfigError("there is no swapproof.yaml to write the suite to: `swapproof init`")
    # Reads uploads as data only, because `file://` in promptfoo's configuration would read
    # files of this machine.
    kind, source = ("", None) if uploaded else _open_source(file, choice.format)
    if kind in REQUESTS and isinstance(source, SourceFile):
        to_label, notes = export_requests(
            installation,
            source,
            kind,
            suite=suite_settings.name,
            route=choice.route,
        )
        return SuiteImport(
            (),
            notes,
            configured=False,
            to_label=to_label,
        )
    suites, notes = _read_items(
        file,
        kind,
        source,
        suite_settings,
        choice,
    )

    def audit(imported: Sequence[ImportedSuite]) -> AbstractContextManager[None]:
        if not uploaded:
            return nullcontext()
        return _record_addition(installation, actor, imported[0], suite_settings)

    try:
        added = add_suites(
            installation,
            actor,
            suites,
            replace_=replace_,
            audit=audit,
            must_configure=uploaded,
        )
    except InputError as error:
        # The written file is gone, so the message names the source.
        folder = re.escape(f"{config_file.resolve().parent / FOLDER}")
        written_place = folder + r"/[\w-]+\.\w+(:\d+)?"
        raise InputError(re.sub(written_place, lambda _: str(file), str(error))) from None
    return replace(added, notes=notes)


def add_suites(
    installation: Installation,
    actor: Actor,
    suites: Sequence[SuiteItems],
    *,
    replace_: bool = False,
    audit: Callable[[Sequence[ImportedSuite]], AbstractContextManager[None]],
    must_configure: bool = False,
) -> SuiteImport:
    """Writes suites beside swapproof.yaml, and their settings into swapproof.yaml.

    Args:
        audit: returns the context that records the addition in the audit log.
        must_configure: refuses a swapproof.yaml that Swapproof cannot extend.

    Raises, without a change, InputError, Conflict for an existing name, ConfigError.
    """
    config_file = installation.settings.source
    if config_file is None:
        raise ConfigError("there is no swapproof.yaml to write the suite to: `swapproof init`")
    configured = True
    with lock_suites(installation.settings):
        # Reads the file again, because another import may have changed it.
        configured_suites = load_settings(config_file).suites
        existing_names = [
            suite.settings.name for suite in suites if suite.settings.name in configured_suites
        ]
        if existing_names and not replace_:
            hint = "" if must_configure else ", or --replace"
            raise Conflict(
                f"there is already a suite {existing_names[0]!r}: use another name{hint}"
            )

        def configure(imported: Sequence[ImportedSuite]) -> None:
            nonlocal configured
            # Restores the configuration if the audit log is not writable.
            with writing(config_file, config_file.read_bytes()), audit(imported):
                configured = write_suites(config_file, imported)
                if must_configure and not configured:
                    raise ConfigError(
                        f"{config_file} has `suites:` in a form that Swapproof cannot extend: "
                        "write the suite into it by hand"
                    )

        imported = import_suites(
            suites,
            base=config_file.resolve().parent,
            actor=actor.name,
            now=installation.clock.now(),
            replace_=replace_,
            configure=configure,
        )
    return SuiteImport(imported, (), configured, replaced=existing_names)


@contextmanager
def _record_addition(
    installation: Installation,
    actor: Actor,
    imported: ImportedSuite,
    suite_settings: SuiteSettings,
) -> Iterator[None]:
    """Writes the audit event before the block, so that the file has no suite without
    an event.
    """
    details = {
        "items": imported.items,
        "sha256": imported.sha256,
        "scorer": suite_settings.scorer,
    }
    with installation.context.store.write() as tx:
        AuditLog(tx).append(actor, "suite.add", f"suite {imported.suite}", details)
        yield


def _open_source(file: Path, requested_format: str) -> tuple[str, SourceFile | SourceConfig]:
    """Returns the file's format and content. Raises InputError unless it is `wanted`."""
    if file.suffix.lower() in (".yaml", ".yml"):
        if requested_format not in ("", "promptfoo"):
            raise InputError(
                f"{file}: is YAML, as promptfoo's configuration is, and not "
                f"{requested_format}: omit --from, or give another file"
            )
        return "promptfoo", _read_promptfoo(file)
    source = read_source(file)
    kind = check_source(source, requested_format)
    return kind, _read_promptfoo(file) if kind == "promptfoo" else source


def _read_items(
    file: Path,
    kind: str,
    source: SourceFile | SourceConfig | None,
    suite_settings: SuiteSettings,
    choice: SourceChoice,
) -> tuple[Sequence[SuiteItems], Sequence[ConversionNote]]:
    """Reads the suites' items.

    Args:
        source: None for an upload, whose bytes become the suite's file.

    Raises InputError.
    """
    if isinstance(source, SourceConfig):
        suites, notes = _convert_promptfoo(
            file,
            source,
            suite_settings,
        )
        return with_slices(suites, notes, file)
    if source is not None and kind == "openai-evals" and openai_evals.is_eval(source):
        eval_suite, notes = _convert_openai_eval(source, suite_settings, choice.items)
        return with_slices([eval_suite], notes, file)
    if choice.items:
        raise InputError(f"{file}: has no OpenAI eval, which --items belongs to: omit --items")
    if suite_settings.scorer not in JUDGED_SCORERS:
        suite_settings = replace(suite_settings, judge=None)
    if kind == CAPTURES or (source is None and _is_labelled_capture(file)):
        return with_slices([read_labelled(file, suite_settings)], (), file)
    if source is None:
        load_suite(replace(suite_settings, path=file))  # so that errors name this file's lines
        return [SuiteItems(suite_settings, (), file=file)], ()
    dataset = dataset_import.read_dataset(
        source, kind, human_score=choice.human_score, scorer=suite_settings.scorer
    )
    titled_settings = replace(
        suite_settings, title=suite_settings.title or dataset.tool or file.name
    )
    origin = converted(dataset.tool or file.name, dataset.left_out)
    items = SuiteItems(titled_settings, dataset.items, dataset.unlabelled, origin)
    return with_slices([items], dataset.notes, file)


@contextmanager
def lock_suites(settings: Settings) -> Iterator[None]:
    """Lets only one process at a time add suites. Raises Conflict if another process takes
    longer than LOCK_WAIT_S.
    """
    until = time.monotonic() + LOCK_WAIT_S
    with (secret_files.writable_home(settings) / "suites.lock").open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Conflict(
                        f"another import has been running for {LOCK_WAIT_S:g} s: check whether "
                        "it has ended, then add the suite again"
                    ) from None
                time.sleep(LOCK_PAUSE_S)
        yield


def _is_labelled_capture(file: Path) -> bool:
    """Returns whether the file's first line is a labelled capture."""
    with file.open("rb") as lines:
        try:
            first = json.loads(lines.readline())
        except (ValueError, RecursionError):
            return False
    return isinstance(first, dict) and {"label", "messages", "provenance"} <= first.keys()


def _read_promptfoo(file: Path) -> SourceConfig:
    """Reads promptfoo's configuration. Raises InputError for an unreadable file, or another
    tool's file.
    """
    try:
        document = parse_file(file, core=True)
    except ConfigError as error:
        raise InputError(str(error)) from None
    if not promptfoo.is_promptfoo(document.values):
        raise InputError(
            f"{file}: is YAML without `prompts` and `tests`, so it is no promptfoo "
            "configuration; use .jsonl, .json or .csv for items"
        )
    return SourceConfig(document.values, document.places)


def _convert_openai_eval(
    source: SourceFile,
    suite_settings: SuiteSettings,
    item_files: Sequence[Path],
) -> tuple[SuiteItems, Sequence[ConversionNote]]:
    """Converts an OpenAI eval with the files that have its runs and items. Raises InputError
    for a file that it cannot read.
    """
    files = [source, *map(read_source, item_files)]
    converted_eval = openai_evals.convert(files, judged=suite_settings.judge is not None)
    judged = converted_eval.judged
    settings = replace(
        suite_settings,
        title=suite_settings.title or converted_eval.title,
        scorer=(JUDGED_ASSERTIONS if judged else ASSERTIONS).name,
        scorer_options={},
        judge=suite_settings.judge if judged else None,
    )
    origin = converted("an OpenAI eval", converted_eval.items_left, converted_eval.graders_left)
    return SuiteItems(settings, converted_eval.items, origin=origin), converted_eval.notes


def _convert_promptfoo(
    file: Path,
    source: SourceConfig,
    suite_settings: SuiteSettings,
) -> tuple[Sequence[SuiteItems], Sequence[ConversionNote]]:
    """Converts promptfoo's configuration, one suite for each prompt. Raises InputError for a
    file that it refers to and that cannot be read.
    """

    def read(name: str) -> str:
        path = file.parent / name
        try:
            return decode_text(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    converted_suites = promptfoo.convert(source, read, judged=suite_settings.judge is not None)
    title = suite_settings.title or str(source.value(("description",)) or "promptfoo")
    has_several = len(converted_suites) > 1
    suites = [
        SuiteItems(
            replace(
                suite_settings,
                name=f"{suite_settings.name}-{number}" if has_several else suite_settings.name,
                title=f"{title}, prompt {number}" if has_several else title,
                scorer=(JUDGED_ASSERTIONS if suite.judged else ASSERTIONS).name,
                scorer_options={},
                judge=suite_settings.judge if suite.judged else None,
            ),
            suite.items,
            origin=converted("promptfoo", suite.tests_left, suite.assertions_left),
        )
        for number, suite in enumerate(converted_suites, start=1)
    ]
    return suites, [*source.notes()]
