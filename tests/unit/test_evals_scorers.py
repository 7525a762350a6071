import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evals import scorers
from evals.scorers import SCORERS, ScoreResult, find_scorer, scorer_identity
from evals.suites.items import Item
from harness.frame.errors import InputError, NotFound
from harness.gate.run import UNREADABLE

RIGHT = ScoreResult(1, 1)
WRONG = ScoreResult(0, 0)
NONE = ScoreResult(None, None)
EMPTY = ScoreResult(0, 0, "empty_answer")


def form(rule: str) -> ScoreResult:
    """Right in substance, wrong in form."""
    return ScoreResult(0, 1, rule)


def judged(
    name: str,
    answer: str,
    item: Item,
    **given: Any,
) -> ScoreResult:
    chosen = find_scorer(name)
    options = chosen.complete([item], chosen.options(given))
    assert chosen.check(item, options) is None
    return chosen.score(answer, item, options)


def to(target: object, **metadata: object) -> Item:
    return Item("i", "asked", target, metadata=metadata)


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("Paris", RIGHT),
        (" Paris\n", RIGHT),
        ("paris", form("case")),
        ("```\nParis\n```", form("code_fence")),
        ("```Paris```", form("code_fence")),
        ("**Paris**", form("markup")),
        ('"Paris"', form("quotes")),
        ("Paris.", form("trailing_punctuation")),
        ("The capital is:\nParis", form("leading_prose")),
        ("Paris\nIt lies on the Seine.", form("trailing_prose")),
        ("London", WRONG),
        ("  ", EMPTY),
    ],
)
def test_exact(answer: str, scored: ScoreResult) -> None:
    assert judged("exact", answer, to("Paris")) == scored


def test_exact_takes_any_of_a_list_and_may_ignore_case() -> None:
    assert judged("exact", "8", to([8, "eight"])) == RIGHT
    assert judged("exact", "EIGHT", to([8, "eight"]), ignore_case=True) == RIGHT


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("3 times 14 is 42.\nANSWER: 42", RIGHT),
        ("ANSWER: 42.00", RIGHT),
        ("ANSWER: 42 apples", form("final_line_form")),
        ("**ANSWER: 42**", form("markup")),
        ("answer: 42", form("final_line_form")),
        ("ANSWER: 42\nI hope that helps!", form("trailing_prose")),
        ("So there are 42.", form("no_final_line")),
        ("3 times 14 is 42.\nANSWER: 43", WRONG),
        ("There are 41.", WRONG),
        ("ANSWER: $42", form("final_line_form")),
        ("I cannot answer this.", ScoreResult(0, 0, "no_number")),
        ("", EMPTY),
    ],
)
def test_numeric_on_a_final_line(answer: str, scored: ScoreResult) -> None:
    assert judged("numeric", answer, to("42"), final_line="ANSWER:") == scored


@pytest.mark.parametrize(
    ("answer", "target", "scored"),
    [
        ("That makes 1,234.5 in all.", "1234.5", RIGHT),
        ("5-3", 3, RIGHT),
        ("It fell to -7", -7, RIGHT),
        ("It fell to −7", -7, RIGHT),
        ("It costs $18.", "18", RIGHT),
        ("#### 18", 18, RIGHT),
        ("18 then 19", 18, WRONG),
        ("version v2", 2, ScoreResult(0, 0, "no_number")),
    ],
)
def test_numeric_without_a_form_takes_the_last_number(
    answer: str,
    target: object,
    scored: ScoreResult,
) -> None:
    assert judged("numeric", answer, to(target)) == scored


def test_numeric_allows_its_tolerance_and_no_more() -> None:
    assert judged("numeric", "10.4", to(10), tolerance=0.5) == RIGHT
    assert judged("numeric", "10.6", to(10), tolerance=0.5) == WRONG


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("account_access", RIGHT),
        ("Account access", form("case")),
        ("`account_access`", form("markup")),
        ("Queue: account_access", form("label_with_extra_text")),
        ("account_access, not billing", WRONG),
        ("billing", WRONG),
        ("accountable access", ScoreResult(0, 0, "no_label")),
        ("I would ask a colleague.", ScoreResult(0, 0, "no_label")),
    ],
)
def test_label(answer: str, scored: ScoreResult) -> None:
    assert (
        judged(
            "label",
            answer,
            to("account_access"),
            labels=["account_access", "billing"],
        )
        == scored
    )


def test_a_longer_label_hides_a_shorter_one_within_it() -> None:
    labels = ["refund", "refund status"]

    assert (
        judged(
            "label",
            "It is refund status",
            to("refund status"),
            labels=labels,
        ).lenient
        == 1
    )


