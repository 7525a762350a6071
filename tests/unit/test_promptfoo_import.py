import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.scorers.assertions import ASSERTIONS
from evals.suites.dataset_import import read_dataset
from evals.suites.items import Item
from evals.suites.promptfoo import convert
from evals.suites.promptfoo_tests import parse_expected
from evals.suites.source_records import read_source
from harness.frame.configuration.config_conversion import NothingTaken, SourceConfig
from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import InputError

pytestmark = pytest.mark.req("F6")


ECHO = Path(__file__).parent.parent / "support/evals/promptfoo"


def score(
    answer: str,
    *checks: Mapping[str, Any],
    threshold: float | None = None,
    **options: Any,
) -> Any:
    item = Item(
        "i",
        "q",
        [],
        metadata={"assert": list(checks), "threshold": threshold},
    )
    assert ASSERTIONS.check(item, {}) is None
    return ASSERTIONS.score(answer, item, ASSERTIONS.options(options))


SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("equals", "yes", "yes", "Yes"),
        ("equals", {"a": [1]}, ' {"a": [1]}', '{"a": [2]}'),
        ("contains", "es", "yes", "yEs"),
        ("icontains", "ES", "yes", "no"),
        ("contains-any", "maybe, es", "yes", "no"),
        ("contains-any", ["maybe, es"], "maybe, es", "es"),
        ("contains-all", ["y", "s"], "yes", "y"),
        ("icontains-any", ["ES"], "yes", "no"),
        ("icontains-all", ["Y", "S"], "yes", "y"),
        ("starts-with", "ye", "yes", "aye"),
        ("ends-with", "es", "yes", "yes."),
        ("regex", "^y.s$", "yes", "yes!"),
        ("is-json", None, "[1]", "{1}"),
        ("is-json", SCHEMA, '{"a": 1}', '{"b": 1}'),
        ("contains-json", SCHEMA, 'so {b} {"b": 1} {"a": 1}', 'so {"b": 1}'),
        ("levenshtein", "yes", "yes1234", "yes1234567"),
        ("word-count", {"min": 2, "max": 3}, "a b", "a"),
        ("word-count", "2", "a b", "a b c"),
    ],
)
def test_an_assertion_means_what_it_means_in_promptfoo(
    kind: str,
    value: object,
    right: str,
    wrong: str,
) -> None:
    for prefix, passes in (("", 1.0), ("not-", 0.0)):
        check = {"type": prefix + kind, "value": value}
        assert score(right, check).strict == passes
        assert score(wrong, check).strict == 1 - passes


def test_weights_and_thresholds_count() -> None:
    one = {"type": "contains", "value": "a"}
    two = {
        "type": "contains",
        "value": "b",
        "weight": 3,
    }
    ignored = {
        "type": "contains",
        "value": "z",
        "weight": 0,
    }
    some = {
        "type": "assert-set",
        "assert": [one, two],
        "threshold": 0.7,
    }

    assert score("a", one, two).strict == 0
    assert score("a", one, two, ignored, graded=True).strict == 0.25
    assert score("b", one, two, threshold=0.75).strict == 1
    assert score("b", some).strict == 1
    assert score("a", some).strict == 0
    fenced = score('```json\n{"a": 1}\n```', {"type": "is-json"})
    assert (fenced.strict, fenced.lenient, fenced.rule) == (
        0,
        1,
        "code_fence",
    )


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("delivery", {"type": "equals", "value": "delivery"}),
        ("note: mind this", {"type": "equals", "value": "note: mind this"}),
        ("not-contains: x", {"type": "not-contains", "value": "x"}),
        (
            "levenshtein(3): x",
            {
                "type": "levenshtein",
                "value": "x",
                "threshold": 3.0,
            },
        ),
        ("is-json", {"type": "is-json"}),
        ("fn:output > 1", {"type": "javascript", "value": "fn:output > 1"}),
        ("grade: kind", {"type": "llm-rubric", "value": "kind"}),
        ("similar(0.9): x", {"type": "similar", "value": "x"}),
        ("is-sql", {"type": "is-sql"}),
    ],
)
def test_an_assertion_as_a_text_is_read(text: str, read: Mapping[str, object]) -> None:
    assert parse_expected(text) == read


FILES = {
    "chat.json": '[{"role": "system", "content": "Be {{tone}}."}, '
    '{"role": "user", "content": "{{mail}}"}]',
    "tests.csv": 'mail;__expected;__threshold\n"a; b";"contains: x";0.5\nc;python: 1;\n',
}
CONFIG: Mapping[str, Any] = {
    "prompts": [
        "Label: {{mail}}",
        "file://chat.json",
        "file://own.py",
        "{{ mail | upper }}",
    ],
    "providers": ["openai:gpt-5"],
    "defaultTest": {
        "vars": {"tone": "kind"},
        "assert": [{"type": "cost", "threshold": 1}],
    },
    "tests": [
        {
            "vars": {"mail": ["one", "two"]},
            "assert": [{"type": "contains", "value": "{{mail}}"}],
        },
        {
            "vars": {"mail": "x"},
            "options": {"transform": "output.trim()"},
            "assert": ["y"],
        },
        {"vars": {"mail": "x"}},
        "file://tests.csv",
    ],
    "evaluateOptions": {"repeat": 3},
    "unheard": 1,
}


