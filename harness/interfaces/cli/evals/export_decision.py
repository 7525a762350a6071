"""Recognises, reads and judges results of other eval tools, for `gate decide --from`. Swapproof
does not store these results, and proposals cannot use them.
"""

import json
import re
import shlex
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.evals.export_formats import (
    parse_braintrust,
    parse_deepeval,
    parse_langfuse,
    parse_promptfoo,
)
from harness.evals.file_gate.column_tables import is_column_table, parse_columns
from harness.evals.file_gate.lm_eval_files import WANTED as LM_EVAL_FILES
from harness.evals.file_gate.lm_eval_files import (
    add_totals,
    find_samples,
    parse_lm_eval,
    read_totals,
)
from harness.evals.file_gate.pair_files import parse_pairs
from harness.evals.file_gate.pair_judgement import (
    group_similar,
    judge_rows,
)
from harness.evals.file_gate.recognition import recognise_format
from harness.evals.file_gate.spreadsheets import is_spreadsheet, read_sheet
from harness.evals.file_gate.terms import FileTerms
from harness.evals.inspect_log import parse_inspect
from harness.evals.openai_evals import parse_openai_evals
from harness.evals.run_pairs import choose_metric, choose_run, pair_runs, turned_round
from harness.evals.run_statement import Acceptance, Direction
from harness.evals.scored_run import (
    AnswerMeans,
    ExportedPairs,
    GapCount,
    ScoredRun,
    as_mapping,
)
from harness.evals.table_formats import (
    parse_csv_scores,
    parse_langsmith,
)
from harness.frame.errors import InputError
from harness.frame.text_files import (
    MAX_BYTES,
    read_text,
)
from harness.interfaces.cli.evals.next_command import name_command


@dataclass(frozen=True, slots=True)
class ExportFormat:
    title: str  # the tool's name
    files: str  # description of its files
    parse: Callable[[str], list[ScoredRun]]
    metric: str = ""  # the default metric


EXPORT_FORMATS: Final[Mapping[str, ExportFormat]] = {
    "promptfoo": ExportFormat(
        "promptfoo",
        "`promptfoo eval --output results.json`",
        parse_promptfoo,
        "score",
    ),
    "braintrust": ExportFormat("Braintrust", "rows of an experiment, JSON", parse_braintrust),
    "langsmith": ExportFormat("LangSmith", "results of an experiment, CSV", parse_langsmith),
    "openai-evals": ExportFormat(
        "OpenAI evals",
        "a log of `oaieval`, or output items of a run",
        parse_openai_evals,
    ),
    "lm-eval": ExportFormat(
        "lm-evaluation-harness",
        LM_EVAL_FILES,
        parse_lm_eval,
        "acc",
    ),
    "inspect": ExportFormat("Inspect", "a log, `.eval` or `.json`", parse_inspect),
    "deepeval": ExportFormat("DeepEval", "`test_run_….json` of a test run", parse_deepeval),
    "langfuse": ExportFormat(
        "Langfuse",
        "an experiment's result, or traces with scores, JSON",
        parse_langfuse,
    ),
    "csv": ExportFormat(
        "table with a row for each answer",
        "a column of questions or ids, and a column of scores",
        parse_csv_scores,
        "score",
    ),
    "columns": ExportFormat(
        "table with a column for each model",
        "a row for each question, and a column of scores for each model",
        parse_columns,
        "score",
    ),
}


PAIRS: Final = "pairs"
_ROLES: Final = {"incumbent", "candidate"}  # names of runs that say which is which
_MAX_COMMANDS: Final = 8  # commands that a message shows
REPORT_ONLY = "a report only: it promotes nothing. For a proposal, Swapproof measures again"
_HEADER: Final = "header.json"
_SUMMARIES: Final = "summaries.json"
# The files of an Inspect archive whose run did not end.
_START: Final = "_journal/start.json"
_JOURNAL: Final = re.compile(r"_journal/summaries/(\d+)\.json")
# Errors of zipfile for an archive that is broken, encrypted or compressed in an unknown way.
_UNREADABLE = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    UnicodeDecodeError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class ExportChoice:
    """The user's choice of runs and metric. An empty field means the only run, or the default
    metric.
    """

    format: str
    incumbent: str = ""
    candidate: str = ""
    metric: str = ""
    acceptance: Acceptance = field(default_factory=Acceptance)