def test_without_a_list_the_labels_are_the_targets_of_the_suite() -> None:
    label = find_scorer("label")
    items = [to("red"), to("blue")]

    assert label.complete(items, label.options({}))["labels"] == [
        "blue",
        "red",
    ]


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("B", RIGHT),
        ("(B)", form("label_with_extra_text")),
        ("The answer is B.", form("label_with_extra_text")),
        ("A is tempting.\nAnswer: **B**", form("label_with_extra_text")),
        ("It must be blue", form("label_with_extra_text")),
        ("Answer: C", WRONG),
        ("C", WRONG),
        ("no idea", ScoreResult(0, 0, "no_choice")),
    ],
)
@pytest.mark.parametrize("target", ["B", 1, "blue"])
def test_choice(
    target: object,
    answer: str,
    scored: ScoreResult,
) -> None:
    item = Item("i", "asked", target, choices=("red", "blue", "green"))

    assert judged("choice", answer, item) == scored


def test_choice_on_a_final_line() -> None:
    item = Item("i", "asked", "B", choices=("red", "blue"))

    assert judged("choice", "Well.\nANSWER: B", item, final_line="ANSWER:") == RIGHT
    assert judged("choice", "B", item, final_line="ANSWER:") == form("no_final_line")


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("AB-12", RIGHT),
        ("`AB-12`", form("markup")),
        ("The code is AB-12, I think", form("extra_text")),
        ("ab-12", WRONG),
        ("", EMPTY),
    ],
)
def test_regex(answer: str, scored: ScoreResult) -> None:
    assert judged("regex", answer, to("[A-Z]{2}-[0-9]+")) == scored


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "total": {"type": ["number", "null"]},
    },
    "required": ["name", "total"],
    "additionalProperties": False,
}
FIELDS = to({"name": 'Anna "A" Bo', "total": 12.5}, schema=SCHEMA)
GOOD = json.dumps(FIELDS.target)


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        (GOOD, RIGHT),
        (f"\n{GOOD}\n", RIGHT),
        (
            GOOD.replace('"', '\\"').replace('\\\\"', '\\\\\\"'),
            form("double_escaped"),
        ),
        (GOOD.replace('\\"', '\\\\\\"'), form("double_escaped")),
        (GOOD.replace("}", ', "note": "x"}'), form("schema")),
        (
            f"```\n{GOOD.replace('}', ',}')}\n```",
            form("code_fence+trailing_comma"),
        ),
        (GOOD.replace("12.5", "12.6"), WRONG),
        (f"```json\n{GOOD.replace('12.5', '12.6')}\n```", WRONG),
        ("{}", WRONG),
        ("[1, 2]", ScoreResult(0, 0, "no_json")),
        ("There is no invoice here.", ScoreResult(0, 0, "no_json")),
        ("", EMPTY),
    ],
)
def test_json_fields(answer: str, scored: ScoreResult) -> None:
    assert judged("json_fields", answer, FIELDS) == scored


def test_json_fields_can_be_graded() -> None:
    half = GOOD.replace("12.5", "1")

    assert judged("json_fields", half, FIELDS, graded=True) == ScoreResult(0.5, 0.5)
    assert judged("json_fields", f"```{half}```", FIELDS, graded=True) == ScoreResult(
        0, 0.5, "code_fence"
    )


def test_true_is_not_one_and_one_is_one_point_zero() -> None:
    assert judged("json_fields", '{"a": true}', to({"a": 1})) == WRONG
    assert judged("json_fields", '{"a": 1.0, "b": [2]}', to({"a": 1, "b": [2.0]})) == RIGHT


NUMBERED = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
TEXTS = {"type": "array", "items": {"type": "string"}}


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ('{"n": 1}', RIGHT),
        (' {"n": 1}\n', RIGHT),
        ('```json\n{"n": 1}\n```', form("code_fence")),
        ('Here: {"n": 1}', form("leading_prose")),
        ("{'n': 1}", form("single_quotes")),
        ('{"n": 1,}', form("trailing_comma")),
        ('{"n": "1"}', form("value_type")),
        ('{"N": 1}', WRONG),
        ('{"n": 1, "m": 2}', WRONG),
        ("null", WRONG),
        ("no JSON at all", ScoreResult(0, 0, "no_json")),
        ("", EMPTY),
    ],
)
def test_json_schema(answer: str, scored: ScoreResult) -> None:
    assert judged("json_schema", answer, to(NUMBERED)) == scored


