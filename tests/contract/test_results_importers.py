"""Importer × field: each importer fills its record, or says that the file does not tell."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from harness.evals.run_statement import Direction, RunStatement
from harness.evals.scored_run import ScoredRun
from harness.interfaces.cli.evals.export_decision import EXPORT_FORMATS, parse_file

pytestmark = pytest.mark.req("G1", "F2")
FILES: Final = Path(__file__).parent.parent / "support/evals/exports"
UNTOLD: Final = None  # the file does not tell
LOWER, HIGHER = Direction.LOWER, Direction.HIGHER


@dataclass(frozen=True)
class Told:
    """The right values of one file."""

    version: str | None = UNTOLD  # of the tool
    directions: Mapping[str, Direction | None] = field(default_factory=dict)
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    spans: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    whole: bool | None = UNTOLD
    limit: str = ""
    items: int | None = UNTOLD  # planned ones
    fixed: Mapping[str, str] | None = UNTOLD
    noted: Mapping[str, str] | None = UNTOLD
    data: tuple[str, str] | None = UNTOLD  # name and version
    grader_failed: Mapping[str, int] = field(default_factory=dict)
    invalidated: int = 0
    failed: int = 0


INSPECT: Final = Told(
    version="0.3.285",
    directions={"match": UNTOLD, "judge": UNTOLD},
    whole=True,
    items=4,
    fixed={
        "task argument fewshot": "0",
        "task argument broken": "false",
        "solvers": "generate",
    },
    noted={"max_tokens": "64"},
    data=("sums", "2"),
    grader_failed={"match": 0, "judge": 1},
)
LM_EVAL: Final = Told(
    version="0.4.13",
    directions={"exact_match": HIGHER, "ter": LOWER},
    whole=True,
    items=3,
    fixed={"shots": "0"},
    noted={"generation_kwargs": '{"max_gen_toks": 8, "until": ["\\n"]}'},
    data=("json", "1.0"),
)
OAIEVAL_ARGUMENTS: Final = {"task argument samples_jsonl": "sums/samples.jsonl"}
WRITTEN_BY_TOOLS: Final[Mapping[str, tuple[str, Told]]] = {
    "inspect_asked_base.eval": ("inspect", INSPECT),
    "inspect_asked_shots.eval": (
        "inspect",
        Told(
            version="0.3.285",
            whole=True,
            items=4,
            fixed={
                "task argument fewshot": "2",
                "task argument broken": "false",
                "solvers": 'system_message{"template": "Add."}, generate',
                "message_limit": "20",
            },
            noted={"temperature": "0.5"},
            data=("sums", "2"),
        ),
    ),
    "inspect_asked_error.eval": (
        "inspect",
        Told(
            version="0.3.285",
            whole=False,
            items=4,
            fixed={
                "task argument fewshot": "0",
                "task argument broken": "true",
                "solvers": "breaks, generate",
            },
            noted={},
            data=("sums", "2"),
            failed=2,
        ),
    ),
    "inspect_asked_limit.eval": (
        "inspect",
        Told(
            version="0.3.285",
            whole=True,
            limit="2",
            items=2,
            fixed=INSPECT.fixed,
            noted={},
            data=("sums", "2"),
        ),
    ),
    "inspect_asked_invalidated.eval": (
        "inspect",
        Told(
            version="0.3.285",
            whole=True,
            items=4,
            fixed=INSPECT.fixed,
            noted={},
            data=("sums", "2"),
            invalidated=1,
        ),
    ),
    "lm_eval_beside/samples_sums_2026-11-29T16-29-37.914056.jsonl": ("lm-eval", LM_EVAL),
    "lm_eval_beside/samples_sums_2026-11-29T16-29-58.946011.jsonl": (
        "lm-eval",
        Told(
            version="0.4.13",
            directions={"exact_match": HIGHER, "ter": LOWER},
            whole=True,
            limit="2.0",
            items=2,
            fixed={"shots": "1"},
            noted=LM_EVAL.noted,
            data=("json", "1.0"),
        ),
    ),
    # Without its results file, lm-eval's samples tell the directions of its registry alone.
    "lm_eval_repeats_base.jsonl": ("lm-eval", Told(directions={"exact_match,digits": UNTOLD})),
    "promptfoo_graders.json": (
        "promptfoo",
        Told(
            version="0.121.20",
            directions={"score": HIGHER, "polite": HIGHER},
            whole=True,
            fixed={},
            noted={"temperature": "0"},
            grader_failed={"score": 1, "pass": 1, "polite": 1},
        ),
    ),
    "deepeval_direction_base.json": (
        "deepeval",
        Told(
            directions={"Distance": LOWER},
            thresholds={"Distance": 0.5},
            whole=True,
            items=4,
            fixed={"num_shots": "0"},
            noted={"temperature": "0.0"},
        ),
    ),
    "deepeval_direction_shots.json": (
        "deepeval",
        Told(
            directions={"Distance": LOWER},
            thresholds={"Distance": 0.5},
            whole=True,
            items=4,
            fixed={"num_shots": "3"},
            noted={"temperature": "1.5"},
            grader_failed={"Distance": 1},
        ),
    ),
    "openai_evals_fuzzy_base.jsonl": (
        "openai-evals",
        Told(
            directions={"f1_score": UNTOLD},
            whole=True,
            fixed=OAIEVAL_ARGUMENTS,
            noted={},
            data=("fuzzy", "dev"),
        ),
    ),
    "openai_evals_items.json": ("openai-evals", Told(whole=True)),
    "langsmith_incumbent.csv": ("langsmith", Told(directions={"correct": UNTOLD})),
}
AFTER_PUBLISHED_EXAMPLES: Final[Mapping[str, tuple[str, Told]]] = {
    "braintrust_incumbent.json": (
        "braintrust",
        Told(directions={"ExactMatch": UNTOLD}),
    ),
    "langfuse_incumbent.json": ("langfuse", Told(directions={"exact": UNTOLD})),
}
# Tables that a person or Ragas wrote.
TABLES: Final[Mapping[str, tuple[str, Told]]] = {
    "id,score,grader_error\na,1,\nb,0,timeout\n": (
        "csv",
        Told(directions={"score": None}),
    ),
    "id,score,threshold,success,max_score\na,4,2.5,false,5\nb,1,2.5,true,5\n": (
        "csv",
        Told(
            directions={"score": LOWER, "success": UNTOLD},
            thresholds={"score": 2.5},
            spans={"score": (0.0, 5.0), "success": UNTOLD},
        ),
    ),
    "input,gpt-4o,claude\na,0.5,0.25\nb,,1\n": (
        "columns",
        Told(directions={"score": None}),
    ),
    "user_input,response,faithfulness,noise_sensitivity(mode=relevant)\na,b,,0.25\n": (
        "csv",
        Told(
            directions={"faithfulness": UNTOLD, "noise_sensitivity(mode=relevant)": LOWER},
            grader_failed={"faithfulness": 1},
        ),
    ),
}


def read(run: ScoredRun, right: Told) -> Told:
    """Returns the statement of a run, with the metrics that `right` names."""
    told: RunStatement = run.statement

    def of_metrics(field_name: str, names: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: None if (one := told.metrics.get(name)) is None else getattr(one, field_name)
            for name in names
        }

    rest = [sample for sample in run.samples if not sample.failed]
    return Told(
        told.version,
        of_metrics("direction", right.directions),
        of_metrics("threshold", right.thresholds),
        of_metrics("span", right.spans),
        None if told.completion is None else not told.completion.partial,
        "" if told.completion is None else told.completion.limit,
        None if told.completion is None else told.completion.items,
        None if told.settings is None else told.settings.fixed,
        None if told.settings is None else told.settings.noted,
        None if told.data is None else (told.data.name, told.data.version),
        {name: sum(name in one.ungraded for one in rest) for name in right.grader_failed},
        sum(one.invalidated for one in rest),
        len(run.samples) - len(rest),
    )


@pytest.mark.parametrize("name", [*WRITTEN_BY_TOOLS, *AFTER_PUBLISHED_EXAMPLES])
def test_an_importer_fills_each_field_or_says_that_the_file_does_not_tell(name: str) -> None:
    tool, right = {**WRITTEN_BY_TOOLS, **AFTER_PUBLISHED_EXAMPLES}[name]

    run = parse_file(str(FILES / name), tool)[0]

    assert read(run, right) == right


@pytest.mark.parametrize("text", TABLES)
def test_a_table_tells_what_its_columns_say(tmp_path: Path, text: str) -> None:
    tool, right = TABLES[text]
    file = tmp_path / "results.csv"
    file.write_text(text)

    run = parse_file(str(file), tool)[0]

    assert read(run, right) == right


def test_each_importer_has_a_right_value_of_each_field() -> None:
    every = {**WRITTEN_BY_TOOLS, **AFTER_PUBLISHED_EXAMPLES, **TABLES}

    assert {tool for tool, _ in every.values()} == set(EXPORT_FORMATS)


def test_the_digest_of_a_run_changes_with_what_the_model_was_asked() -> None:
    names = ("inspect_asked_base.eval", "inspect_asked_shots.eval")
    runs = [parse_file(str(FILES / name), "inspect")[0] for name in names]
    digests = [
        run.statement.settings.digest() for run in runs if run.statement.settings is not None
    ]

    assert len({*digests}) == 2
    assert all(len(digest) == 16 and int(digest, 16) for digest in digests)


def test_a_results_file_that_is_broken_is_named(tmp_path: Path) -> None:
    stamp = "2026-11-29T16-29-37.914056"
    samples = tmp_path / f"samples_sums_{stamp}.jsonl"
    samples.write_text(json.dumps({"doc_id": 0, "metrics": ["acc"], "acc": 1}))
    (tmp_path / f"results_{stamp}.json").write_text("{\n1}")

    with pytest.raises(Exception, match=rf"results_{stamp}.json: line 2: not JSON.*repair it"):
        parse_file(str(samples), "lm-eval")
