"""Judges results that another eval tool exported, for `gate decide --from`. Nothing of it is
stored, and no proposal can use it.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from harness.cli.evals.csv_files import MAX_BYTES, FileTerms, parse_pairs, read_text
from harness.cli.evals.pair_judgement import judge_rows
from harness.domain.errors import InputError
from harness.domain.evals.exports.formats import (
    parse_braintrust,
    parse_deepeval,
    parse_inspect,
    parse_langfuse,
    parse_lm_eval,
    parse_openai_evals,
    parse_promptfoo,
)
from harness.domain.evals.exports.recognition import recognise_format
from harness.domain.evals.exports.scored_run import (
    ExportedPairs,
    GapCount,
    ScoredRun,
    choose_metric,
    choose_run,
    pair_runs,
)
from harness.domain.evals.exports.table_formats import parse_csv_scores, parse_langsmith


@dataclass(frozen=True, slots=True)
class ExportFormat:
    title: str  # of the tool
    files: str  # what a file of it is, for people
    parse: Callable[[str], list[ScoredRun]]
    metric: str = ""  # the one that is meant where nobody names one


EXPORT_FORMATS: Final[Mapping[str, ExportFormat]] = {
    "promptfoo": ExportFormat(
        "promptfoo", "`promptfoo eval --output results.json`", parse_promptfoo, "score"
    ),
    "braintrust": ExportFormat("Braintrust", "rows of an experiment, JSON", parse_braintrust),
    "langsmith": ExportFormat("LangSmith", "results of an experiment, CSV", parse_langsmith),
    "openai-evals": ExportFormat(
        "OpenAI evals", "a log of `oaieval`, or output items of a run", parse_openai_evals
    ),
    "lm-eval": ExportFormat(
        "lm-evaluation-harness", "`samples_TASK_….jsonl` of --log_samples", parse_lm_eval, "acc"
    ),
    "inspect": ExportFormat("Inspect", "a log, `.eval` or `.json`", parse_inspect),
    "deepeval": ExportFormat("DeepEval", "`test_run_….json` of a test run", parse_deepeval),
    "langfuse": ExportFormat(
        "Langfuse", "an experiment's result, or traces with scores, JSON", parse_langfuse
    ),
    "csv": ExportFormat(
        "CSV", "a row for each answer, with its score", parse_csv_scores, "score"
    ),
}


PAIRS: Final = "pairs"
REPORT_ONLY = "a report only: nothing is promoted by it. A proposal measures anew, by Swapgate"
_PARTS = ("header.json", "summaries.json")
# What zipfile raises for an archive that is broken, encrypted or of another compression.
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
    """Says which runs and which metric of the files are meant; empty for the only ones."""

    format: str
    incumbent: str = ""
    candidate: str = ""
    metric: str = ""


def judge_exports(
    files: Sequence[str], choice: ExportChoice, terms: FileTerms
) -> dict[str, object]:
    exported = read_exports(files, choice)
    rows = exported.pairs
    if terms.n_max is not None and len(rows) > terms.n_max:
        raise InputError(f"{len(rows)} items are more than the planned {terms.n_max}")
    return {
        "from": choice.format,
        "metric": exported.metric,
        "incumbent": exported.incumbent,
        "candidate": exported.candidate,
        **judge_rows(rows, terms),
        "items": len(rows),
        "epochs": max(len(row.incumbent) for row in rows),
        "incumbent_gaps": asdict(exported.incumbent_gaps),
        "candidate_gaps": asdict(exported.candidate_gaps),
        **({"notes": list(exported.notes)} if exported.notes else {}),
        "use": REPORT_ONLY,
    }


def read_exports(files: Sequence[str], choice: ExportChoice) -> ExportedPairs:
    if len(files) > 2:
        raise InputError("give one file with both runs, or the incumbent's and the candidate's")
    if choice.format == PAIRS:
        return _read_pairs(files[0])
    form = EXPORT_FORMATS[choice.format]
    runs = [_parse(file, choice.format) for file in files]
    ours, theirs = runs[0], runs[-1]
    if len(files) == 1 and not (choice.incumbent and choice.candidate):
        names = ", ".join(repr(run.model) for run in ours)
        raise InputError(
            f"{files[0]}: name its runs by --incumbent and --candidate; it has {names}. Or "
            "give two files, the incumbent's first"
        )
    incumbent = _named(files[0], ours, choice.incumbent, "--incumbent")
    candidate = _named(files[-1], theirs, choice.candidate, "--candidate")
    metric = choose_metric(incumbent, candidate, choice.metric, form.metric)
    return pair_runs(incumbent, candidate, metric)


def _read_pairs(file: str) -> ExportedPairs:
    rows = parse_pairs(read_text(file), file)
    if not rows:
        raise InputError(f"{file}:2: no items")
    gaps = [
        GapCount(sum(map(len, scores)), 0, sum(row.count(None) for row in scores), 0)
        for scores in ([row.incumbent for row in rows], [row.candidate for row in rows])
    ]
    return ExportedPairs("score", "incumbent", "candidate", tuple(rows), gaps[0], gaps[1])


def _named(file: str, runs: Sequence[ScoredRun], name: str, option: str) -> ScoredRun:
    try:
        return choose_run(runs, name, option)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _parse(file: str, format_name: str) -> list[ScoredRun]:
    form = EXPORT_FORMATS[format_name]
    zipped = format_name == "inspect" and _is_archive(file)
    try:
        return form.parse(_archive_text(file) if zipped else read_text(file))
    except InputError as error:
        text = str(error).removeprefix(f"{file}: ")
        raise InputError(f"{file}: {text} ({form.title}: {form.files})") from None


def title(format_name: str) -> str:
    form = EXPORT_FORMATS.get(format_name)
    return form.title if form else "pairs of scores"


def recognise_files(files: Sequence[str]) -> dict[str, str]:
    formats = {file: recognise_file(file) for file in files}
    names = {*formats.values()}
    if len(names) > 1 or (names == {PAIRS} and len(formats) > 1):
        said = ", ".join(f"{file} is of {title(name)}" for file, name in formats.items())
        raise InputError(f"{said}: give two files that one tool wrote, or one file of pairs")
    return formats


def recognise_file(file: str) -> str:
    if _is_archive(file):
        return "inspect"
    try:
        return recognise_format(read_text(file))
    except InputError as error:
        raise InputError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None


def _is_archive(file: str) -> bool:
    return file.endswith(".eval") or (Path(file).is_file() and zipfile.is_zipfile(file))


def _archive_text(file: str) -> str:
    """The parts of an `.eval` archive that a JSON log has, without the answers."""
    with suppress(ImportError):
        import zipfile_zstd  # type: ignore[import-untyped]  # noqa: F401, PLC0415 - reads zstd
    try:
        with zipfile.ZipFile(Path(file)) as archive:
            names = [name for name in _PARTS if name in archive.namelist()]
            if sum(archive.getinfo(name).file_size for name in names) > MAX_BYTES:
                raise InputError(f"larger than {MAX_BYTES // 2**20} MiB")
            parts: Mapping[str, str] = {
                name: archive.read(name).decode("utf-8") for name in names
            }
    except _UNREADABLE:
        raise InputError(
            "cannot be read: convert it by `inspect log convert --to json`"
        ) from None
    if len(parts) < len(_PARTS):
        raise InputError(
            "is of an older version: convert it by `inspect log convert --to json`"
        )
    return f'{{"eval": {_member(parts[_PARTS[0]], "eval")}, "samples": {parts[_PARTS[1]]}}}'


def _member(text: str, name: str) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("has a header that is not JSON") from None
    return json.dumps(document.get(name) if isinstance(document, dict) else None)