def judge_exports(
    export: ExportedPairs,
    choice: ExportChoice,
    terms: FileTerms,
) -> dict[str, object]:
    rows = export.pairs
    terms = replace(terms, cluster=export.cluster)
    count = len({row.groups for row in rows}) if export.cluster else len(rows)
    if terms.n_max is not None and count > terms.n_max:
        noun = "clusters" if export.cluster else "items"
        raise InputError(f"{count} {noun} are more than the planned {terms.n_max}")
    answer = judge_rows(rows, terms, export.file_score)
    incumbent_score = answer.pop("incumbent_score")
    candidate_score = answer.pop("candidate_score")
    return {
        "from": choice.format,
        "metric": export.metric,
        "direction": f"{export.direction} ({export.direction_source})",
        "incumbent": export.incumbent,
        "candidate": export.candidate,
        **answer,
        "items": len(rows),
        "epochs": max(len(row.incumbent) for row in rows),
        "incumbent_gaps": asdict(export.incumbent_gaps),
        "candidate_gaps": asdict(export.candidate_gaps),
        "incumbent_mean": {"score": incumbent_score, **asdict(export.incumbent_mean)},
        "candidate_mean": {"score": candidate_score, **asdict(export.candidate_mean)},
        **_describe_settings(export),
        **export.accepted,
        **({"notes": list(export.notes)} if export.notes else {}),
        "use": REPORT_ONLY,
    }


def _describe_settings(export: ExportedPairs) -> dict[str, object]:
    """Returns the digests of both models' request settings, if a file has one."""
    incumbent, candidate = export.settings
    if not (incumbent or candidate):
        return {}
    unknown = "the file does not tell"
    return {"asked": {"incumbent": incumbent or unknown, "candidate": candidate or unknown}}


def read_exports(files: Sequence[str], choice: ExportChoice) -> ExportedPairs:
    if len(files) > 2:
        raise InputError("give one file with both runs, or the incumbent's and the candidate's")
    files = locate_results(files)
    if choice.format == PAIRS:
        return _read_pairs(files[0], choice.acceptance)
    export_format = EXPORT_FORMATS[choice.format]
    runs = [parse_file(file, choice.format) for file in files]
    incumbent_runs = runs[0]
    candidate_runs = runs[-1]
    models = {run.model for run in incumbent_runs}
    if len(files) == 1 and models == _ROLES and not (choice.incumbent or choice.candidate):
        choice = replace(choice, incumbent="incumbent", candidate="candidate")
    if len(files) == 1 and not (choice.incumbent and choice.candidate):
        raise InputError(f"{files[0]}: {_describe_choice(files[0], incumbent_runs)}")
    incumbent = _choose_run(files[0], incumbent_runs, choice.incumbent, "--incumbent")
    candidate = _choose_run(files[-1], candidate_runs, choice.candidate, "--candidate")
    metric = choose_metric(incumbent, candidate, choice.metric, export_format.metric)
    try:
        return group_similar(pair_runs(incumbent, candidate, metric, choice.acceptance))
    except InputError as error:
        raise InputError(f"{' and '.join(dict.fromkeys(files))}: {error}") from None


def _describe_choice(file: str, runs: Sequence[ScoredRun]) -> str:
    """Describes how to choose two runs of a file; with two named runs or more, by a command."""
    models = [run.model for run in runs]
    names = ", ".join(map(repr, models))
    if len(models) < 2 or not all(models[:2]):
        return f"has one run, {names}: give two files, the incumbent's first"
    command = shlex.join(
        [*name_command(), file, "--incumbent", models[0], "--candidate", models[1]]
    )
    return (
        f"choose its runs with --incumbent and --candidate; it has {names}. For example: "
        f"`{command}`. Or give two files, the incumbent's first"
    )


