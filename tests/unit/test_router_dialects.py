import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Endpoint,
    restrict_endpoints,
)
from harness.providers.target import Price, RequestPatch, Target
from router.frame.body import ClientRequest, read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.frame.replies import JSON, Reply
from router.protocols.answers import TokenUsage
from router.protocols.endpoints import DIALECTS
from router.request.client_directives import read_directives, sticky_key

F = FailureClass
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "s",
        "schema": {},
        "strict": True,
    },
}


def request(endpoint: str, **fields: Any) -> ClientRequest:
    body = {"model": "r", **fields}
    return read_request(json.dumps(body).encode(), Endpoint(endpoint))


def sent(
    endpoint: str,
    target: Target,
    *,
    serial: bool = False,
    **fields: Any,
) -> Any:
    dialect = DIALECTS[Endpoint(endpoint)]
    asked = request(endpoint, **fields)
    return json.loads(dialect.patched(asked, target, serialize_tools=serial))


# Who is who


@pytest.mark.parametrize(
    ("endpoint", "fields", "key"),
    [
        (
            "messages",
            {"metadata": {"user_id": "ann"}, "messages": HI},
            "user:ann",
        ),
        ("responses", {"user": "ann", "input": "hi"}, "user:ann"),
        (
            "responses",
            {"safety_identifier": "ann", "user": "all"},
            "safety_identifier:ann",
        ),
        (
            "chat",
            {"metadata": {"session_id": "s", "user_id": "ann"}},
            "user:ann",
        ),
        (
            "chat",
            {"metadata": {"session_id": "s", "tag": "x"}},
            "conversation:s",
        ),
        ("chat", {"litellm_session_id": "s"}, "conversation:s"),
        ("chat", {"session_id": "s"}, "conversation:s"),
        (
            "chat",
            {"metadata": {}, "litellm_metadata": {"user_id": "ann"}},
            "user:ann",
        ),
        (
            "responses",
            {"input": "hi", "conversation": {"id": "conv_1"}},
            "conversation:conv_1",
        ),
        (
            "chat",
            {"providerOptions": {"gateway": {"user": "ann"}}},
            "user:ann",
        ),
        (
            "responses",
            {"user_security_context": {"end_user_id": "ann"}},
            "user:ann",
        ),
        (
            "messages",
            {"litellm_metadata": {"user": "ann"}, "messages": HI},
            "user:ann",
        ),
        (
            "chat",
            {"metadata": {"userId": "ann", "sessionId": "s"}},
            "user:ann",
        ),
        ("chat", {"orq": {"thread": {"id": "s"}}}, "conversation:s"),
        (
            "chat",
            {
                "providerOptions": {"gateway": {"tags": ["x"]}},
                "messages": [],
            },
            "",
        ),
        ("messages", {"metadata": {"user_id": 7}, "messages": []}, ""),
        ("messages", {"metadata": 7}, ""),
        ("responses", {"input": [{"type": "item_reference"}]}, "key:k"),
        (
            "responses",
            {"input": "hi", "previous_response_id": "resp_1"},
            "key:k",
        ),
        (
            "responses",
            {"input": "hi", "conversation": "conv_1"},
            "conversation:conv_1",
        ),
    ],
)
def test_callers_are_told_apart_by_what_the_body_says(
    endpoint: str,
    fields: dict[str, Any],
    key: str,
) -> None:
    assert sticky_key(request(endpoint, **fields), None, "k") == key


@pytest.mark.parametrize(
    ("endpoint", "system", "said"),
    [
        ("messages", "system", "messages"),
        ("responses", "instructions", "input"),
    ],
)
def test_a_conversation_keeps_its_arm_as_it_grows(
    endpoint: str,
    system: str,
    said: str,
) -> None:
    def key(
        text: str,
        more: list[dict[str, str]],
        rules: str = "be kind",
    ) -> str:
        messages = [{"role": "user", "content": text}, *more]
        return sticky_key(request(endpoint, **{system: rules, said: messages}), None, "k")

    first = key("hi", [])
    assert first.startswith("opening:")
    later = [
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "more"},
    ]
    assert key("hi", later) == first
    assert key("hello", []) != first
    assert key("hi", [], "be rude") != first


