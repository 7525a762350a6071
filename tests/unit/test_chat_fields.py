"""Fields of a chat that a target refuses, as the router sends them to it."""

import json
from typing import Any

import pytest

from harness.providers.target import Provider
from router.conversation.chat_fields import find_gates, find_message_gates, fit_chat
from router.conversation.chat_history import move_chat
from router.conversation.field_forms import fit_message
from router.conversation.intake import INTAKES
from tests.support.router.live_router import provider

pytestmark = pytest.mark.req("B7", "B11")
Json = dict[str, Any]


def of_kind(kind: str) -> Provider:
    return provider("http://127.0.0.1:1/v1", kind, kind=kind)


def sent(kind: str, chat: Json) -> tuple[Json, tuple[str, ...]]:
    """Returns what the target gets, and the names of the dropped parts."""
    body = json.dumps(chat).encode()
    gates = find_gates(of_kind(kind).abilities(str(chat["model"])))
    if not any(gate.field in body and gate.form.search(body) for gate in gates):
        return chat, ()
    fitted, dropped = fit_chat(body, of_kind(kind).abilities(str(chat["model"])))
    return json.loads(fitted), dropped


@pytest.mark.parametrize(
    ("kind", "chat", "dropped"),
    [
        ("openai", {"model": "gpt-5", "temperature": 0}, ("temperature",)),
        ("openai", {"model": "gpt-5", "temperature": 1}, ()),
        ("openai", {"model": "o3-mini", "top_p": 0.5, "stop": "x"}, ("top_p", "stop")),
        ("openai", {"model": "gpt-5-chat-latest", "temperature": 0}, ()),
        ("openai", {"model": "gpt-5.4", "temperature": 0}, ()),
        (
            "openai",
            {"model": "gpt-5.4", "temperature": 0, "reasoning_effort": "low"},
            ("temperature",),
        ),
        ("openai", {"model": "gpt-5.6", "temperature": 0}, ("temperature",)),
        ("openai", {"model": "gpt-5.6", "temperature": 0, "reasoning_effort": "none"}, ()),
        ("openai", {"model": "gpt-4o", "stop": ["a", "b", "c", "d"]}, ()),
        ("openai", {"model": "gpt-4o", "stop": ["a", "b", "c", "d", "e"]}, ("stop",)),
        ("gemini", {"model": "gemini-2.5-pro", "stop": ["a", "b", "c", "d", "e"]}, ()),
        ("anthropic", {"model": "claude-haiku-4-5", "temperature": 0, "top_p": 1}, ("top_p",)),
        ("anthropic", {"model": "claude-3-haiku", "temperature": 0, "top_p": 0.4}, ()),
        ("vllm", {"model": "m", "temperature": 0, "top_p": 0.4, "stop": ["a"] * 9}, ()),
    ],
)
def test_a_target_gets_the_sampling_and_the_stops_that_its_model_takes(
    kind: str, chat: Json, dropped: tuple[str, ...]
) -> None:
    fitted, names = sent(kind, chat)

    assert names == dropped
    kept = [name for name in chat if name not in dropped or name in fitted]
    assert {name: chat[name] for name in kept if name != "stop"} == {
        name: value for name, value in fitted.items() if name != "stop"
    }


def test_the_first_stop_sequences_stay() -> None:
    fitted, _ = sent("groq", {"model": "llama-3.3", "stop": ["a", "b", "c", "d", "e"]})

    assert fitted["stop"] == ["a", "b", "c", "d"]


def test_forms_out_of_habit_become_the_ones_that_the_target_knows() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = {
        "model": "gpt-4o",
        "parallel_tool_calls": None,
        "messages": [{"role": "assistant", "content": [], "tool_calls": [call]}],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"required": []}}},
            {"type": "function", "function": {"name": "g", "parameters": None}},
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
        ],
    }

    fitted, dropped = sent("openai", chat)

    shape = {"type": "object", "properties": {}}
    assert dropped == ()
    assert fitted == {
        "model": "gpt-4o",
        "messages": [{"role": "assistant", "tool_calls": [call]}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {**shape, "required": []}},
            },
            {"type": "function", "function": {"name": "g", "parameters": shape}},
            {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}},
        ],
    }


def test_a_schema_with_properties_stays_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    chat = {"model": "gpt-4o", "messages": [], "tools": tools}

    assert sent("openai", chat) == (chat, ())


