import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.capabilities import Capabilities
from router.conversation.chat_history import move_chat
from router.conversation.intake import INTAKES
from router.conversation.tool_schemas import SCHEMA_RULES, write_schema
from router.frame.failure import Untranslatable
from router.upstream.reply_reading import ReadReply
from router.upstream.translate.file_parts import is_file_url
from router.upstream.translate.provider_errors import translate_refusal
from router.upstream.translate.request_screening import (
    RULES,
    ScreenedRequest,
    screen_request,
    untranslatable_field,
)
from router.upstream.translate.translation import free_forced_tool, settle_thinking
from tests.wire import anthropic, gemini
from tests.wire.server import Refused

pytestmark = pytest.mark.req("B7")

KINDS = sorted(RULES)


def screened(kind: str, **more: Any) -> ScreenedRequest:
    messages = [{"role": "user", "content": "Hello?"}]
    return screen_request(
        {
            "model": "m",
            "messages": messages,
            **more,
        },
        kind,
    )


@pytest.mark.parametrize("kind", ["anthropic", "bedrock"])
def test_what_anthropics_models_refuse_or_lack_is_said_otherwise_and_named(kind: str) -> None:
    greeted = [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "Hi"},
    ]
    json_mode = {"type": "json_object"}

    found = screened(
        kind,
        messages=greeted,
        stop=["\n", "END"],
        response_format=json_mode,
    )

    assert found.params == {"stop": ["END"]}
    roles = [message["role"] for message in found.messages]
    assert roles == ["system", "system", "user", "assistant"]
    assert "one JSON object" in found.messages[1]["content"]
    assert set(found.dropped) == {"stop", "messages", "response_format"}
    assert screened(kind, stop="\n").params == {}
    assert screened(kind, stop=["END"]).dropped == {}
    assert screened("gemini", response_format=json_mode).params["response_format"] == json_mode


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("functions", [{"name": "f"}]),
        ("audio", {"voice": "a"}),
    ],
)
def test_what_changes_the_answer_is_refused_by_name(
    kind: str,
    name: str,
    value: object,
) -> None:
    with pytest.raises(Untranslatable, match=f"`{name}`") as caught:
        screened(kind, **{name: value})
    assert caught.value.param == name
    # Of targets that differ, those are asked that need no translation.
    assert untranslatable_field({name: value}.get) == name


@pytest.mark.parametrize("value", [None, False, [], ["text"], 1])
def test_what_says_nothing_leaves_the_choice_of_targets_alone(value: object) -> None:
    names = ("n",) if value == 1 else ("audio", "modalities", "functions")
    assert untranslatable_field(dict.fromkeys(names, value).get) == ""


def test_log_probabilities_are_refused_where_there_are_none() -> None:
    with pytest.raises(Untranslatable, match="log probabilities"):
        screened("anthropic", logprobs=True)
    assert screened("gemini", logprobs=True).params["logprobs"] is True
    assert screened("anthropic", logprobs=False).dropped == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hint_is_dropped_and_named_unless_it_says_nothing(kind: str) -> None:
    request = screened(
        kind,
        store=True,
        logit_bias={"1": 2},
        verbosity="low",
        metadata={},
        n=1,
    )

    assert [*request.dropped] == ["store", "logit_bias", "verbosity"]
    assert request.params == {}
    assert [*screened("anthropic", seed=0, presence_penalty=0).dropped] == ["seed"]


@pytest.mark.parametrize(
    ("kind", "url", "taken"),
    [
        ("anthropic", "https://pictures.example/a.png", True),
        ("anthropic", "http://pictures.example/a.png", False),
        ("gemini", "https://pictures.example/a.png", False),
        ("gemini", "gs://bucket/a", False),
        ("gemini", "data:image/png;base64,AAAA", True),
        ("anthropic", "data:image/png,plain", False),
        ("anthropic", "file:///etc/passwd", False),
    ],
)
def test_only_what_the_provider_fetches_itself_may_be_a_url(
    kind: str,
    url: str,
    *,
    taken: bool,
) -> None:
    image = {
        "type": "image_url",
        "image_url": {
            "url": url,
            "format": "x",
            "detail": "high",
        },
    }
    body = {"model": "m", "messages": [{"role": "user", "content": [image]}]}
    if not taken:
        with pytest.raises(Untranslatable, match="image_url"):
            screen_request(body, kind)
        return
    request = screen_request(body, kind)
    assert request.messages[0]["content"][0]["image_url"] == {"url": url}
    assert [*request.dropped] == ["image_url.detail"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "message",
    [
        "text",
        {
            "role": "function",
            "name": "f",
            "content": "1",
        },
        {"role": "user", "content": [{"type": "video_url"}]},
        {"role": "user", "content": 7},
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_id": "file-1"}}],
        },
    ],
)
def test_a_message_of_no_known_form_is_refused(kind: str, message: object) -> None:
    with pytest.raises(Untranslatable, match="messages"):
        screen_request({"model": "m", "messages": [message]}, kind)