def test_the_schema_may_stand_in_the_options_and_ask_for_a_list() -> None:
    item = to("anything")
    given = {"schema": TEXTS}

    assert judged("json_schema", '["a"]', item, **given) == RIGHT
    assert judged("json_schema", '```\n["a"]\n```', item, **given) == form("code_fence")


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        (
            {"rule": "sentences_exact", "count": 2},
            "One. Two!",
            "One. Two! Three?",
        ),
        (
            {"rule": "sentences_exact", "count": 2},
            'He said: "Go." (I went.)',
            '"Go." Went. ?',
        ),
        (
            {"rule": "sentences_exact", "count": 1},
            "**Wait...**",
            "v1.5 " + "." * 300_000 + "x",
        ),
        (
            {
                "rule": "words_between",
                "low": 2,
                "high": 3,
            },
            "one - two",
            "one",
        ),
        ({"rule": "bullets_exact", "count": 2}, "- a\n- b", "* a\n- b"),
        ({"rule": "paragraphs_exact", "count": 2}, "a\n\nb", "a\nb"),
        (
            {"rule": "include_words", "words": ["rain", "sun"]},
            "Sun, then rain",
            "trains, sun",
        ),
        ({"rule": "exclude_words", "words": ["rain"]}, "a train", "Rain!"),
        ({"rule": "lower_case"}, "all small", "All small"),
        (
            {"rule": "ends_with", "phrase": "The end."},
            "So. The end.\n",
            "The end. So.",
        ),
        ({"rule": "starts_with", "word": "Well"}, "Well, then", "Oh well"),
        ({"rule": "no_commas"}, "a b", "a, b"),
        ({"rule": "title_in_angles"}, "<<On tea>>\ntext", "<On tea>\ntext"),
    ],
)
def test_each_rule_of_writing(
    rule: dict[str, object],
    kept: str,
    broken: str,
) -> None:
    assert judged("instructions", kept, to("a model answer", rules=[rule])) == RIGHT
    assert judged("instructions", broken, to("a model answer", rules=[rule])).strict == 0


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ("One, two. Three.", WRONG),
        ("One two. Three.", RIGHT),
        ("```\nOne two. Three.\n```", form("code_fence")),
        ("Sure, here it is:\nOne two. Three.", form("leading_prose")),
        (
            "One two. Three.\n\nShall I go on, or not?",
            form("trailing_prose"),
        ),
        ("", EMPTY),
    ],
)
def test_instructions_forgive_what_is_around_the_text(answer: str, scored: ScoreResult) -> None:
    rules = [
        {"rule": "sentences_exact", "count": 2},
        {"rule": "no_commas"},
        {"rule": "starts_with", "word": "One"},
        {"rule": "ends_with", "phrase": "Three."},
    ]

    assert judged("instructions", answer, to("x", rules=rules)) == scored


def test_instructions_can_be_graded() -> None:
    rules = [{"rule": "no_commas"}, {"rule": "lower_case"}]

    assert judged("instructions", "a, b", to("x", rules=rules), graded=True).strict == 0.5


def test_an_unknown_scorer_and_an_unknown_option_name_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'json_fields'"):
        find_scorer("json_field")
    with pytest.raises(NotFound, match="there are: exact, "):
        find_scorer("zzz")
    with pytest.raises(InputError, match="did you mean 'tolerance'"):
        find_scorer("numeric").options({"tolerence": 1})
    with pytest.raises(InputError, match="'graded': 'yes' is not a yes or no"):
        find_scorer("json_fields").options({"graded": "yes"})
    with pytest.raises(InputError, match="it knows: labels"):
        find_scorer("label").options({"zzz": 1})
    with pytest.raises(InputError, match="'schema': 'x' is not a mapping"):
        find_scorer("json_schema").options({"schema": "x"})