def _read_pairs(file: str, acceptance: Acceptance) -> ExportedPairs:
    if acceptance.reasons:
        raise InputError(
            f"{file}: a file of pairs tells neither how the models were asked nor whether the "
            "runs are whole: leave out --asked-differently and --partial"
        )
    rows = parse_pairs(_read_source(file), file)
    if not rows:
        raise InputError(f"{file}:2: no items")
    incumbent = [row.incumbent for row in rows]
    candidate = [row.candidate for row in rows]
    return ExportedPairs(
        "score",
        "incumbent",
        "candidate",
        tuple(turned_round(rows) if acceptance.direction is Direction.LOWER else rows),
        _count_gaps(incumbent),
        _count_gaps(candidate),
        AnswerMeans(),
        AnswerMeans(),
        direction=acceptance.direction or Direction.HIGHER,
        direction_source="your option" if acceptance.direction else "the form of such a file",
    )


def _count_gaps(scores: Sequence[Sequence[float | None]]) -> GapCount:
    return GapCount(sum(map(len, scores)), 0, sum(row.count(None) for row in scores), 0)


def _choose_run(
    file: str,
    runs: Sequence[ScoredRun],
    name: str,
    option: str,
) -> ScoredRun:
    try:
        return choose_run(runs, name, option)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def parse_file(file: str, format_name: str) -> list[ScoredRun]:
    export_format = EXPORT_FORMATS[format_name]
    is_archive = format_name == "inspect" and _is_archive(file)
    remark = ""
    try:
        if is_spreadsheet(file):
            sheet = read_sheet(file)
            remark = sheet.remark
            runs = export_format.parse(sheet.text)
        else:
            runs = export_format.parse(_read_archive(file) if is_archive else read_text(file))
    except InputError as error:
        raise InputError(
            f"{_prefix_file(file, error)} ({export_format.title}: {export_format.files})"
        ) from None
    if format_name == "lm-eval":
        return [add_totals(run, Path(file)) for run in runs]
    return [_add_remark(run, f"{file}: {remark}") for run in runs] if remark else runs


def _add_remark(run: ScoredRun, remark: str) -> ScoredRun:
    remarks = (remark, *run.statement.remarks)
    return replace(run, statement=replace(run.statement, remarks=remarks))