def thinking(tokens: int, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}, **more}


ADAPTIVE = {"thinking": {"type": "adaptive"}}
CHOSEN = {"tool_choice": {"type": "any"}, "top_k": 3}


@pytest.mark.parametrize(
    ("params", "left", "dropped"),
    [
        (
            {"temperature": 1.7},
            {"temperature": 1.0},
            ["temperature"],
        ),
        (
            thinking(2048, temperature=0.2),
            thinking(2048),
            ["temperature"],
        ),
        (
            thinking(4096, max_tokens=3000),
            thinking(2250, max_tokens=3000),
            [],
        ),
        (
            thinking(4096, max_tokens=1300),
            {"max_tokens": 1300},
            ["reasoning_effort"],
        ),
        (
            thinking(1024, max_tokens=100),
            {"max_tokens": 100},
            ["reasoning_effort"],
        ),
        ({**ADAPTIVE, **CHOSEN}, CHOSEN, ["reasoning_effort"]),
    ],
)
def test_thinking_and_what_it_excludes(
    params: dict[str, Any],
    left: dict[str, Any],
    dropped: list[str],
) -> None:
    assert settle_thinking(params, []) == dropped
    assert params == left


@given(
    budget=st.integers(1, 40_000),
    limit=st.integers(1, 60_000),
    own_budget=st.booleans(),
)
def test_an_answer_keeps_its_share_of_the_limit_or_there_is_no_thinking(
    budget: int,
    limit: int,
    *,
    own_budget: bool,
) -> None:
    params = thinking(budget, max_tokens=limit)

    dropped = settle_thinking(params, [], own_budget=own_budget)

    assert ("thinking" in params) is (dropped == [])
    if "thinking" in params:
        left = limit - params["thinking"]["budget_tokens"]
        chosen = own_budget and params["thinking"]["budget_tokens"] == budget
        assert left >= 1
        assert chosen or left >= max(limit / 4, 256)


def test_a_tools_turn_that_began_without_thought_goes_on_without() -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    turn: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "1"},
    ]

    assert settle_thinking(thinking(1024, max_tokens=9000), turn) == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("choice", "always", "sent"),
    [
        ("required", True, "auto"),
        ({"type": "function", "function": {"name": "f"}}, True, "auto"),
        ("none", True, "none"),
        ("required", None, "required"),
    ],
)
def test_a_forced_tool_is_freed_for_a_model_that_always_thinks_and_that_is_said(
    choice: object, sent: object, *, always: bool | None
) -> None:
    can = Capabilities(thinks_always=always)
    request = ScreenedRequest("m", [], {"tool_choice": choice}, can=can)
    said = free_forced_tool(request)
    assert request.params["tool_choice"] == sent
    assert said == ([] if sent == choice else ["tool_choice"])


