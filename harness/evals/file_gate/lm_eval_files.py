"""Parses results of lm-evaluation-harness, of each of its versions, and finds them in folders.

| Version | Totals | A row for each document |
|---|---|---|
| 0.3 | the file of `--output_path` | `TASK_write_out_info.json` of `--write_out`, a list |
| 0.4.0 to 0.4.2 | `results.json` | `MODEL_ARGS_TASK.jsonl` of `--log_samples`, a list |
| since 0.4.3 | `results_TIME.json` or `NAME_TIME.json` | `samples_TASK_TIME.jsonl` |
| `simple_evaluate` | `results` | `samples` by task, in the same document |

Since 0.4.3 each model has a folder. Totals alone give no pairs, and so no verdict.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from harness.evals.run_statement import Direction, MetricStatement, RunStatement
from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    parse_json,
    parse_json_lines,
    question_key,
    read_scores,
    single_value,
)
from harness.evals.table_formats import parse_score
from harness.evals.tool_statements import LM_EVAL_LOWER, lm_eval_statement, prompt_digests
from harness.frame.errors import InputError
from harness.frame.text_files import read_text

WANTED: Final = (
    "`samples_TASK_….jsonl` of --log_samples, or version 0.3's `TASK_write_out_info.json` of "
    "--write_out"
)
# lm-eval writes a task's name only into the name of its file.
_SAMPLES: Final = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl?")
_WRITE_OUT: Final = re.compile(r"(.+)_write_out_info\.json")
_TIMED_TOTALS: Final = re.compile(r".*_(\d{4}-\d\d-\d\dT[\d.-]+)\.json")
_WRITE_OUT_FIELDS: Final = re.compile(r"doc_id|(prompt|logit)_\d+|truth|pred|gold")
# Fields of a document's row that are no metrics, for the versions that list no metrics.
_FIELDS: Final = frozenset(
    {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    }
)
_MAX_TOTALS_BYTES: Final = 16 * 2**20
_MAX_ENTRIES: Final = 5_000  # files that a search looks at
_MAX_DEPTH: Final = 4  # folders below the given one


def parse_lm_eval(text: str) -> list[ScoredRun]:
    """Parses rows of documents; the model's name is not in them. Several tasks in one document
    are runs with the tasks' names.

    Raises InputError for a row without `doc_id`.
    """
    by_task = _read_tasks(text)
    if by_task is None:
        return [_build_run("", list(_list_rows(text)))]
    if not by_task:
        raise InputError(f"has no samples: give {WANTED}")
    return [
        _build_run(task if len(by_task) > 1 else "", rows, {"task": task})
        for task, rows in by_task.items()
    ]


def _read_tasks(text: str) -> Mapping[str, Sequence[Mapping[str, object]]] | None:
    """Reads the samples by task of a document of `simple_evaluate`; None for another file."""
    try:
        document = as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return None
    samples = document.get("samples")
    if "results" not in document or not isinstance(samples, Mapping):
        return None
    return {
        str(task): [as_mapping(row) for row in rows]
        for task, rows in samples.items()
        if isinstance(rows, list)
    }


def _list_rows(text: str) -> Iterator[Mapping[str, object]]:
    """Yields the rows of a list, of a mapping by document, or of JSON lines."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, Mapping) and "doc_id" not in value:
        rows = list(value.values())
        value = rows if rows and all("doc_id" in as_mapping(row) for row in rows) else value
    if isinstance(value, list):
        for number, row in enumerate(map(as_mapping, value), start=1):
            _check_row(row, f"row {number}")
            yield row
        return
    for line, row in parse_json_lines(text):
        _check_row(row, f"line {line}")
        yield row


def _check_row(row: Mapping[str, object], place: str) -> None:
    if "doc_id" not in row:
        raise InputError(f"{place}: has no doc_id: give the file {WANTED}")


def _build_run(
    model: str,
    rows: Iterable[Mapping[str, object]],
    terms: Mapping[str, str] | None = None,
) -> ScoredRun:
    """Builds a run. lm-eval writes one row for each filter of a document."""
    merged: dict[str, ScoredSample] = {}
    for row in rows:
        id_ = str(row.get("doc_id"))
        sample = _build_sample(row, id_)
        key = f"{id_} {sample.revision}"
        earlier_sample = merged.setdefault(key, ScoredSample(id_, {}))
        # A second attempt at a document in the same file has other scores.
        scores, conflicts = read_scores(
            {
                name: single_value(earlier_sample.scores, name, score)
                for name, score in sample.scores.items()
            }
        )
        merged[key] = replace(
            sample,
            scores={**earlier_sample.scores, **scores},
            unread={**earlier_sample.unread, **sample.unread, **conflicts},
        )
    run = ScoredRun.from_samples(model, tuple(merged.values()), terms)
    lower = MetricStatement(Direction.LOWER, "lm-eval registers it so")
    directions = {
        name: lower for name in run.metrics if name.partition(",")[0] in LM_EVAL_LOWER
    }
    return replace(run, statement=RunStatement("lm-eval", metrics=directions))


def _build_sample(row: Mapping[str, object], id_: str) -> ScoredSample:
    if any(name.startswith("prompt_") and name != "prompt_hash" for name in row):
        return _build_write_out(row, id_)
    revision = str(row.get("doc_hash") or "")
    scores, unread = _read_metrics(row)
    prompt, plain_prompt = prompt_digests(row.get("arguments"))
    return ScoredSample(
        id_,
        scores,
        question=question_key(row.get("doc")) or revision,
        revision=revision,
        unread=unread,
        prompt=prompt,
        plain_prompt=plain_prompt,
    )


