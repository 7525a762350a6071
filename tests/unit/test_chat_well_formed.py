import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.frame.failure import MalformedRequest, Untranslatable
from router.upstream.translate.request_screening import RULES, screen_request

KINDS = sorted(RULES)
USER = {"role": "user", "content": "Rain?"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}


def calls(*arguments: Any, ids: str = "abc") -> dict[str, Any]:
    made = [
        {
            "id": id_,
            "type": "function",
            "function": {"name": "f", "arguments": argument},
        }
        for id_, argument in zip(ids, arguments, strict=False)
    ]
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": made,
    }


def result(id_: str) -> dict[str, Any]:
    return {
        "role": "tool",
        "tool_call_id": id_,
        "content": "rain",
    }


def refused(kind: str, **body: Any) -> Untranslatable:
    with pytest.raises(Untranslatable) as caught:
        screen_request(
            {
                "model": "m",
                "messages": [USER],
                **body,
            },
            kind,
        )
    return caught.value


@pytest.mark.req("B7")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("Hello?", "messages"),
        ([], "messages"),
        ([{"role": "system", "content": "Be brief."}], "messages"),
        ([{"role": "user", "content": ""}], "messages"),
        (
            [{"role": "user", "content": [{"type": "text", "text": ""}]}],
            "messages",
        ),
        ([{"role": "user"}], "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text",
        ),
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([USER, result("zz")], "messages[1].tool_call_id"),
        (
            [
                USER,
                calls("{}"),
                result("a"),
                result("a"),
            ],
            "messages[3].tool_call_id",
        ),
        (
            [USER, calls("{}", "{}"), result("b"), USER],
            "messages[1].tool_calls[0]",
        ),
        (
            [USER, calls("{}", "{}", ids="aa")],
            "messages[1].tool_calls[1].id",
        ),
        (
            [
                USER,
                calls("{}"),
                result("a"),
                {"role": "assistant", "content": "x"},
                result("a"),
            ],
            "messages[4].tool_call_id",
        ),
        *(
            (
                [
                    USER,
                    calls("{}", broken),
                    result("a"),
                    result("b"),
                ],
                "messages[1].tool_calls[1].function.arguments",
            )
            for broken in (
                '{"city":',
                "[1]",
                "7",
                '{"x": NaN}',
                {"x": 1},
                None,
                "[" * 9999,
            )
        ),
        (
            [USER, {"role": "assistant", "function_call": {}}],
            "messages[1].function_call",
        ),
    ],
)
def test_a_chat_that_is_none_is_refused_with_its_place(
    kind: str,
    messages: Any,
    param: str,
) -> None:
    assert refused(kind, messages=copy.deepcopy(messages)).param == param


@pytest.mark.req("B7")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", float("inf")),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_completion_tokens", "9"),
        ("stop", 7),
        ("stop", ["a", None]),
        ("parallel_tool_calls", "no"),
        ("reasoning_effort", "weird"),
        ("reasoning_effort", 3),
        ("tools", {}),
        ("tools[0].function.name", [{"type": "function", "function": {}}]),
        ("tool_choice", "sometimes"),
        ("tool_choice", "required"),
        (
            "tool_choice.function.name",
            {"type": "function", "function": {"name": "g"}},
        ),
        ("response_format", "json"),
        (
            "response_format.json_schema.schema",
            {"type": "json_schema", "json_schema": {}},
        ),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(
    kind: str,
    name: str,
    value: Any,
) -> None:
    found = refused(kind, **{name.partition("[")[0].partition(".")[0]: value})

    assert isinstance(found, MalformedRequest)
    assert found.param == name


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_tool_loop_is_taken_and_empty_arguments_are_an_object(kind: str) -> None:
    messages = [
        USER,
        calls("", '{"city": "Oslo"}'),
        result("b"),
        result("a"),
        USER,
    ]
    body = {
        "model": "m",
        "messages": messages,
        "tools": [TOOL],
        "tool_choice": "required",
    }

    request = screen_request(copy.deepcopy(body), kind)

    made = [message["function"]["arguments"] for message in request.messages[1]["tool_calls"]]
    assert made == ["{}", '{"city": "Oslo"}']


NAMES = st.sampled_from(
    """role content type text tool_calls tool_call_id id function name arguments image_url url
    audio refusal parameters json_schema schema cache_control extra_content google""".split()  # noqa: SIM905 - words
)
WORDS = st.sampled_from(
    "user assistant tool system function text image_url json_schema {} [1] a auto".split()  # noqa: SIM905 - words
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    """messages tools tool_choice temperature stop response_format reasoning_effort seed n
    max_tokens thinking top_logprobs logprobs parallel_tool_calls model""".split()  # noqa: SIM905 - words
)


@given(
    body=st.dictionaries(FIELDS, VALUES, max_size=4),
    turns=st.lists(VALUES, max_size=3),
)
def test_whatever_comes_is_taken_or_refused_in_words(
    body: dict[str, Any], turns: list[Any]
) -> None:
    for kind in KINDS:
        asked = {
            "model": "m",
            "messages": [USER, *turns],
            **body,
        }
        assert _outcome(copy.deepcopy(asked), kind), json.dumps(asked)


def _outcome(body: dict[str, Any], kind: str) -> object:
    try:
        return screen_request(body, kind)
    except Untranslatable as error:
        return error.param