@pytest.mark.parametrize(
    "rules",
    [
        "You help. It is {at:%Y-%m-%d %H:%M:%S}, {at:%A}.",
        "{at:%d %B %Y}, {at:%I:%M %p}. Request 7f3a{at:%S}c0-{at:%M%S}. You help.",
        "x-anthropic-billing-header: cc_version=2.1; cch=ab{at:%S}f;\nYou are Claude Code.",
        "Turn {at:%S} of this chat. You help.",
        # A name's length says nothing, where the rules are long.
        "It is {at:%A}, {at:%-d} {at:%B}, {at:%-H:%M}. " + "You help, and are kind. " * 30,
        "nonce 01ARZ{at:%M%S}KTSV4RRFFQ69G5FAV, eyJhbG.J{at:%S}.abc. You help.",
    ],
)
def test_a_clock_in_the_rules_leaves_a_conversation_its_arm(rules: str) -> None:
    began = datetime(2026, 11, 30, 23, 58, tzinfo=UTC)
    keys = set()
    said = [{"role": "user", "content": "hi"}]
    for turn in range(10):
        system = {
            "role": "system",
            "content": rules.format(at=began + turn * timedelta(hours=7)),
        }
        keys.add(sticky_key(request("chat", messages=[system, *said]), None, "k"))
        said += [
            {"role": "assistant", "content": f"{turn}"},
            {"role": "user", "content": "on"},
        ]

    assert len(keys) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Heute ist Montag, 30. November.",
            "Heute ist Dienstag, 1. Dezember.",
        ),
        (
            "Nous sommes le lundi 30 novembre.",
            "Nous sommes le mardi 1 décembre.",
        ),
        ("Сегодня понедельник, 30 ноября.", "Сегодня вторник, 1 декабря."),
        ("今天是2026年11月30日星期一。", "今天是2026年12月1日星期二。"),
        ("It is the 2nd of May.", "It is the 31st of July."),
    ],
)
def test_a_date_in_the_rules_is_masked_in_other_languages_as_well(one: str, other: str) -> None:
    keys = {
        sticky_key(
            request(
                "chat",
                messages=[
                    {"role": "system", "content": f"{date} {rules}"},
                    {"role": "user", "content": "hi"},
                ],
            ),
            None,
            "k",
        )
        for date in (one, other)
        for rules in ("You help.", "Sei nett. " * 50)
    }

    assert len(keys) == 2


def test_the_headers_of_known_clients_name_a_person_or_else_a_conversation() -> None:
    def named(*headers: tuple[str, str]) -> bytes | None:
        lines = [(name.encode(), value.encode()) for name, value in headers]
        return read_directives({"headers": lines}).sticky

    for name in (
        "x-openwebui-user-id",
        "x-openwebui-chat-id",
        "x-litellm-session-id",
        "session_id",
        "x-session-id",
        "x-claude-code-session-id",
        "session-id",
        "thread-id",
        "conversation_id",
        "helicone-user-id",
        "langfuse_trace_user_id",
        "x-session-affinity",
        "x-opencode-session",
        "x-auth-request-user",
        "x-auth-request-email",
        "x-llmgateway-user-id",
        "x-forwarded-user",
        "x-ms-client-principal-id",
    ):
        assert named((name, "it")) == b"it", name
    assert named(("x-openwebui-chat-id", "c"), ("x-openwebui-user-id", "u")) == b"u"
    assert named(("x-openwebui-chat-id", "c"), ("x-openwebui-user-id", "")) == b"c"
    assert named(("x-session-id", "c"), ("x-swapproof-sticky", "mine")) == b"mine"
    for name in (
        "x-request-id",
        "x-ms-client-session-id",
        "authorization",
        "a_" * 90 + "x",
    ):
        assert named((name, "it")) is None, name
    for name, value in (
        ("x-portkey-metadata", '{"_user": "it", "environment": "prod"}'),
        ("cf-aig-metadata", '{"team": "AI", "user": "it", "test": true}'),
        ("x-tfy-metadata", '{"customer_id": "it"}'),
        ("x-amzn-bedrock-request-metadata", '{"userId": "it"}'),
        ("x-gateway-metadata", '{"user_email":"it"}'),
        ("baggage", "langfuse_session_id=s,langfuse_user_id=it;ttl=1"),
    ):
        assert named((name, value), ("x-session-id", "c")) == b"it", name
    assert named(("cf-aig-metadata", '{"user": 12345}')) == b"12345"
    for value in ("[" * 9000, "[1]", "{", '{"team": "AI"}'):
        assert named(("cf-aig-metadata", value)) is None