def _build_write_out(row: Mapping[str, object], id_: str) -> ScoredSample:
    """Builds a sample of version 0.3: its values are texts, and its prompts have the shots."""
    metrics = {
        name: value for name, value in row.items() if not _WRITE_OUT_FIELDS.fullmatch(name)
    }
    scores, unread = read_scores(metrics, parse_score)
    prompts = [value for name, value in row.items() if name.startswith("prompt_")]
    prompt, plain_prompt = prompt_digests(prompts)
    return ScoredSample(
        id_,
        scores,
        revision=question_key(row.get("truth", row.get("gold"))),
        unread=unread,
        prompt=prompt,
        plain_prompt=plain_prompt,
    )


def _read_metrics(
    row: Mapping[str, object],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Returns the scores of a row's metrics. A metric's name ends with its filter, unless that
    is `none`. Before version 0.4.3, rows do not list their metrics.
    """
    names = row.get("metrics")
    metrics = (
        names if isinstance(names, list) else [name for name in row if name not in _FIELDS]
    )
    filtered = str(row.get("filter", "none"))
    ending = "" if filtered == "none" else f",{filtered}"
    return read_scores({f"{name}{ending}": row.get(str(name)) for name in metrics})


def add_totals(run: ScoredRun, file: Path) -> ScoredRun:
    """Adds the task in a file's name, and the statements of the totals beside the file."""
    totals_file, task = _find_totals(file)
    if not task:
        return run
    named_run = replace(run, terms={**run.terms, "task": task})
    if totals_file is None:
        return named_run
    try:
        totals = as_mapping(parse_json(read_text(str(totals_file))))
    except InputError as error:
        text = str(error)
        fault = text if text.startswith(str(totals_file)) else f"{totals_file}: {text}"
        raise InputError(
            f"{fault}; it stands beside {file.name}: remove or repair it"
        ) from None
    statement = lm_eval_statement(totals, task, run)
    version = statement.data.version if statement.data else ""
    terms = {**named_run.terms, **({"task version": version} if version else {})}
    return replace(named_run, terms=terms, statement=statement)


def _find_totals(file: Path) -> tuple[Path | None, str]:
    """Returns the totals of the run that wrote a file, if they are beside it, and the task."""
    if match := _SAMPLES.fullmatch(file.name):
        task, time_text = match.groups()
        usual = file.with_name(f"results_{time_text}.json")
        others = sorted(file.parent.glob(f"*_{time_text}.json"))
        totals = [other for other in (usual, *others) if other.is_file() and other != file]
        return next(iter(totals), None), task
    if match := _WRITE_OUT.fullmatch(file.name):
        return None, match[1]
    totals_file = file.with_name("results.json")
    tasks = [task for task in _list_tasks(totals_file) if file.stem.endswith(f"_{task}")]
    return (totals_file, max(tasks, key=len)) if tasks else (None, "")


def _list_tasks(totals_file: Path) -> Sequence[str]:
    totals = read_totals(totals_file)
    return [] if totals is None else [*as_mapping(totals.get("results"))]


def read_totals(file: Path) -> Mapping[str, object] | None:
    """Reads a file of totals; None for any other file, also for one that cannot be read."""
    try:
        if file.suffix != ".json" or file.stat().st_size > _MAX_TOTALS_BYTES:
            return None
        document = as_mapping(parse_json(read_text(str(file))))
    except (InputError, OSError):
        return None
    return document if is_totals(document) else None


def is_totals(document: Mapping[str, object]) -> bool:
    """Tells whether a document has lm-eval's totals by task, and no samples."""
    results = as_mapping(document.get("results"))
    has_run = bool({"versions", "configs", "config", "lm_eval_version"} & document.keys())
    is_by_task = bool(results) and all(isinstance(row, Mapping) for row in results.values())
    return has_run and is_by_task and "samples" not in document


def find_samples(place: Path) -> Mapping[str, Path]:
    """Finds the newest file with a row for each document, by task.

    Args:
        place: a folder, or a file of totals, whose folder has the files.

    Empty without such a file.
    """
    if place.is_dir():
        files = list(islice(_walk(place, _MAX_DEPTH), _MAX_ENTRIES))
    else:
        time_match = _TIMED_TOTALS.fullmatch(place.name)
        beside = [file for file in place.parent.iterdir() if file.is_file()]
        same_run = [file for file in beside if time_match and time_match[1] in file.name]
        files = same_run if any(map(_name_task, same_run)) else beside
    return find_newest(files)


def find_newest(files: Iterable[Path]) -> Mapping[str, Path]:
    """Returns the newest file with a row for each document, by task. Leaves out other files."""
    newest: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: (_time_of(file), file.name)):
        if task := _name_task(file):
            newest[task] = file
    return dict(sorted(newest.items()))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_file():
            yield entry
        elif depth and entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(entry, depth - 1)


def _name_task(file: Path) -> str:
    """Returns the task of a file with a row for each document; empty for any other file."""
    if match := _SAMPLES.fullmatch(file.name) or _WRITE_OUT.fullmatch(file.name):
        return match[1]
    return _find_totals(file)[1] if file.suffix == ".jsonl" else ""


def _time_of(file: Path) -> str:
    """Returns the time in a file's name, which sorts as text; else that of its last change."""
    match = _SAMPLES.fullmatch(file.name)
    return match[2] if match else f"{file.stat().st_mtime:020.6f}"
