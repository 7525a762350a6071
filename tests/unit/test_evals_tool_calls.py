import json
from pathlib import Path
from typing import Any

import pytest

from evals.runner.questions import answer_text
from evals.scorers import AnswerToolCall, ScoreResult, find_scorer
from evals.suites.conversation import merge_fields
from evals.suites.items import Item
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError

RIGHT = ScoreResult(1, 1)
WRONG = ScoreResult(0, 0)
TARGET = {"name": "weather.today", "arguments": {"city": "Oslo", "days": 3}}


def form(rule: str) -> ScoreResult:
    return ScoreResult(0, 1, rule)


def judged(
    answer: str,
    *calls: AnswerToolCall,
    target: object = TARGET,
    any_of: bool = False,
) -> ScoreResult:
    chosen = find_scorer("tool_call")
    item = Item("i", "asked", target)
    options = chosen.options({"any_of": any_of})
    assert chosen.check(item, options) is None
    assert chosen.calls is not None
    return chosen.calls(calls, answer, item, options)


def call(name: str = "weather.today", **arguments: object) -> AnswerToolCall:
    return AnswerToolCall(name, json.dumps(arguments or TARGET["arguments"]))


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("made", "scored"),
    [
        (call(), RIGHT),
        (call(days=3.0, city="Oslo"), RIGHT),
        (call(city="Oslo", days="3"), form("argument_type")),
        (call("weather_today"), form("tool_name_form")),
        (call("weather-today"), form("tool_name_form")),
        (call("functions.weather.today"), form("tool_name_form")),
        (
            AnswerToolCall("weather.today", "{'city': 'Oslo', 'days': 3}"),
            form("single_quotes"),
        ),
        (
            AnswerToolCall("weather.today", '{"city": "Oslo", "days": 3,}'),
            form("trailing_comma"),
        ),
        (
            AnswerToolCall("weather.today", json.dumps(json.dumps(TARGET["arguments"]))),
            form("double_escaped"),
        ),
        (call(city="Bergen", days=3), WRONG),
        (call(city="Oslo"), WRONG),
        (call(city="Oslo", days=3, unit="C"), WRONG),
        (call("weather.tomorrow"), WRONG),
        (AnswerToolCall("weather.today", "Oslo, please"), WRONG),
    ],
)
def test_a_call_is_right_by_its_name_and_arguments(
    made: AnswerToolCall, scored: ScoreResult
) -> None:
    assert judged("", made) == scored


@pytest.mark.req("A8")
@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        (json.dumps(TARGET), form("call_as_text")),
        (f"```json\n{json.dumps(TARGET)}\n```", form("call_as_text")),
        (f"I will look.\n{json.dumps(TARGET)}", form("call_as_text")),
        (
            f"<tool_call>{json.dumps(TARGET)}</tool_call>",
            form("call_as_text"),
        ),
        (json.dumps([TARGET]), form("call_as_text")),
        (
            json.dumps({"tool_calls": [{"function": TARGET}]}),
            form("call_as_text"),
        ),
        (
            json.dumps({"tool": "weather.today", "args": TARGET["arguments"]}),
            form("call_as_text"),
        ),
        (
            json.dumps({"name": "weather.today", "arguments": {"city": "Bergen"}}),
            WRONG,
        ),
        ("It is raining in Oslo.", WRONG),
        ("", ScoreResult(0, 0, "empty_answer")),
    ],
)
def test_a_call_that_is_written_as_text_breaks_the_form_only(
    answer: str, scored: ScoreResult
) -> None:
    assert judged(answer) == scored


def test_several_calls_are_right_in_any_order_and_none_may_be_missing() -> None:
    other = {"name": "time", "arguments": {}}
    both = [TARGET, other]

    assert judged("", AnswerToolCall("time", ""), call(), target=both) == RIGHT
    assert judged("", call(), target=both) == WRONG
    assert judged("", call(), call(), target=both) == WRONG


def test_where_no_call_is_right_words_are() -> None:
    assert judged("None of my tools fits.", target=[]) == RIGHT
    assert judged("", call(), target=[]) == WRONG


def test_accepted_values_may_be_several_and_an_argument_optional() -> None:
    target = {
        "name": "area",
        "arguments": {"base": [10], "unit": ["cm", "units", ""]},
    }

    assert (
        judged(
            "",
            call("area", base=10),
            target=target,
            any_of=True,
        )
        == RIGHT
    )
    assert (
        judged(
            "",
            call("area", base=10, unit="cm"),
            target=target,
            any_of=True,
        )
        == RIGHT
    )
    assert judged(
        "",
        call("area", base="10"),
        target=target,
        any_of=True,
    ) == form("argument_type")
    assert (
        judged(
            "",
            call("area", unit="cm"),
            target=target,
            any_of=True,
        )
        == WRONG
    )


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("weather", {}, "needs a target of the form"),
        ([{"name": "weather"}], {}, "needs a target of the form"),
        (
            TARGET,
            {"any_of": True},
            "every argument of 'weather.today' is a list",
        ),
    ],
)
def test_a_target_that_is_no_call_is_told(
    target: object,
    options: dict[str, Any],
    told: str,
) -> None:
    chosen = find_scorer("tool_call")

    with pytest.raises(InputError, match=told):
        chosen.check(Item("i", "asked", target), chosen.options(options))


def test_an_answer_with_calls_is_stored_with_them() -> None:
    assert answer_text("Hello.", []) == "Hello."
    assert json.loads(answer_text("", [call(), AnswerToolCall("x", "{")])) == {
        "content": "",
        "tool_calls": [TARGET, {"name": "x", "arguments": "{"}],
    }


def test_an_item_may_have_tools_of_its_own() -> None:
    ours = {
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    item = Item(
        "i",
        "asked",
        "x",
        metadata={"tools": [tool], "tool_choice": "required"},
    )

    assert merge_fields(ours, item) == {
        "tools": [tool],
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (
            {"tool": []},
            "unknown field 'tool'; it knows tools, tool_choice, response_format",
        ),
        (
            {"tools": [{"name": "f"}]},
            "tools must be a list of objects of the form",
        ),
        ({"tool_choice": 1}, "tool_choice must be a text or an object"),
        ({"response_format": "json"}, "response_format must be an object"),
    ],
)
def test_a_wrong_field_of_the_request_is_told_with_its_place(
    tmp_path: Path,
    request_: dict[str, object],
    told: str,
) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text('{"input": "a", "target": "b"}', encoding="utf-8")
    settings = SuiteSettings("s", path=file, request=request_)

    with pytest.raises(InputError, match="suite 's': request: " + told):
        load_suite(settings)
    item = Item("i", "asked", "x", metadata=request_)
    if "tool" not in request_:
        with pytest.raises(InputError, match="item 'i': metadata: " + told):
            merge_fields({}, item)
