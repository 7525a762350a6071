import json
from typing import Any

import pytest

from harness.providers.models.capabilities import Endpoint
from router.frame.failure import Untranslatable
from router.frame.json_spans import parse_object
from router.upstream.endpoint_translation import (
    UNTRANSLATABLE_FIELDS,
    translate_response,
)
from tests.wire import openai
from tests.wire.server import Json, Reply

pytestmark = pytest.mark.req("B7")
RUN: Json = {
    "type": "function",
    "name": "run",
    "parameters": {"type": "object"},
}
SPACE: Json = {
    "type": "namespace",
    "name": "mcp__files",
    "tools": [{**RUN, "name": "read"}],
}
GRAMMAR: Json = {
    "type": "grammar",
    "syntax": "lark",
    "definition": "start: WORD",
}
PATCH: Json = {
    "type": "custom",
    "name": "patch",
    "description": "Edits.",
    "format": GRAMMAR,
}
SEARCH: Json = {"type": "web_search"}
USER: Json = {"role": "user", "content": "Go on."}


def response_body(
    *tools: Json,
    given: list[Json] | None = None,
    **more: Any,
) -> bytes:
    body = {
        "model": "m",
        "input": given or [USER],
        "tools": list(tools),
        **more,
    }
    return json.dumps(body).encode()


def chat(body: bytes) -> Json:
    found: Json = json.loads(translate_response(body, "custom").body)
    return found


def functions(body: bytes) -> list[Json]:
    return [tool["function"] for tool in chat(body)["tools"]]


def calling(*calls: tuple[str, Json]) -> Reply:
    return Reply(calls=calls, stop="tools")


def output(body: bytes, reply: Reply) -> list[Json]:
    """The items of a response to which a chat answers so."""
    said = parse_object(json.dumps(openai.whole(reply)).encode())
    found: list[Json] = json.loads(translate_response(body, "custom").whole(said))["output"]
    return found


def test_a_namespaces_functions_are_offered_under_names_of_their_own_and_given_back() -> None:
    body = response_body(RUN, SPACE)
    assert [f["name"] for f in functions(body)] == [
        "run",
        "mcp__files__read",
    ]

    first, second = output(body, calling(("mcp__files__read", {}), ("run", {})))
    assert (first["name"], first["namespace"]) == ("read", "mcp__files")
    assert second["name"] == "run"
    assert "namespace" not in second

    result = {
        "type": "function_call_output",
        "call_id": first["call_id"],
        "output": "x",
    }
    again = chat(response_body(RUN, SPACE, given=[USER, first, result]))
    (call,) = again["messages"][1]["tool_calls"]
    assert call["function"]["name"] == "mcp__files__read"


def test_a_custom_tool_is_a_function_with_one_text_and_its_calls_are_custom_again() -> None:
    body = response_body(PATCH)
    (function,) = functions(body)
    assert function["parameters"]["required"] == ["input"]
    assert "start: WORD" in function["description"]

    (item,) = output(body, calling(("patch", {"input": 'a "b"\n'})))
    assert (item["type"], item["input"]) == ("custom_tool_call", 'a "b"\n')

    id_ = item["call_id"]
    result = {
        "type": "custom_tool_call_output",
        "call_id": id_,
        "output": "done",
    }
    turns = chat(response_body(PATCH, given=[USER, item, result]))["messages"]
    (call,) = turns[1]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"input": 'a "b"\n'}
    assert turns[2] == {
        "role": "tool",
        "tool_call_id": id_,
        "content": "done",
    }


def test_a_custom_tools_call_is_streamed_as_one() -> None:
    events = translate_response(response_body(PATCH, stream=True), "custom").events()
    data = b"".join(openai.events(calling(("patch", {"input": "abc"}))))
    told = [
        json.loads(line[5:])
        for line in (events.feed(data) + events.end()).split(b"\n")
        if line.startswith(b"data:")
    ]
    kinds = [event["type"] for event in told]
    assert "response.custom_tool_call_input.delta" in kinds
    assert not [kind for kind in kinds if "function_call" in kind]
    (item,) = told[-1]["response"]["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "abc")


def test_a_hosted_tool_beside_others_is_left_out_and_named() -> None:
    translated = translate_response(response_body(RUN, SEARCH), "custom")
    assert [t["function"]["name"] for t in json.loads(translated.body)["tools"]] == ["run"]
    assert translated.dropped == ("tools.web_search",)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [([SEARCH], "auto"), ([RUN, SEARCH], {"type": "web_search"})],
)
def test_a_request_for_a_hosted_tool_binds_to_those_who_have_it(
    tools: list[Json], choice: object
) -> None:
    body = {"tools": tools, "tool_choice": choice}
    assert "web_search" in UNTRANSLATABLE_FIELDS[Endpoint.RESPONSES](body.get)
    with pytest.raises(Untranslatable, match="web_search"):
        translate_response(response_body(*tools, tool_choice=choice), "custom")


def test_allowed_tools_alone_are_offered() -> None:
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [RUN],
    }
    found = chat(response_body(RUN, PATCH, tool_choice=choice))
    assert [tool["function"]["name"] for tool in found["tools"]] == ["run"]
    assert found["tool_choice"] == "required"


SEARCHED = {
    "type": "web_search_call",
    "id": "ws_1",
    "action": {"type": "search", "query": "q1"},
}
READ = {
    "type": "mcp_call",
    "id": "m",
    "server_label": "files",
    "name": "read",
    "output": "found",
}
RAN = {
    "type": "code_interpreter_call",
    "id": "ci",
    "code": "1+1",
    "container_id": "secret",
}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (SEARCHED, ["q1"]),
        (
            {**READ, "arguments": '{"path":"a"}'},
            ["files", "read", '{"path":"a"}', "found"],
        ),
        ({**RAN, "outputs": [{"type": "logs", "logs": "2"}]}, ["1+1", "2"]),
    ],
)
def test_what_a_hosted_tool_left_in_the_history_is_said_as_text(
    item: Json, words: list[str]
) -> None:
    message = {
        "type": "message",
        "role": "assistant",
        "content": "So it is.",
    }
    translated = translate_response(response_body(given=[USER, item, message, USER]), "custom")
    _, said, _ = json.loads(translated.body)["messages"]
    assert said["role"] == "assistant"
    assert all(word in said["content"] for word in [*words, "So it is."])
    assert "secret" not in said["content"]
    assert translated.dropped == (f"input.{item['type']}",)


def test_text_behind_calls_that_wait_for_results_is_of_their_turn() -> None:
    call = {
        "type": "function_call",
        "call_id": "c",
        "name": "run",
        "arguments": "{}",
    }
    said = {"role": "assistant", "content": "I look."}
    result = {
        "type": "function_call_output",
        "call_id": "c",
        "output": "1",
    }
    turns = chat(response_body(RUN, given=[USER, call, said, result]))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1]["content"] == "I look."
