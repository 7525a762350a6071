"""Evals and runs of OpenAI's Evals API: what becomes a suite, and what becomes a comparison.

`tests/world/results/openai-evals.yaml` has the published examples.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from evals.scorers import find_scorer
from evals.suites import openai_evals
from evals.suites.items import read_item
from evals.suites.source_records import read_source
from harness.app.installation import open_installation
from harness.app.suite_import import SourceChoice, import_source
from harness.evals.openai_evals import parse_openai_evals
from harness.evals.run_pairs import pair_runs
from harness.evals.settings import SuiteSettings
from harness.frame.configuration.config_conversion import ConversionOutcome, NothingTaken
from harness.frame.errors import InputError
from tests.support.browser.dashboard_data import ANA, configured

pytestmark = pytest.mark.req("G1", "F2")
OUTPUT: Final = "{{ sample.output_text }}"
QUESTIONS: Final = {
    "template": [
        {"role": "developer", "content": "Label it."},
        {"role": "user", "content": {"type": "input_text", "text": "{{item.q}}"}},
    ]
}


def check(operation: str, reference: str = "{{item.a}}", text: str = OUTPUT) -> dict[str, Any]:
    return {
        "type": "string_check",
        "name": operation,
        "input": text,
        "reference": reference,
        "operation": operation,
    }


def eval_of(*graders: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "eval", "id": "eval_1", "name": "E", "testing_criteria": [*graders]}


def run_of(
    *items: Mapping[str, Any],
    messages: Mapping[str, Any] = QUESTIONS,
    sampling: Mapping[str, Any] | None = None,
    **more: object,
) -> dict[str, Any]:
    source = {"type": "file_content", "content": [{"item": item} for item in items]}
    data_source = {
        "type": "completions",
        "source": source,
        "input_messages": messages,
        "sampling_params": sampling,
    }
    return {"id": "run_1", "eval_id": "eval_1", "data_source": data_source, **more}


def convert(
    folder: Path, *documents: object, judged: bool = False
) -> openai_evals.ConvertedEval:
    files = []
    for number, document in enumerate(documents):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        files.append(read_source(file))
    return openai_evals.convert(files, judged=judged)


def left(found: openai_evals.ConvertedEval) -> dict[str, str]:
    return {
        note.key: note.text for note in found.notes if note.outcome is ConversionOutcome.LEFT
    }


@pytest.mark.parametrize(
    ("operation", "right", "wrong"),
    [
        ("eq", "Red", "red"),
        ("ne", "Blue", "Red"),
        ("like", "It is Red.", "It is red."),
        ("ilike", "It is red.", "It is blue."),
    ],
)
def test_a_string_check_scores_as_at_openai(
    tmp_path: Path, operation: str, right: str, wrong: str
) -> None:
    found = convert(tmp_path, eval_of(check(operation)), run_of({"q": "Colour?", "a": "Red"}))

    item = read_item(found.items[0], "place")
    scorer = find_scorer("assertions")
    scores = [scorer.score(text, item, scorer.options({})).strict for text in (right, wrong)]
    assert scores == [1.0, 0.0]


@pytest.mark.parametrize("operation", ["eq", "like"])
def test_only_equality_may_have_the_answer_as_its_reference(
    tmp_path: Path, operation: str
) -> None:
    turned = eval_of(check(operation, OUTPUT, "{{item.a}}"))
    run = run_of({"q": "Colour?", "a": "Red"})

    if operation == "eq":
        assert convert(tmp_path, turned, run).items[0]["target"] == ["equals: Red"]
        return
    with pytest.raises(NothingTaken) as none:
        convert(tmp_path, turned, run)
    assert "is not the whole answer" in none.value.notes[0].text


def test_an_item_without_a_field_that_a_grader_or_the_prompt_needs_is_left_out(
    tmp_path: Path,
) -> None:
    run = run_of(
        {"q": "Colour?", "a": "Red"}, {"q": "Size?"}, {"a": "Red"}, {"q": "?", "a": ""}
    )

    found = convert(tmp_path, eval_of(check("eq")), run)

    assert [item["input"] for item in found.items] == ["Colour?"]
    assert found.items_left == 3
    assert "the item has no 'a'" in left(found)["items"]
    assert "the item has no 'q'" in left(found)["items"]


def test_braces_in_an_items_text_stay_as_they_are(tmp_path: Path) -> None:
    found = convert(
        tmp_path,
        eval_of(check("eq")),
        run_of({"q": "What is {{item.a}} {% x %}?", "a": "{{a}}"}),
    )

    (item,) = found.items
    assert item["input"] == "What is {{item.a}} {% x %}?"
    assert item["metadata"]["assert"] == [{"type": "equals", "value": "{{a}}"}]


def test_each_grader_without_a_counterpart_is_named(tmp_path: Path) -> None:
    graders = (
        {"type": "python", "name": "code", "source": "def grade(sample, item): ..."},
        {"type": "text_similarity", "name": "alike", "evaluation_metric": "rouge_l"},
        {"type": "azure_ai_evaluator", "name": "safe", "evaluator_name": "builtin.violence"},
        {"type": "label_model", "name": "tone", "labels": ["a"], "passing_labels": ["a"]},
        {"type": "new_kind", "name": "new"},
        check("matches"),
        check("eq", "{{item['a']}}"),
    )

    found = convert(tmp_path, eval_of(*graders, check("eq")), run_of({"q": "?", "a": "b"}))

    reasons = list(left(found).values())
    assert found.graders_left == len(graders) == len(reasons)
    parts = (
        "is your code",
        "does not compute `rouge_l`",
        "`builtin.violence`",
        "needs a judge: --judge",
        "no grader of type 'new_kind'",
        "no known operation: 'matches'",
        "cannot fill in",
    )
    for reason, part in zip(reasons, parts, strict=True):
        assert part in reason


def test_a_score_of_a_range_counts_from_0_to_1_at_its_own_threshold(tmp_path: Path) -> None:
    grader = {
        "type": "score_model",
        "name": "help",
        "input": [{"role": "user", "content": f"Rate {OUTPUT}"}],
        "range": [1, 7],
        "pass_threshold": 5,
    }
    run = run_of({"q": "?", "a": "b"})

    found = convert(tmp_path, eval_of(grader), run, judged=True)

    (assertion,) = found.items[0]["metadata"]["assert"]
    assert assertion["threshold"] == pytest.approx(4 / 6)
    assert assertion["value"].startswith("Rate (the answer)\n")
    assert "0, which stands for 1, to 1, which stands for 7" in assertion["value"]
    without = {name: value for name, value in grader.items() if name != "pass_threshold"}
    with pytest.raises(NothingTaken) as none:
        convert(tmp_path, eval_of(without), run, judged=True)
    assert "has no pass_threshold" in none.value.notes[0].text


def test_the_newest_prompt_is_taken_and_another_one_is_named(tmp_path: Path) -> None:
    old = run_of({"q": "?", "a": "b"}, created_at=1)
    turns = [{"role": "user", "content": "New: {{item.q}}"}]
    new = run_of(messages={"template": turns}, created_at=2, id="run_2")

    found = convert(tmp_path, eval_of(check("eq")), old, new)

    assert found.items[0]["metadata"]["messages"] == [{"role": "user", "content": "New: ?"}]
    assert "run_1 asked with another prompt" in left(found)["input_messages"]


def test_tools_and_the_answers_form_stay_and_the_temperature_does_not(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    sampling = {"tools": [tool], "temperature": 0, "response_format": {"type": "json_object"}}

    found = convert(
        tmp_path, eval_of(check("eq")), run_of({"q": "?", "a": "b"}, sampling=sampling)
    )

    metadata = found.items[0]["metadata"]
    assert (metadata["tools"], metadata["response_format"]["type"]) == ([tool], "json_object")
    assert list(left(found)) == ["sampling_params.temperature"]


def test_a_prompt_with_a_picture_leaves_its_item_out(tmp_path: Path) -> None:
    picture = [{"type": "input_image", "image_url": "https://x/y.png"}]
    run = run_of(
        {"q": "?", "a": "b"}, messages={"template": [{"role": "user", "content": picture}]}
    )

    with pytest.raises(NothingTaken) as none:
        convert(tmp_path, eval_of(check("eq")), run)

    assert "without a text, such as a picture" in none.value.notes[-1].text


def test_a_conversation_in_an_item_is_the_prompt_of_its_item_reference(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    run = run_of({"chat": turns, "a": "b"}, messages={"item_reference": "item.chat"})

    assert (
        convert(tmp_path, eval_of(check("eq")), run).items[0]["metadata"]["messages"] == turns
    )


def test_two_evals_make_no_suite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 evals"):
        convert(tmp_path, eval_of(check("eq")), eval_of(check("ne")))


def test_items_belong_to_an_eval_and_an_eval_to_its_items(tmp_path: Path) -> None:
    installation = open_installation(configured(tmp_path))
    table = tmp_path / "table.csv"
    table.write_text("input,target\na,b\n", encoding="utf-8")
    data = tmp_path / "data.jsonl"
    data.write_text('{"item": {"q": "?", "a": "b"}}\n{"item": {"q": "!", "a": "c"}}\n', "utf-8")
    eval_ = tmp_path / "eval.json"
    eval_.write_text(json.dumps(eval_of(check("eq"))), encoding="utf-8")

    def refused(file: Path, *items: Path) -> str:
        choice = SourceChoice(items=items)
        with pytest.raises(InputError) as error:
            import_source(installation, ANA, str(file), SuiteSettings("own"), choice)
        return str(error.value)

    assert "has no OpenAI eval, which --items belongs to" in refused(table, data)
    assert "no items: give its data file, run or output items by --items" in refused(eval_)
    assert "items of an OpenAI eval without its graders" in refused(data)
    assert "no item is usable" in refused(eval_, data)
    assert not list(tmp_path.rglob("own*"))


def output_item(number: int, run: str, model: str, **more: object) -> dict[str, Any]:
    return {
        "id": f"{run}-{number}",
        "run_id": run,
        "eval_id": "eval_1",
        "status": "pass",
        "datasource_item_id": number,
        "datasource_item": {"q": f"Question {number}"},
        "results": [{"name": "right", "passed": True, "score": 1.0}],
        "sample": {
            "model": model,
            "error": None,
            "input": [{"role": "user", "content": f"Question {number}"}],
            "output": [{"role": "assistant", "content": "x"}],
        },
        **more,
    }


def lines(rows: Sequence[object]) -> str:
    return "\n".join(map(json.dumps, rows))


def test_two_runs_of_one_model_keep_apart() -> None:
    rows = [output_item(n, run, "m") for run in ("run_a", "run_b") for n in (1, 2)]

    runs = parse_openai_evals(lines(rows))

    assert [(run.model, len(run.samples)) for run in runs] == [("m run_a", 2), ("m run_b", 2)]


def test_a_failed_item_without_a_models_name_stays_in_its_run() -> None:
    failed = output_item(2, "run_a", "m", sample=None, status="error")

    (run,) = parse_openai_evals(lines([output_item(1, "run_a", "m"), failed]))

    assert run.model == "m"
    assert [sample.score("right") for sample in run.samples] == [1.0, None]
    assert [sample.failed for sample in run.samples] == [False, True]


def test_a_run_that_graded_stored_answers_has_scores_without_outputs() -> None:
    sample: dict[str, Any] = {"model": "", "error": None, "input": [], "output": []}

    (run,) = parse_openai_evals(
        lines([output_item(n, "run_a", "", sample=sample) for n in (1, 2)])
    )

    assert run.model == "run_a"
    assert [sample.score("right") for sample in run.samples] == [1.0, 1.0]


def test_runs_that_sent_other_prompts_are_not_compared_without_a_reason() -> None:
    other = [
        output_item(
            n,
            "run_b",
            "n",
            sample={
                "model": "n",
                "input": [{"role": "user", "content": f"Please: {n}"}],
                "output": [{"content": "x"}],
            },
        )
        for n in (1, 2)
    ]
    (first,) = parse_openai_evals(lines([output_item(n, "run_a", "m") for n in (1, 2)]))
    (second,) = parse_openai_evals(lines(other))

    with pytest.raises(InputError, match="prompts of 2 of 2 items"):
        pair_runs(first, second, "right")


def test_graders_of_one_name_with_other_settings_are_not_compared() -> None:
    def run(reference: str, model: str) -> str:
        grader = {**check("eq", reference), "name": "right"}
        items = [output_item(n, model, model) for n in (1, 2)]
        return json.dumps(
            {"eval": eval_of(grader), "runs": [{"run": {}, "output_items": items}]}
        )

    (first,) = parse_openai_evals(run("{{item.a}}", "m"))
    (same,) = parse_openai_evals(run("{{item.a}}", "n"))
    (other,) = parse_openai_evals(run("{{item.b}}", "n"))

    assert len(pair_runs(first, same, "right").pairs) == 2
    with pytest.raises(InputError, match="the runs differ in scorer right"):
        pair_runs(first, other, "right")


def test_a_status_counts_only_if_every_grader_gave_a_score() -> None:
    def graded(score: float | None) -> list[dict[str, Any]]:
        good = {"name": "right", "passed": True, "score": 1.0}
        return [good, {"name": "polite", "passed": score and score > 0, "score": score}]

    rows = [
        output_item(1, "run_a", "m", results=graded(1.0)),
        output_item(2, "run_a", "m", results=graded(0.0), status="fail"),
        output_item(3, "run_a", "m", results=graded(None), status="fail"),
    ]

    (run,) = parse_openai_evals(lines(rows))

    assert [sample.score("status") for sample in run.samples] == [1.0, 0.0, None]