def test_an_input_that_is_a_text_begins_a_conversation_too() -> None:
    one = sticky_key(request("responses", input="a"), None, "k")
    two = sticky_key(request("responses", input="b"), None, "k")

    assert one.startswith("opening:")
    assert one != two


# What the target gets

PATCH = RequestPatch(parameters={"max_tokens": 9, "stream": True}, prompt_addendum="Be brief.")


@pytest.mark.req("A8")
def test_a_patch_reaches_a_response_under_its_own_names() -> None:
    patch = RequestPatch({**PATCH.parameters, "input": "never"}, "Be brief.", SCHEMA)
    target = Target("p", "m", {"temperature": 0}, patch)

    assert sent(
        "responses",
        target,
        input="hi",
        text={"verbosity": "low"},
    ) == {
        "model": "m",
        "input": "hi",
        "text": {
            "verbosity": "low",
            "format": {
                "type": "json_schema",
                "name": "s",
                "schema": {},
                "strict": True,
            },
        },
        "temperature": 0,
        "max_output_tokens": 9,
        "instructions": "Be brief.",
    }
    assert sent(
        "responses",
        target,
        input="hi",
        instructions="Sé.",
    )["instructions"] == ("Sé.\n\nBe brief.")
    assert (
        sent(
            "responses",
            target,
            input="hi",
            instructions=None,
        )["instructions"]
        == "Be brief."
    )


@pytest.mark.req("A8")
def test_a_patch_reaches_a_message_under_its_own_names() -> None:
    target = Target("p", "m", {"max_completion_tokens": 5, "top_k": 1}, PATCH)
    cached = {
        "type": "text",
        "text": "a",
        "cache_control": {"type": "ephemeral"},
    }

    assert sent(
        "messages",
        target,
        messages=HI,
        max_tokens=100,
    ) == {
        "model": "m",
        "messages": HI,
        "max_tokens": 9,
        "top_k": 1,
        "system": "Be brief.",
    }
    assert sent("messages", target, system="Sé.")["system"] == "Sé.\n\nBe brief."
    assert sent("messages", target, system=[cached])["system"] == [
        cached,
        {"type": "text", "text": "Be brief."},
    ]


