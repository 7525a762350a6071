import pytest

from evals.scorers import ScoreResult, find_scorer
from evals.scorers.ifeval import KINDS, PARAMETERS
from evals.suites.items import Item
from harness.domain.errors import InputError


def item(kind: str, **params: object) -> Item:
    return Item("i", "asked", {"instruction_id_list": [kind], "kwargs": [params]})


CASES: list[tuple[str, dict[str, object], str, str]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "less than", "capital_frequency": 2},
        "One LOUD word",
        "TWO LOUD words",
    ),
    ("change_case:english_capital", {}, "ALL LOUD.", "Not loud."),
    ("change_case:english_lowercase", {}, "all small.", "Not small."),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say it."},
        "Say it. Said.",
        "Said. Say it.",
    ),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\nP.S. y", "x y"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x\nP.P.S y", "P.S. y"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "*a* and **b**",
        "*a* and b",
    ),
    ("detectable_format:title", {}, "<<Tea>>\nhot", "<< >>\nhot"),
    ("keywords:existence", {"keywords": ["tea", "milk"]}, "Milk in tea", "Tea"),
    ("keywords:forbidden_words", {"forbidden_words": ["tea"]}, "a team", "Tea!"),
    (
        "keywords:frequency",
        {"keyword": "tea", "relation": "at least", "frequency": 2},
        "tea, Tea",
        "tea",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_relation": "less than", "let_frequency": 1},
        "none",
        "quite",
    ),
    ("language:response_language", {"language": "ko"}, "안녕하세요", "hello"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "tea"},
        "a\n\nTea, b",
        "a\n\nb",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 2},
        "One.",
        "One. Two.",
    ),
    (
        "length_constraints:number_words",
        {"relation": "at least", "num_words": 3},
        "one two three",
        "one two",
    ),
    ("punctuation:no_comma", {}, "a b", "a, b"),
    ("startend:end_checker", {"end_phrase": "The end."}, "So, the end.", "The end. So"),
    ("startend:quotation", {}, '"quoted"', 'not "quoted"'),
]


@pytest.mark.parametrize(("kind", "params", "kept", "broken"), CASES)
def test_each_instruction_tells_kept_from_broken(
    kind: str, params: dict[str, object], kept: str, broken: str
) -> None:
    ifeval = find_scorer("ifeval")
    asked = item(kind, **params)

    assert ifeval.check(asked, ifeval.options({})) is None
    assert ifeval.score(kept, asked, ifeval.options({})) == ScoreResult(1, 1)
    assert ifeval.score(broken, asked, ifeval.options({})).strict == 0


def test_every_instruction_that_we_claim_to_check_is_tried_here() -> None:
    assert {kind for kind, _, _, _ in CASES} == set(KINDS)
    assert set(PARAMETERS) <= set(KINDS)


def test_a_loose_score_forgives_an_opening_line() -> None:
    ifeval = find_scorer("ifeval")

    assert ifeval.score(
        "Sure, here it is:\nno commas in it", item("punctuation:no_comma"), ifeval.options({})
    ) == ScoreResult(0, 1, "punctuation:no_comma")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (item("language:response_language", language="de"), "language de cannot be told"),
        (item("startend:rhyme"), "startend:rhyme is not known"),
        (item("startend:end_checker"), "lacks end_phrase"),
    ],
)
def test_an_item_that_cannot_be_checked_is_left_out_with_a_reason(
    asked: Item, reason: str
) -> None:
    ifeval = find_scorer("ifeval")

    assert reason in str(ifeval.check(asked, ifeval.options({})))


def test_graded_is_the_share_of_instructions_followed() -> None:
    ifeval = find_scorer("ifeval")
    asked = Item(
        "i",
        "asked",
        {
            "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
            "kwargs": [{}, {}],
        },
    )

    assert ifeval.score("plain", asked, ifeval.options({"graded": True})).strict == 0.5


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
LIST = {"type": "array", "items": {"type": "string"}}


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        ('{"n": 1}', ScoreResult(1, 1)),
        (' {"n": 1}\n', ScoreResult(1, 1)),
        ('```json\n{"n": 1}\n```', ScoreResult(0, 1, "code_fence")),
        ('Here: {"n": 1}', ScoreResult(0, 1, "leading_prose")),
        ("{'n': 1}", ScoreResult(0, 1, "single_quotes")),
        ('{"n": 1,}', ScoreResult(0, 1, "trailing_comma")),
        ('{"n": "1"}', ScoreResult(0, 1, "value_type")),
        ('{"N": 1}', ScoreResult(0, 0)),
        ('{"n": 1, "m": 2}', ScoreResult(0, 0)),
        ("null", ScoreResult(0, 0)),
        ("no JSON at all", ScoreResult(0, 0, "no_json")),
        ("", ScoreResult(0, 0, "empty_answer")),
    ],
)
def test_json_schema(answer: str, scored: ScoreResult) -> None:
    chosen = find_scorer("json_schema")
    item = Item("i", "asked", SCHEMA)

    assert chosen.check(item, chosen.options({})) is None
    assert chosen.score(answer, item, chosen.options({})) == scored


def test_the_schema_may_stand_in_the_options_and_ask_for_a_list() -> None:
    chosen = find_scorer("json_schema")
    options = chosen.options({"schema": LIST})
    item = Item("i", "asked", "anything")

    assert chosen.check(item, options) is None
    assert chosen.score('["a"]', item, options) == ScoreResult(1, 1)
    assert chosen.score('```\n["a"]\n```', item, options) == ScoreResult(0, 1, "code_fence")


@pytest.mark.parametrize(
    ("target", "told"), [("x", "needs a schema"), ({"type": 7}, "not a JSON Schema")]
)
def test_a_schema_that_is_none_is_told(target: object, told: str) -> None:
    chosen = find_scorer("json_schema")

    with pytest.raises(InputError, match=told):
        chosen.check(Item("i", "asked", target), chosen.options({}))


def test_an_option_of_the_wrong_kind_is_told() -> None:
    with pytest.raises(InputError, match="'schema': 'x' is not a mapping"):
        find_scorer("json_schema").options({"schema": "x"})