def test_an_answer_that_the_request_begins_has_no_thinking() -> None:
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking: prefilled
    answers are incompatible with thinking.
    """
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]
    assert settle_thinking(thinking(1024, max_tokens=9000), begun) == ["reasoning_effort"]
    assert settle_thinking(thinking(1024, max_tokens=9000), begun[:1]) == []


def test_what_is_foreign_is_taken_out_for_a_provider_that_refuses_it() -> None:
    part = {"type": "text", "text": 'the word "cache_control" stays'}
    function = {"name": "f", "arguments": "{}"}
    call = {
        "id": "1",
        "extra_content": {"google": {}},
        "function": function,
    }
    chat = {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [{**part, "cache_control": {"type": "ephemeral"}}],
            },
            {
                "role": "assistant",
                "reasoning_content": "hm",
                "tool_calls": [call],
            },
            {
                "role": "assistant",
                "reasoning_details": [{"text": "hm"}],
                "content": "yes",
            },
        ],
    }
    body, dropped, _ = move_chat(json.dumps(chat).encode(), INTAKES["groq"])

    gone = {
        "cache_control",
        "extra_content",
        "reasoning_content",
        "reasoning_details",
    }
    assert set(dropped) == gone
    left = json.loads(body)["messages"]
    assert left[0]["content"] == [part]
    assert set(left[1]) == {"role", "tool_calls"}
    assert set(left[2]) == {"role", "content"}


LONG: Final = "The input token count (9) exceeds the maximum number of tokens allowed (8)."
NO_KEY: Final = {"reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("kind", "fault", "status", "told", "wait_s"),
    [
        (
            "anthropic",
            anthropic.OVERLOADED,
            529,
            {"type": "overloaded_error"},
            None,
        ),
        ("anthropic", anthropic.RATE_LIMITED, 429, {}, b"17"),
        (
            "gemini",
            gemini.RATE_LIMITED,
            429,
            {"type": "rate_limit_error"},
            b"17",
        ),
        (
            "gemini",
            gemini.error(400, "INVALID_ARGUMENT", "No.", NO_KEY),
            401,
            {},
            None,
        ),
        (
            "gemini",
            gemini.error(400, "INVALID_ARGUMENT", LONG),
            400,
            {"code": "context_length_exceeded", "message": LONG},
            None,
        ),
    ],
)
async def test_a_refusal_keeps_its_cause_its_words_and_the_time_to_wait(
    kind: str,
    fault: Refused,
    status: int,
    told: dict[str, str],
    wait_s: bytes | None,
) -> None:
    given = [(k.encode(), v.encode()) for k, v in fault.headers.items()]
    reply = ReadReply(fault.status, given, json.dumps(fault.body).encode())
    refusal = await translate_refusal(reply, kind)

    assert (refusal.status, dict(refusal.headers).get(b"retry-after")) == (
        status,
        wait_s,
    )
    error = json.loads(await refusal.body())["error"]
    assert error["message"] == fault.body["error"]["message"]
    assert told.items() <= error.items()


Json = dict[str, Any]
TREE: Json = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "children": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/node"},
                }
            },
        }
    },
}
EACH_KIND = pytest.mark.parametrize("kind", SCHEMA_RULES)


def written(kind: str, schema: Json) -> tuple[Json, bool]:
    before = json.dumps(schema)
    found = write_schema(schema, SCHEMA_RULES[kind])
    assert json.dumps(schema) == before
    return found.schema, found.is_weaker


@EACH_KIND
def test_alternatives_at_the_top_become_one_object_and_that_is_told(kind: str) -> None:
    branches = [
        {
            "properties": {"path": {"type": "string"}, "id": {}},
            "required": ["id", "path"],
        },
        {
            "properties": {"url": {"type": "string"}, "id": {}},
            "required": ["id", "url"],
        },
    ]
    for name in ("anyOf", "oneOf"):
        schema, weaker = written(kind, {name: branches})
        assert schema["type"] == "object"
        assert set(schema["properties"]) == {"path", "url", "id"}
        assert schema["required"] == ["id"]
        assert weaker

    schema, weaker = written(kind, {"allOf": branches, "additionalProperties": False})
    assert sorted(schema["required"]) == ["id", "path", "url"]
    assert schema["additionalProperties"] is False
    assert not weaker


@EACH_KIND
def test_no_reference_points_nowhere(kind: str) -> None:
    schema, weaker = written(kind, TREE)
    keeps = SCHEMA_RULES[kind].keeps_definitions
    assert ("$defs" in schema) == keeps
    assert ("$ref" in json.dumps(schema)) == keeps
    assert weaker != keeps  # a recursion has no end

    repeated = {
        "properties": {
            "a": {"type": "integer"},
            "b": {"$ref": "#/properties/a"},
        }
    }
    schema, weaker = written(kind, repeated)
    assert schema["properties"]["b"] == {"type": "integer"}
    assert not weaker
    _, weaker = written(kind, {"properties": {"a": {"$ref": "#/nowhere"}}})
    assert weaker


def test_google_gets_values_of_one_type_and_bounds_in_words() -> None:
    schema, weaker = written(
        "gemini",
        {
            "properties": {
                "level": {"enum": ["low", 1, None]},
                "kind": {"const": "a"},
                "n": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "How many.",
                },
            }
        },
    )
    level, kind, n = schema["properties"].values()
    assert {"type": "string", "enum": ["low"]} in level["anyOf"]
    assert {"type": "null"} in level["anyOf"]
    assert kind == {"type": "string", "enum": ["a"]}
    assert n["description"] == "How many. It is greater than 0."
    assert not weaker
    assert written("gemini", {"properties": {"a": {"patternProperties": {}}}})[1]


@EACH_KIND
def test_what_every_kind_knows_stays(kind: str) -> None:
    plain = {
        "type": "object",
        "properties": {
            "a": {
                "type": ["string", "null"],
                "description": "d",
                "minLength": 1,
            }
        },
        "required": ["a"],
        "additionalProperties": {"type": "string"},
        "description": "all",
    }
    assert written(kind, plain) == (plain, False)


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {},
            {"type": "string"},
            {"$ref": "#"},
            {"enum": [1, "a"]},
            None,
            3,
        ]
    ),
    lambda inner: st.dictionaries(
        st.sampled_from(
            [
                "properties",
                "anyOf",
                "allOf",
                "items",
                "$defs",
                "$ref",
                "required",
                "enum",
            ]
        ),
        inner | st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
        max_size=3,
    ),
    max_leaves=12,
)


@EACH_KIND
@given(schema=st.dictionaries(st.sampled_from(["properties", "anyOf", "$defs"]), SCHEMAS))
def test_any_schema_is_written(kind: str, schema: Json) -> None:
    found, _ = written(kind, schema)
    assert found["type"] == "object"
    assert isinstance(found["properties"], dict)


@pytest.mark.parametrize(
    ("reasoning", "params", "dropped"),
    [
        ({"effort": "low"}, {"reasoning_effort": "low"}, []),
        ({"max_tokens": 2000}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, []),
        ({"enabled": True}, {"reasoning_effort": "medium"}, []),
        ({"enabled": False}, {"reasoning_effort": "none"}, []),
        ({"exclude": True}, {}, ["reasoning.exclude"]),
    ],
)
def test_openrouters_reasoning_is_an_effort_or_a_budget(
    reasoning: object, params: object, dropped: list[str]
) -> None:
    request = screened("anthropic", reasoning=reasoning)

    assert request.params == params
    assert list(request.dropped) == dropped


def test_an_effort_beside_reasoning_wins() -> None:
    request = screened("anthropic", reasoning={"effort": "low"}, reasoning_effort="high")

    assert request.params == {"reasoning_effort": "high"}


def test_a_choice_of_a_tool_that_is_not_offered_is_refused() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    other = {"type": "function", "function": {"name": "g"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [other]}}

    with pytest.raises(Untranslatable, match="tool_choice"):
        screened("anthropic", tools=[tool], tool_choice=choice)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("data:text/plain;base64,/w==", "no UTF-8 text"),
        ("data:text/plain;base64,####", "no UTF-8 text"),
        ("data:application/zip;base64,UEs=", "send PDF or text"),
    ],
)
def test_a_file_that_claude_cannot_read_is_refused_with_the_way_out(
    data: str, words: str
) -> None:
    part = {"type": "file", "file": {"filename": "a", "file_data": data}}
    message = {"role": "user", "content": [part]}

    with pytest.raises(Untranslatable, match=words):
        screen_request({"model": "m", "messages": [message]}, "anthropic")


@pytest.mark.parametrize("kind", [None, 7, [], {"a": 1}])
def test_a_part_whose_type_is_no_text_is_refused(kind: object) -> None:
    message = {"role": "user", "content": [{"type": kind, "text": "hi"}]}

    with pytest.raises(Untranslatable, match=r"content\[0\]\.type"):
        screen_request({"model": "m", "messages": [message]}, "anthropic")


@pytest.mark.parametrize("long", ["a", ";", ";base64", "a;"])
def test_a_long_url_without_data_is_refused_in_time(long: str) -> None:
    """A search with backtracking took minutes, and blocked the worker."""
    part = {"type": "image_url", "image_url": {"url": f"data:{long * 2_000_000}"}}
    message = {"role": "user", "content": [part]}

    with pytest.raises(Untranslatable, match="in base64"):
        screen_request({"model": "m", "messages": [message]}, "anthropic")


@pytest.mark.parametrize(
    ("url", "is_file"),
    [
        ("data:application/pdf;base64,JVBERi0", True),
        ("data:;name=a;base64,JVBERi0", True),
        ("data:TEXT/plain;charset=utf-8;base64,QQ==", True),
        ("data:image/png;base64,QQ==", False),
        ("data:text/plain,JVBERi0;base64,QQ==", False),
        ("data:;base64", False),
        ("https://example.com/a.pdf", False),
        (None, False),
        ({"a": 1}, False),
    ],
)
def test_only_a_data_url_of_no_picture_is_a_file(url: object, *, is_file: bool) -> None:
    assert is_file_url(url) is is_file