@pytest.mark.req("B7")
def test_tools_are_called_one_at_a_time_in_each_protocols_words() -> None:
    target = Target("p", "m")

    assert sent("responses", target, serial=True)["parallel_tool_calls"] is False
    assert sent("messages", target, serial=True)["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    choice = {"type": "tool", "name": "f"}
    assert sent(
        "messages",
        target,
        serial=True,
        tool_choice=choice,
    )["tool_choice"] == {
        **choice,
        "disable_parallel_tool_use": True,
    }


def test_a_target_measured_with_a_response_format_gets_no_messages() -> None:
    assert (
        restrict_endpoints(UNKNOWN_CAPABILITIES, PROVIDER_KINDS["sim"].serves)
        is UNKNOWN_CAPABILITIES
    )
    anthropic = restrict_endpoints(UNKNOWN_CAPABILITIES, PROVIDER_KINDS["anthropic"].speaks)
    assert (anthropic.messages, anthropic.chat, anthropic.embeddings) == (True, False, False)
    openai = restrict_endpoints(UNKNOWN_CAPABILITIES, PROVIDER_KINDS["openai"].speaks)
    assert (openai.messages, openai.responses, openai.chat) == (False, True, True)


# What is an answer

MESSAGE = {
    "type": "message",
    "model": "claude",
    "content": [{"type": "text", "text": "a"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 3,
        "cache_read_input_tokens": 4,
        "output_tokens": 2,
    },
}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "output": [{"type": "function_call"}],
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def checked(endpoint: str, body: object) -> TokenUsage | None:
    return DIALECTS[Endpoint(endpoint)].checked(parse_object(json.dumps(body).encode()))


def test_a_whole_answer_tells_its_usage() -> None:
    assert checked("messages", MESSAGE) == TokenUsage(7, 2, cached_tokens=4)
    written = {"cache_creation": {"ephemeral_1h_input_tokens": 400_000}}
    usage = {
        "input_tokens": 0,
        "cache_creation_input_tokens": 1_000_000,
        **written,
    }
    told = checked("messages", {**MESSAGE, "usage": usage})
    assert told == TokenUsage(1_000_000, 0, 0, 1_000_000, 400_000)
    # Written for 5 minutes 1.25 times the price of other input, for an hour 2 times.
    assert Price(1.0, 4.0).answer_usd(*told) == pytest.approx(0.6 * 1.25 + 0.4 * 2.0)
    assert Price(1.0, 4.0, 0.1, 3.0).answer_usd(*told) == pytest.approx(0.6 * 3.0 + 0.4 * 4.8)
    assert checked("responses", RESPONSE) == TokenUsage(3, 2)
    assert checked("responses", {**RESPONSE, "usage": None}) is None
    assert checked("messages", {**MESSAGE, "usage": 1}) is None


@pytest.mark.parametrize(
    ("endpoint", "body", "failure"),
    [
        ("messages", {}, F.MALFORMED),
        ("messages", {**MESSAGE, "content": None}, F.MALFORMED),
        (
            "messages",
            {
                **MESSAGE,
                "content": [],
                "stop_reason": None,
            },
            F.MALFORMED,
        ),
        (
            "messages",
            {"type": "error", "error": {"type": "overloaded_error"}},
            F.OVERLOADED,
        ),
        ("messages", {"type": "error"}, F.MALFORMED),
        ("responses", {}, F.MALFORMED),
        ("responses", {"output": {}}, F.MALFORMED),
        (
            "responses",
            {**RESPONSE, "error": {"code": "server_error"}},
            F.SERVER,
        ),
        ("responses", {"error": "no"}, F.MALFORMED),
    ],
)
def test_what_is_no_answer_has_its_class(
    endpoint: str,
    body: object,
    failure: F,
) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        checked(endpoint, body)

    assert refused.value.failure is failure


# What an error looks like


def error_body(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DIALECTS[Endpoint.MESSAGES].error(reply, "req_1").body)
    return found


def test_an_error_that_is_anthropics_already_stays_as_it_is() -> None:
    reply = Reply(
        400,
        (JSON,),
        b'{ "type":"error","error":{"type":"x_error","message":"m"}}',
    )

    assert DIALECTS[Endpoint.MESSAGES].error(reply, "req_1") is reply
    assert DIALECTS[Endpoint.CHAT].error(reply, "req_1") is reply


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_any_json_of_a_provider_becomes_an_error_with_a_message(value: object) -> None:
    for body in (value, {"error": value}):
        found = error_body(Reply(400, (JSON,), json.dumps(body).encode()))
        assert isinstance(found["error"]["message"], str)


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        (
            Endpoint.CHAT,
            {"response_format": {"type": "json_object", "schema": {"a": 1}}},
        ),
        (
            Endpoint.RESPONSES,
            {"text": {"format": {"type": "json_object", "schema": {}}}},
        ),
    ],
)
def test_a_schema_beside_any_json_is_not_held_against_an_answer(
    endpoint: Endpoint, asked: dict[str, object]
) -> None:
    body = json.dumps(
        {
            "model": "chat",
            "messages": [],
            "input": "hi",
            **asked,
        }
    ).encode()

    assert DIALECTS[endpoint].schema(read_request(body, endpoint)) == {}
