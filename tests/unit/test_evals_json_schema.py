"""`json_schema`: valid as it stands, valid once mended, or not valid."""

import pytest

from evals.scorers import ScoreResult, find_scorer
from evals.suites.items import Item
from harness.domain.errors import InputError

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