@pytest.mark.parametrize(
    ("kind", "messages", "moved", "dropped"),
    [
        (
            "groq",
            [{"role": "user", "content": "hi", "agent": "cli", "metadata": None}],
            [{"role": "user", "content": "hi"}],
            ("messages.agent",),
        ),
        (
            "deepseek",
            [{"role": "developer", "content": "d"}, {"role": "user", "content": "hi"}],
            [{"role": "system", "content": "d"}, {"role": "user", "content": "hi"}],
            (),
        ),
        (
            "openai",
            [{"role": "developer", "content": "d"}, {"role": "user", "content": '"agent":'}],
            [{"role": "developer", "content": "d"}, {"role": "user", "content": '"agent":'}],
            (),
        ),
    ],
)
def test_a_kind_gets_the_roles_and_members_that_it_knows(
    kind: str, messages: list[Json], moved: list[Json], dropped: tuple[str, ...]
) -> None:
    body = json.dumps({"model": "m", "messages": messages}).encode()

    found = move_chat(body, INTAKES[kind])

    assert json.loads(found.body)["messages"] == moved
    assert found.dropped == dropped


def test_mistral_gets_an_answer_between_a_result_and_a_users_message() -> None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "1"},
        {"role": "user", "content": "and now?"},
    ]
    body = json.dumps({"model": "m", "messages": messages}).encode()

    found = json.loads(move_chat(body, INTAKES["mistral"]).body)["messages"]

    assert [message["role"] for message in found] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert found[3]["content"]


@pytest.mark.parametrize(
    ("model", "fields", "right", "dropped"),
    [
        (
            "claude-sonnet-4-5",
            {
                "thinking": {"type": "enabled", "budget_tokens": 2000},
                "tool_choice": {"type": "any"},
            },
            {"tool_choice": {"type": "any"}},
            ("thinking",),
        ),
        (
            "claude-fable-5",
            {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "tool", "name": "f"}},
            {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "auto"}},
            ("tool_choice",),
        ),
        (
            "claude-sonnet-4-5",
            {"temperature": 0.2, "top_p": 0.4},
            {"temperature": 0.2},
            ("top_p",),
        ),
        ("claude-sonnet-4-5", {"tool_choice": {"type": "any"}}, None, ()),
    ],
)
def test_a_message_loses_only_the_field_that_its_model_refuses_beside_another(
    model: str, fields: Json, right: Json | None, dropped: tuple[str, ...]
) -> None:
    body = json.dumps({"model": model, **fields}).encode()
    gates = find_message_gates(of_kind("anthropic").abilities(model))

    fitted, names = fit_message(body, of_kind("anthropic").abilities(model))

    assert names == dropped
    assert json.loads(fitted) == {"model": model, **(fields if right is None else right)}
    found = any(gate.field in body and gate.form.search(body) for gate in gates)
    assert found or not dropped


def test_a_response_of_a_model_that_reasons_loses_its_temperature() -> None:
    response = {"model": "gpt-5.4", "input": "q", "temperature": 0}
    reasoning = {"reasoning": {"effort": "low"}}

    assert sent("openai", response) == (response, ())
    assert sent("openai", {**response, **reasoning}) == (
        {"model": "gpt-5.4", "input": "q", **reasoning},
        ("temperature",),
    )


OPTIONAL: Json = {
    "type": "object",
    "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("response_format", "json_schema"), "response_format.json_schema.strict"),
        (("text", "format"), "text.format.strict"),
        (("tools", "function"), "tools.strict"),
        (("tools",), "tools.strict"),
    ],
)
def test_a_schema_with_optional_fields_is_not_strict_for_openai(
    path: tuple[str, ...], name: str
) -> None:
    def chat_with(*, strict: bool, required: list[str]) -> Json:
        schema = {**OPTIONAL, "required": required}
        form: Json = {"name": "f", "strict": strict}
        form["parameters" if path[0] == "tools" else "schema"] = schema
        for member in reversed(path[1:]):
            form = {member: form}
        return {"model": "gpt-5.2", path[0]: [form] if path[0] == "tools" else form}

    loose = chat_with(strict=False, required=["x"])
    whole = chat_with(strict=True, required=["x", "y"])
    strict = chat_with(strict=True, required=["x"])

    assert sent("openai", strict) == (loose, (name,))
    assert sent("azure_openai", strict) == (loose, (name,))
    assert sent("openai", whole) == (whole, ())
    assert sent("vllm", strict) == (strict, ())  # unknown demands