def locate_results(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the files to read. A folder, and lm-eval's file of totals, stand for the newest
    file with a row for each document.

    Raises InputError for a folder without such files, and for files of several tasks.
    """
    found = {path: _find_files(path) for path in paths}
    searched = {path: files for path, files in found.items() if files is not None}
    if not searched:
        return tuple(paths)
    tasks = [
        task
        for task in next(iter(searched.values()))
        if all(task in files for files in searched.values())
    ]
    files_by_task = {
        task: tuple(str(searched[path][task]) if path in searched else path for path in paths)
        for task in tasks
    }
    if len(tasks) == 1:
        return files_by_task[tasks[0]]
    if not tasks:
        names = "; ".join(f"{path} has {', '.join(files)}" for path, files in searched.items())
        raise InputError(f"the runs have no task in common: {names}")
    commands = [shlex.join([*name_command(), *files]) for files in files_by_task.values()]
    raise InputError(
        f"{' and '.join(searched)}: {len(tasks)} tasks have results. Choose one of them:\n  "
        + "\n  ".join(commands[:_MAX_COMMANDS])
    )


def _find_files(path: str) -> Mapping[str, Path] | None:
    """Finds lm-eval's files by task in a folder, or beside totals; None for a file to read."""
    place = Path(path)
    if place.is_dir():
        if files := find_samples(place):
            return files
        raise InputError(
            f"{path}: is a folder without lm-eval's {LM_EVAL_FILES}. `swapproof try` without "
            "arguments shows the results that this folder has"
        )
    if place.is_file() and not is_spreadsheet(path) and read_totals(place) is not None:
        return find_samples(place) or None
    return None


def find_title(format_name: str) -> str:
    export_format = EXPORT_FORMATS.get(format_name)
    return export_format.title if export_format else "pairs of scores"


def recognise_files(files: Sequence[str]) -> dict[str, str]:
    formats = {file: recognise_file(file) for file in files}
    if len(files) == 1 and formats[files[0]] == "csv" and _is_one_nameless_run(files[0]):
        formats[files[0]] = "columns"
    names = {*formats.values()}
    if len(names) > 1 or (names == {PAIRS} and len(formats) > 1):
        origins = ", ".join(
            f"{file} is from {find_title(name)}" for file, name in formats.items()
        )
        raise InputError(f"{origins}: give two files of one tool, or one file of pairs")
    return formats


def _is_one_nameless_run(file: str) -> bool:
    """Tells whether a table that could be one run has the columns of two models instead.

    A single file needs two runs, so `score_gpt` and `score_claude` are columns of two models.
    """
    text = _read_source(file)
    names = {run.model for run in parse_file(file, "csv")}
    return names == {""} and is_column_table(text)


def recognise_file(file: str) -> str:
    if _is_archive(file):
        return "inspect"
    try:
        return recognise_format(_read_source(file))
    except InputError as error:
        raise InputError(_prefix_file(file, error)) from None


def _read_source(file: str) -> str:
    """Reads a text file, or the first sheet of a spreadsheet as CSV."""
    return read_sheet(file).text if is_spreadsheet(file) else read_text(file)


def _prefix_file(file: str, error: InputError) -> str:
    text = str(error)
    return text if text.startswith(f"{file}:") else f"{file}: {text}"


def _is_archive(file: str) -> bool:
    if is_spreadsheet(file):
        return False
    return file.endswith(".eval") or (Path(file).is_file() and zipfile.is_zipfile(file))


def _read_archive(file: str) -> str:
    """Returns an `.eval` archive as a JSON log, without the answers. A run that did not end has
    no header: its journal has the samples so far.
    """
    with suppress(ImportError):
        import zipfile_zstd  # type: ignore[import-untyped]  # noqa: F401, PLC0415 - reads zstd
    try:
        with zipfile.ZipFile(Path(file)) as archive:
            return json.dumps(_build_log(archive))
    except _UNREADABLE:
        raise InputError(
            "cannot be read: convert it with `inspect log convert --to json`"
        ) from None


def _build_log(archive: zipfile.ZipFile) -> dict[str, object]:
    names = archive.namelist()
    if _HEADER in names and _SUMMARIES in names:
        header = as_mapping(_read_part(archive, _HEADER))
        samples = _read_part(archive, _SUMMARIES)
        rows = [as_mapping(row) for row in samples] if isinstance(samples, list) else []
        if header.get("invalidated"):
            rows = [{**row, "invalidation": _is_withdrawn(archive, row)} for row in rows]
        fields = ("version", "status", "eval", "plan", "results", "invalidated")
        return {**{name: header[name] for name in fields if name in header}, "samples": rows}
    if _START in names:
        start = as_mapping(_read_part(archive, _START))
        journal = sorted(filter(_JOURNAL.fullmatch, names), key=lambda name: (len(name), name))
        parts = [_read_part(archive, name) for name in journal]
        rows = [row for part in parts if isinstance(part, list) for row in part]
        return {**start, "status": "started", "samples": rows}
    raise InputError("has an older format: convert it with `inspect log convert --to json`")


def _is_withdrawn(archive: zipfile.ZipFile, row: Mapping[str, object]) -> bool:
    """Tells whether a person invalidated a sample. The sample's summary lacks this fact."""
    name = f"samples/{row.get('id')}_epoch_{row.get('epoch')}.json"
    if name not in archive.namelist():
        return False
    return bool(as_mapping(_read_part(archive, name)).get("invalidation"))


def _read_part(archive: zipfile.ZipFile, name: str) -> object:
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES // 2**20} MiB")
    try:
        return json.loads(archive.read(name).decode("utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{name} is not JSON: convert it with `inspect log convert`") from None