@pytest.mark.parametrize(
    ("name", "item", "given", "told"),
    [
        ("numeric", to("many"), {}, "'many' is not a number"),
        ("numeric", to(True), {}, "is not a number"),  # noqa: FBT003 - a JSON value
        ("numeric", to(1), {"tolerance": -1}, "must be a number from 0 up"),
        ("label", to("green"), {"labels": ["red"]}, "'green' is not one of"),
        ("label", to("green"), {"labels": "red"}, "must be a list"),
        ("choice", to("A"), {}, "needs the field 'choices'"),
        (
            "choice",
            Item("i", "x", "C", choices=("a", "b")),
            {},
            "not one of its choices",
        ),
        ("regex", to("(("), {}, "not a regular expression"),
        ("json_fields", to("text"), {}, "needs an object"),
        (
            "json_fields",
            to({"a": 1}, schema={"type": 3}),
            {},
            "not a JSON Schema",
        ),
        ("instructions", to("x"), {}, "needs metadata.rules"),
        (
            "instructions",
            to("x", rules=[{"rule": "rhyme"}]),
            {},
            "unknown rule 'rhyme'",
        ),
        ("instructions", to("x", rules=["no_commas"]), {}, "unknown rule"),
        (
            "instructions",
            to("x", rules=[{"rule": "sentences_exact"}]),
            {},
            "must be a int",
        ),
        ("json_schema", to("x"), {}, "needs a schema"),
        ("json_schema", to({"type": 7}), {}, "not a JSON Schema"),
    ],
)
def test_an_item_that_a_scorer_cannot_judge_is_refused(
    name: str,
    item: Item,
    given: dict[str, object],
    told: str,
) -> None:
    chosen = find_scorer(name)
    with pytest.raises(InputError, match=told):
        chosen.check(item, chosen.complete([item], chosen.options(given)))


CHECKED = [
    ("contains-json", None),
    ("regex", "^a+b?"),
    ("levenshtein", "x"),
    ("is-json", None),
]
ITEMS = {
    "assertions": to("x", **{"assert": [{"type": k, "value": v} for k, v in CHECKED]}),
    "exact": to("Paris"),
    "numeric": to("42"),
    "choice": Item("i", "asked", "B", choices=("red", "blue")),
    "label": to("red tape"),
    "regex": to("[a-z]+"),
    "json_fields": FIELDS,
    "instructions": to("x", rules=[{"rule": "sentences_exact", "count": 2}]),
    "json_schema": to({"type": "array", "items": {"type": "number"}}),
    "tool_call": to({"name": "name", "arguments": {"a": 42}}),
}
OPTIONS: list[tuple[str, dict[str, bool]]] = [(name, {}) for name in sorted(ITEMS)]
OPTIONS += [(name, {"graded": True}) for name in ITEMS if "graded" in SCORERS[name].defaults]
PIECES = st.sampled_from(
    [
        "```",
        "```json\n",
        "{",
        "}",
        '"',
        "'",
        "\\",
        "\n",
        "ANSWER:",
        "42",
        ",",
        "B",
        "**",
        "red tape",
        "Paris",
        "[",
        "]",
        "null",
        "True",
        "9" * 5000,
        "<<",
        ">>",
        ". ",
        "name",
        ":",
    ]
)
answers = st.one_of(
    st.text(max_size=200),
    st.lists(PIECES, max_size=30).map("".join),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=10,
    ).map(json.dumps),
)


def test_every_scorer_is_among_those_that_the_laws_are_tried_on() -> None:
    slow = {name for name, scorer in SCORERS.items() if scorer.sandboxed or scorer.judged}

    assert ITEMS.keys() == SCORERS.keys() - slow


@pytest.mark.parametrize(("name", "given_options"), OPTIONS)
@given(answer=answers)
@example(answer="[" * 100_000)
@example(answer='{"a":' * 20_000)
@example(answer="a" * 100_000)
@example(answer=" \n" * 50_000)
@example(answer="9" * 100_000)
@example(answer="answer " + " " * 100_000 + "x")
@example(answer='\\"' * 50_000)
@example(answer="```" + " " * 100_000 + "x")
@example(answer='{"a":' + "[" * 980 + "]" * 980 + "}")
def test_no_answer_breaks_a_scorer_and_leniency_never_costs(
    name: str,
    given_options: dict[str, bool],
    answer: str,
) -> None:
    scored = judged(name, answer, ITEMS[name], **given_options)

    if scored.strict is None or scored.lenient is None:
        assert scored == NONE
        return
    assert 0 <= scored.strict <= scored.lenient <= 1
    assert bool(scored.rule) == (scored.strict < scored.lenient or scored.rule in UNREADABLE)


def test_a_scorers_identity_changes_with_its_options_and_its_name() -> None:
    numeric = find_scorer("numeric")
    one = numeric.options({})
    other = numeric.options({"tolerance": 0.5})

    assert scorer_identity(numeric, one) == scorer_identity(numeric, one)
    assert len({scorer_identity(numeric, one), scorer_identity(numeric, other)}) == 2
    assert scorer_identity(numeric, one).startswith("numeric@")


def test_the_imports_of_scorers_are_found_without_parsing_them() -> None:
    for file in Path(str(scorers.__file__)).parent.glob("*.py"):
        source = file.read_text(encoding="utf-8")
        nodes = ast.walk(ast.parse(source))
        parsed = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        assert sorted(scorers.list_imported_from(source)) == sorted(filter(None, parsed))
