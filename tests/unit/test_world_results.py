"""Results in the wild are read with their right values: `tests/world/results`."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from evals.scorers import AnswerToolCall, find_scorer
from evals.suites import openai_evals
from evals.suites.items import Item
from evals.suites.source_records import read_source
from harness.evals.file_gate.recognition import recognise_format
from harness.evals.file_gate.spreadsheets import read_sheet
from harness.evals.run_pairs import pair_runs
from harness.evals.run_statement import resolve_direction
from harness.evals.tool_statements import lm_eval_statement
from harness.frame.configuration.config_conversion import ConversionOutcome
from harness.frame.errors import InputError
from harness.interfaces.cli.evals.export_decision import EXPORT_FORMATS
from tests.support.evals.workbooks import write_workbook

pytestmark = pytest.mark.req("G1", "F2")

FOLDER: Final = Path(__file__).parent.parent / "world/results"
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    f"{file.stem}: {example['name']}": example
    for file in sorted(FOLDER.glob("*.yaml"))
    for example in yaml.safe_load(file.read_text("utf-8"))
}


def read_results(example: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the first run of a results file.

    Its direction is `ask` where Swapproof refuses to guess. `whole` is null where the file does
    not tell. A refused file has `refused` alone, with the beginning of the message. `beside` is
    the results file that lm-eval writes beside its samples.
    """
    try:
        tool = recognise_format(example["text"])
        run = EXPORT_FORMATS[tool].parse(example["text"])[0]
    except InputError as error:
        return {"refused": str(error)[: len(example["right"].get("refused", ""))]}
    if beside := example.get("beside"):
        results = json.loads(beside)
        (task,) = results["configs"]
        run = replace(run, statement=lm_eval_statement(results, task, run))
    metric = example["metric"]
    told = run.statement
    try:
        found = resolve_direction(metric, [told.metrics.get(metric)], None).direction
        direction = str(found)
    except InputError:
        direction = "ask"
    rest = [sample for sample in run.samples if not sample.failed]
    return {
        "tool": tool,
        "direction": direction,
        "scores": [sample.score(metric) for sample in run.samples],
        "whole": None if told.completion is None else not told.completion.partial,
        "failed": len(run.samples) - len(rest),
        "grader_failed": sum(metric in sample.ungraded for sample in rest),
        "doubtful": sum(sample.doubtful for sample in rest),
        "invalidated": sum(sample.invalidated for sample in rest),
        "fixed": dict(told.settings.fixed) if told.settings else None,
        "noted": dict(told.settings.noted) if told.settings else None,
        "version": told.version,
    }


def read_answer(example: Mapping[str, Any]) -> dict[str, Any]:
    """Scores an answer to the first item of a suite with these targets."""
    scorer = find_scorer(example["scorer"])
    items = [
        Item(f"i{place}", "asked", target, metadata=example.get("metadata", {}))
        for place, target in enumerate(example["targets"])
    ]
    calls = [AnswerToolCall(**call) for call in example.get("calls", ())]
    try:
        options = scorer.complete(items, scorer.options(example.get("options", {})))
        for item in items:
            scorer.check(item, options)
    except InputError as error:
        return {"refused": str(error)[: len(example["right"].get("refused", ""))]}
    item, answer = items[0], example["answer"]
    if scorer.calls is None:
        return asdict(scorer.score(answer, item, options))
    return asdict(scorer.calls(calls, answer, item, options))


def read_pairs(example: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs two results files, and returns the items' names."""
    incumbent, candidate = (
        EXPORT_FORMATS[recognise_format(example[side])].parse(example[side])[0]
        for side in ("incumbent", "candidate")
    )
    paired = pair_runs(incumbent, candidate, incumbent.metrics[0])
    return {"pairs": [pair.item for pair in paired.pairs]}


def read_spreadsheet(example: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the first sheet of a workbook with this sheet and these other parts."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_workbook(
            Path(folder) / "results.xlsx", example["sheet"], parts=example.get("parts")
        )
        try:
            return {"lines": read_sheet(str(file)).text.splitlines()}
        except InputError as error:
            message = str(error).removeprefix(f"{file}: ")
            return {"refused": message[: len(example["right"].get("refused", ""))]}


def read_eval_suite(example: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an OpenAI eval with the files beside it.

    `items` has each item's input, and the beginnings of its targets. `left` has the keys that
    the report names as not taken, without the run's settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            Path(folder) / f"eval-{number}.json"
            for number in range(1, len(example["files"]) + 1)
        ]
        for path, text in zip(paths, example["files"], strict=True):
            path.write_text(text, encoding="utf-8")
        files = [read_source(path) for path in paths]
        assert openai_evals.is_eval(files[0])
        try:
            found = openai_evals.convert(files, judged=example["judged"])
        except InputError as error:
            message = str(error).removeprefix(f"{folder}/")
            return {"refused": message[: len(example["right"].get("refused", ""))]}
    wanted = example["right"].get("items", ())
    return {
        "items": [
            [
                item["input"],
                *(
                    target[: len(beginning)]
                    for target, beginning in zip(item["target"], beginnings[1:], strict=True)
                ),
            ]
            for item, beginnings in zip(found.items, wanted, strict=True)
        ],
        "left": [
            note.key
            for note in found.notes
            if note.outcome is ConversionOutcome.LEFT and "sampling_params" not in note.key
        ],
        "items_left": found.items_left,
    }


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = {
    "answer": read_answer,
    "eval_suite": read_eval_suite,
    "pairs": read_pairs,
    "results": read_results,
    "spreadsheet": read_spreadsheet,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_published_example_is_read_with_its_right_value(name: str) -> None:
    example = EXAMPLES[name]

    read = READERS[example["kind"]](example)

    assert {field: read[field] for field in example["right"]} == example["right"]


def test_every_example_names_its_page_and_a_right_value() -> None:
    assert len(EXAMPLES) >= 90
    assert all(example["source"].startswith("https://") for example in EXAMPLES.values())
    assert all(example["right"] for example in EXAMPLES.values())