def test_each_key_of_a_configuration_is_taken_or_named() -> None:
    source = SourceConfig(CONFIG, {(): "c.yaml:1"})

    plain, chat = convert(
        source,
        FILES.__getitem__,
        judged=False,
    )

    assert [item["input"] for item in plain.items] == [
        "Label: one",
        "Label: two",
        "Label: a; b",
    ]
    assert [item["metadata"]["assert"][0]["value"] for item in plain.items] == [
        "one",
        "two",
        "x",
    ]
    assert plain.items[2]["metadata"]["threshold"] == 0.5
    assert [m["content"] for m in chat.items[1]["metadata"]["messages"]] == [
        "Be kind.",
        "two",
    ]
    told = {note.key: f"{note.outcome}: {note.text}" for note in source.notes()}
    assert told["tests.1"].startswith("not taken: its `transform`")
    assert "no usable assertion" in told["tests.2"]
    assert told["tests.3"].startswith("changed: 1 of 2 tests")
    assert told["prompts.2"].startswith("not taken: is your code")
    assert "filter" in told["prompts.3"]
    assert told["defaultTest.assert.0"].startswith("not taken: `cost`")
    assert "epochs: 3" in told["evaluateOptions.repeat"]
    assert told["unheard"] == "not taken: Swapproof has no such setting"
    assert told["providers"].startswith("changed")


def test_each_test_passes_as_it_passes_in_promptfoo() -> None:
    """`echo` answers with the prompt; promptfoo wrote `promptfoo_echo_results.csv`."""
    config = ECHO / "promptfoo_echo.yaml"
    source = SourceConfig(parse_file(config, core=True).values, {})
    (suite,) = convert(
        source,
        lambda name: (ECHO / name).read_text(),
        judged=False,
    )
    with (ECHO / "promptfoo_echo_results.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    answer = rows[0].index("ayes")
    status = rows[0].index("FAIL")

    found = [(item["input"], item["metadata"]) for item in suite.items]

    assert [text for text, _ in found] == [row[answer] for row in rows]
    for (text, metadata), row in zip(found, rows, strict=True):
        item = Item("i", text, [], metadata=metadata)
        scored = [ASSERTIONS.score(text, item, {"graded": graded}) for graded in (False, True)]
        passed, graded = (f"{one.strict:.2f}" for one in scored)
        assert (text, passed, graded) == (
            text,
            f"{row[status] == 'PASS':.2f}",
            row[status + 1],
        )


def test_a_configuration_without_a_usable_test_is_bad_input() -> None:
    with pytest.raises(NothingTaken, match="no prompt has a usable test"):
        convert(
            SourceConfig({"prompts": ["{{x}}"], "tests": []}, {}),
            str,
            judged=False,
        )

    def missing(name: str) -> str:
        raise InputError(f"{name}: cannot be read")

    with pytest.raises(InputError, match=r"^t\.csv: cannot be read$") as fault:
        convert(
            SourceConfig({"prompts": ["{{x}}"], "tests": "t.csv"}, {}),
            missing,
            judged=False,
        )
    assert not isinstance(fault.value, NothingTaken)  # a report would blame each other key


@pytest.mark.parametrize(
    ("line", "tool", "target"),
    [
        (
            {
                "datasetId": "d",
                "input": "q",
                "expectedOutput": "a",
                "id": 7,
            },
            "langfuse",
            "a",
        ),
        (
            {"inputs": {"q": "q"}, "outputs": {"a": "a"}},
            "langsmith",
            {"a": "a"},
        ),
        ({"input": "q", "ideal": ["a", "b"]}, "openai-evals", ["a", "b"]),
        (
            {
                "_xact_id": "1",
                "input": "q",
                "expected": "a",
            },
            "braintrust",
            "a",
        ),
        ({"input": "q", "expectedOutput": "a"}, "deepeval", "a"),
        (
            {
                "input": "q",
                "expected": "a",
                "weather": "wet",
            },
            "",
            "a",
        ),
    ],
)
def test_a_data_set_is_recognised_by_its_fields(
    tmp_path: Path,
    line: Mapping[str, object],
    tool: str,
    target: object,
) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps(line))

    read = read_dataset(read_source(file))

    assert (read.tool, [item["target"] for item in read.items]) == (
        tool,
        [target],
    )
    assert all(note.outcome == "taken" or note.key in line for note in read.notes)


def test_a_file_without_right_answers_says_what_it_looks_like(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(
        json.dumps(
            {
                "datasetId": "d",
                "input": "q",
                "expectedOutput": None,
            }
        )
    )

    with pytest.raises(
        InputError,
        match="looks like a data set of langfuse, and has no question",
    ):
        read_dataset(read_source(file))


def test_an_assertion_by_its_templates_name_is_the_template() -> None:
    template = {"type": "contains", "value": "Hello"}
    config = {
        "prompts": ["Say {{word}}"],
        "assertionTemplates": {"greets": template},
        "tests": [
            {
                "vars": {"word": "Hello"},
                "assert": [{"$ref": "#/assertionTemplates/greets"}],
            },
            {
                "vars": {"word": "Hi"},
                "assert": [{"$ref": "#/assertionTemplates/unknown"}],
            },
        ],
    }

    (suite,) = convert(
        SourceConfig(config, {(): "c.yaml:1"}),
        FILES.__getitem__,
        judged=False,
    )

    assert [item["metadata"]["assert"] for item in suite.items] == [[template]]
