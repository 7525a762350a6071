"""Finds the results of eval tools below a folder, by the names that the tools give their files.

| Tool | Files |
|---|---|
| promptfoo | `promptfooconfig.yaml`; results of `--output` beside it, named by the user |
| Inspect | `logs/TIME_TASK_ID.eval`, or `.json` |
| DeepEval | `.deepeval/.latest_test_run.json`; `test_run_….json` |
| lm-eval | `samples_TASK_TIME.jsonl` and its older forms |
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from harness.evals.export_formats import parse_promptfoo
from harness.evals.file_gate.lm_eval_files import find_newest
from harness.frame.errors import InputError
from harness.frame.text_files import read_text

_MAX_ENTRIES: Final = 5_000  # files that a search looks at
_MAX_DEPTH: Final = 3  # folders below the given one
_MAX_PEEK_CHARACTERS: Final = 4_096
_SKIPPED: Final = frozenset({"node_modules", "venv", "__pycache__", "site-packages"})
_INSPECT_LOG: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:+.-]+_(.+)_[^_]+\.(eval|json)")
_DEEPEVAL_RUN: Final = re.compile(r"(test_run_.+|\.latest_test_run)\.json")
_PROMPTFOO_CONFIG: Final = re.compile(r"promptfooconfig\.(ya?ml|json|js|ts)")
_PROMPTFOO_MARK: Final = re.compile(
    r'"(evalId|promptIdx|testIdx)"|"results":\s*\{\s*"(version|timestamp|results)"'
)
_SUFFIXES: Final = frozenset({".json", ".jsonl"})
_ONE_RUN: Final = "only one run: run the other model too, and give both files"


@dataclass(frozen=True, slots=True)
class FoundResults:
    """Results of one tool below a folder."""

    tool: str
    place: str  # the folder or the file
    words: tuple[str, ...]  # for `try`; empty if a run is missing
    hint: str = ""  # the step before `try`


def search_results(folder: Path) -> Sequence[FoundResults]:
    """Searches a folder, without hidden folders except `.deepeval`. Follows no links."""
    files = list(islice(_walk(folder, _MAX_DEPTH), _MAX_ENTRIES))
    return [
        *_find_promptfoo(files),
        *_find_inspect(files),
        *_find_deepeval(files),
        *_find_lm_eval(files),
    ]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        if entry.is_file():
            yield entry
        elif depth and entry.is_dir() and _is_searched(entry.name):
            yield from _walk(entry, depth - 1)


def _is_searched(name: str) -> bool:
    return name == ".deepeval" or not (name.startswith(".") or name in _SKIPPED)


def _find_promptfoo(files: Sequence[Path]) -> Iterator[FoundResults]:
    """Finds promptfoo's results by their content, because the user names them."""
    results = [file for file in files if file.suffix in _SUFFIXES and _is_promptfoo(file)]
    if not results:
        for config in (file for file in files if _PROMPTFOO_CONFIG.fullmatch(file.name)):
            hint = "no results yet: `promptfoo eval --output results.json`"
            yield FoundResults("promptfoo", str(config), (), hint)
        return
    newest = _sort_by_age(results)[-1]
    try:
        runs = [run.model for run in parse_promptfoo(read_text(newest))]
    except InputError as error:
        yield FoundResults("promptfoo", newest, (), str(error))
        return
    if len(runs) > 1:
        words = (newest, "--incumbent", runs[0], "--candidate", runs[1])
        yield FoundResults("promptfoo", newest, words)
    else:
        yield _pair_newest("promptfoo", results)


def _is_promptfoo(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as opened:
            start = opened.read(_MAX_PEEK_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return False
    return bool(_PROMPTFOO_MARK.search(start))


def _find_inspect(files: Sequence[Path]) -> Iterator[FoundResults]:
    """Finds Inspect's logs by task: only logs of one task can be compared."""
    by_task: dict[str, list[Path]] = {}
    for file in files:
        if match := _INSPECT_LOG.fullmatch(file.name):
            by_task.setdefault(match[1], []).append(file)
    for task, logs in by_task.items():
        yield _pair_newest(f"Inspect, task {task}", logs)


def _find_deepeval(files: Sequence[Path]) -> Iterator[FoundResults]:
    if runs := [file for file in files if _DEEPEVAL_RUN.fullmatch(file.name)]:
        yield _pair_newest("DeepEval", runs)


def _find_lm_eval(files: Sequence[Path]) -> Iterator[FoundResults]:
    """Finds lm-eval's samples by task, the newest ones of each folder, which is a model's."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    by_task: dict[str, list[Path]] = {}
    for folder_files in by_folder.values():
        for task, newest in find_newest(folder_files).items():
            by_task.setdefault(task, []).append(newest)
    for task, samples in by_task.items():
        yield _pair_newest(f"lm-eval, task {task}", samples)


def _pair_newest(tool: str, files: Sequence[Path]) -> FoundResults:
    """Pairs the two newest files, the older one first."""
    ordered = _sort_by_age(files)
    place = str(Path(ordered[-1]).parent)
    if len(ordered) < 2:
        return FoundResults(tool, ordered[0], (), _ONE_RUN)
    return FoundResults(tool, place, ordered[-2:])


def _sort_by_age(files: Sequence[Path]) -> tuple[str, ...]:
    return tuple(
        str(file) for file in sorted(files, key=lambda file: (file.stat().st_mtime, file.name))
    )
