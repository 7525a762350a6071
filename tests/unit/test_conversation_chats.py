import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.target import RequestPatch, Target
from router.conversation.chat_history import move_chat, with_client_names
from router.conversation.intake import (
    INTAKES,
    TAKES_ALL,
    maker_of,
    mark_piece,
    own_id,
)
from router.conversation.native_histories import (
    move_message,
    move_response,
    without_reasoning,
)
from router.frame.failure import Untranslatable
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.router.asgi_router import CHAT, Door
from tests.support.router.live_router import provider, snapshot
from tests.wire import anthropic, openai
from tests.wire.server import Json, Reply

pytestmark = pytest.mark.req("B7")
IDS = st.sampled_from(["", "call_1", "functions.look_up:0", "x" * 46 + "1", "x" * 46 + "2"])
PATTERNS = {
    "mistral": r"[A-Za-z0-9]{9}",
    "openai": r".{1,40}",
    "azure_openai": r".{1,40}",
    "anthropic": r"[A-Za-z0-9_-]+",
    "bedrock": r"[A-Za-z0-9_-]{1,64}",
    "gemini": r".+",
    "vertex": r".+",
}


def loop(*ids: str) -> list[dict[str, Any]]:
    """A turn with these calls, and their results."""
    calls = [
        {
            "id": id_,
            "type": "function",
            "function": {"name": "f", "arguments": f'{{"n":{n}}}'},
        }
        for n, id_ in enumerate(ids)
    ]
    results = [
        {
            "role": "tool",
            "tool_call_id": id_,
            "content": str(n),
        }
        for n, id_ in enumerate(ids)
    ]
    return [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": calls,
        },
        *results,
    ]


def move(
    kind: str,
    messages: list[dict[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    body = json.dumps(
        {
            "model": "m",
            "messages": messages,
            **more,
        }
    ).encode()
    found: dict[str, Any] = json.loads(move_chat(body, INTAKES.get(kind, TAKES_ALL)).body)
    return found


@pytest.mark.parametrize("kind", PATTERNS)
@given(turns=st.lists(st.lists(IDS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_each_call_keeps_an_id_of_its_own_that_its_result_has_too(
    kind: str, turns: list[list[str]]
) -> None:
    found = move(kind, [message for ids in turns for message in loop(*ids)])["messages"]

    at = 0
    for ids in turns:
        calls = [call["id"] for call in found[at]["tool_calls"]]
        results = [result["tool_call_id"] for result in found[at + 1 : at + 1 + len(ids)]]
        assert calls == results
        assert all(re.fullmatch(PATTERNS[kind], id_) for id_ in calls)
        assert len(set(calls)) == len(calls)
        at += 1 + len(ids)


def test_an_id_is_the_same_in_every_later_turn() -> None:
    first = move("mistral", loop("functions.f:0"))["messages"]
    later = move("mistral", [*loop("functions.f:0"), *loop("functions.f:1")])["messages"]
    assert later[: len(first)] == first


def test_an_id_that_the_kind_takes_stays_byte_for_byte() -> None:
    body = json.dumps({"model": "m", "messages": loop("call_1")}, indent=1).encode()
    for kind in ("openai", "anthropic", "groq", "custom"):
        assert move_chat(body, INTAKES.get(kind, TAKES_ALL)).body == body


def test_reasoning_goes_back_to_a_kind_that_demands_it_and_to_no_strict_one() -> None:
    known = loop("a")
    unknown = loop("b")
    known[0]["reasoning_content"] = "I look it up."
    given_back = move("deepseek", [*known, *unknown])["messages"]
    assert [m.get("reasoning_content") for m in given_back] == [
        "I look it up.",
        None,
        "",
        None,
    ]
    for kind in ("openai", "groq", "mistral"):
        assert "reasoning_content" not in move(kind, known)["messages"][0]
    assert move("custom", known)["messages"] == known


def test_a_strict_kind_gets_no_field_that_openai_alone_knows() -> None:
    own = {
        "store": False,
        "prompt_cache_key": "k",
        "verbosity": "low",
        "client_metadata": {},
    }
    asked = json.dumps({"messages": [{"role": "user", "content": "hi"}], **own}).encode()
    for kind in ("groq", "mistral"):
        body, dropped, _ = move_chat(asked, INTAKES[kind])
        assert set(json.loads(body)) == {"messages"}
        assert set(dropped) == set(own)
    assert "store" in json.loads(move_chat(asked, INTAKES["openai"]).body)


def test_names_of_tools_are_mapped_to_what_the_kind_takes_and_back() -> None:
    long = "f" * 80
    strange = "files.server/read-it"
    tools = [{"type": "function", "function": {"name": name}} for name in (long, strange, "ok")]
    choice = {"type": "function", "function": {"name": strange}}
    body = json.dumps(
        {
            "messages": [],
            "tools": tools,
            "tool_choice": choice,
        }
    ).encode()

    for kind in ("openai", "gemini", "bedrock", "mistral"):
        chat, _, names = move_chat(body, INTAKES[kind])
        sent = [tool["function"]["name"] for tool in json.loads(chat)["tools"]]
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) for name in sent)
        assert [names.get(name, name) for name in sent] == [
            long,
            strange,
            "ok",
        ]
        assert json.loads(chat)["tool_choice"]["function"]["name"] == sent[1]
        answer = json.dumps({"function": {"name": sent[1], "arguments": sent[1]}}).encode()
        told = json.loads(with_client_names(answer, names))["function"]
        assert told == {"name": strange, "arguments": sent[1]}


MINE = maker_of(Target("p", "one"))
OTHER = maker_of(Target("p", "other"))
THOUGHT = {
    "type": "thinking",
    "thinking": "hm",
    "signature": "",
}
SIGNED = {
    "type": "thinking",
    "thinking": "hm",
    "signature": "c2ln",
}
TEXT: dict[str, Any] = {"type": "text", "text": "a"}
USE: dict[str, Any] = {
    "type": "tool_use",
    "id": "a",
    "name": "f",
    "input": {},
}
RESULT = {
    "type": "tool_result",
    "tool_use_id": "a",
    "content": "1",
}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def signed_by(maker: str) -> dict[str, Any]:
    return {**SIGNED, "signature": mark_piece("c2ln", maker)}


def left(*turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Returns the request that `move_message` makes of these turns.

    Args:
        turns: of the assistant and the user by turns.
    """
    roles = ("assistant", "user")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    asked = {
        "model": "m",
        "thinking": ENABLED,
        "messages": messages,
        **more,
    }
    found: dict[str, Any] = json.loads(move_message(json.dumps(asked).encode(), MINE).body)
    return found


def contents(asked: dict[str, Any]) -> list[Any]:
    return [message["content"] for message in asked["messages"]]


def test_another_addendum_to_the_prompt_is_another_maker() -> None:
    plain = Target("p", "m")
    warm = Target("p", "m", {"temperature": 1})
    brief = Target("p", "m", request_patch=RequestPatch(prompt_addendum="Be brief."))
    assert maker_of(plain) == maker_of(warm) != maker_of(brief)


def test_thinking_without_a_signature_is_left_out_and_unmarked_thinking_is_tried() -> None:
    found = left([THOUGHT, TEXT], [TEXT], [SIGNED, TEXT])
    assert contents(found) == [
        [TEXT],
        [TEXT],
        [SIGNED, TEXT],
    ]
    assert found["thinking"] == ENABLED


def test_within_a_tool_loop_without_thinking_a_request_asks_for_no_budget() -> None:
    for turn in (
        [THOUGHT, USE],
        [signed_by(OTHER), USE],
        [USE],
        [TEXT, USE],
    ):
        found = left(turn, [RESULT])
        assert USE in found["messages"][0]["content"]
        assert "thinking" not in found
    assert left([signed_by(MINE), USE], [RESULT])["thinking"] == ENABLED
    assert left([USE], [RESULT, TEXT], [TEXT], [TEXT])["thinking"] == ENABLED
    assert left([USE], [RESULT], thinking={"type": "adaptive"})["thinking"]


def test_what_has_none_stays_as_it_is_byte_for_byte() -> None:
    for body in (
        b'{ "a" : 1 }',
        b'{"messages":[{"role":"user","content":"\\"signature\\":\\"\\""}]}',
        b'{ "messages": [{"role":"user","content":[{"type":"x","signature":""}]}] }',
    ):
        assert move_message(body, MINE).body == body


OURS = "aaaaaaaa"
THEIRS = "bbbbbbbb"
OUTPUT = {
    "type": "function_call_output",
    "call_id": "c",
    "output": "1",
}


def reasoning(id_: str, encrypted: str = "") -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "reasoning",
        "id": id_,
        "summary": [],
    }
    return item | {"encrypted_content": encrypted} if encrypted else item


def call(id_: str, call_id: str = "c") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": id_,
        "call_id": call_id,
        "name": "f",
    }


def move_items(*items: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    body = json.dumps({"input": list(items), **more}).encode()
    found: list[dict[str, Any]] = json.loads(move_response(body, OURS).body)["input"]
    return found


def test_ids_that_a_translation_wrote_reach_no_provider() -> None:
    items = [
        reasoning(own_id("rs", THEIRS, "c_0")),
        call(own_id("fc", THEIRS, "c_1")),
        OUTPUT,
    ]
    (called, output) = move_items(*items)
    assert "id" not in called
    assert output == OUTPUT


def test_reasoning_that_is_stored_nowhere_is_left_out_and_stored_reasoning_stays() -> None:
    assert (
        move_items(reasoning("rs_1"), call("fc_1"), store=False)[0]["type"] == "function_call"
    )
    assert move_items(reasoning("rs_1"), call("fc_1"))[0] == reasoning("rs_1")


def test_an_id_of_reasoning_without_a_turn_is_left_for_the_provider_to_refuse() -> None:
    asked = {"role": "user", "content": "hi"}
    assert move_items(reasoning("rs_1"), asked, store=False) == [
        reasoning("rs_1"),
        asked,
    ]
    body = json.dumps({"input": [reasoning("rs_1"), asked]}).encode()
    assert json.loads(without_reasoning(body).body)["input"] == [
        reasoning("rs_1"),
        asked,
    ]


def test_what_refers_to_an_answer_of_a_translation_is_refused_with_the_way_out() -> None:
    ours = own_id("msg", OURS, "c_0")
    for request in (
        {"previous_response_id": own_id("resp", OURS, "c")},
        {"input": [{"type": "item_reference", "id": ours}]},
    ):
        with pytest.raises(Untranslatable, match="store: false"):
            move_response(json.dumps(request).encode(), OURS)


def test_long_ids_of_calls_are_rewritten_and_others_go_byte_for_byte() -> None:
    long = "c" * 65
    called, output = move_items(call("fc_1", long), {**OUTPUT, "call_id": long})
    assert called["call_id"] == output["call_id"]
    assert len(called["call_id"]) <= 64

    body = json.dumps({"input": [call("fc_1"), OUTPUT], "reasoning": {}}, indent=1).encode()
    assert move_response(body, OURS).body == body


MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
KINDS = {
    CHAT: "custom",
    MESSAGES: "anthropic",
    RESPONSES: "openai",
}
START: list[Json] = [{"role": "user", "content": "go on"}]


def history(path: str, id_: str) -> Json:
    function = {"name": "f", "arguments": "{}"}
    match path:
        case "/v1/chat/completions":
            call = {
                "id": id_,
                "type": "function",
                "function": function,
            }
            turn = {
                "role": "assistant",
                "content": None,
                "tool_calls": [call],
            }
            result = {
                "role": "tool",
                "tool_call_id": id_,
                "content": "1",
            }
            return {"messages": [*START, turn, result]}
        case "/v1/messages":
            use = {
                "type": "tool_use",
                "id": id_,
                "name": "f",
                "input": {},
            }
            done = {
                "type": "tool_result",
                "tool_use_id": id_,
                "content": "1",
            }
            turns = [
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [done]},
            ]
            return {"max_tokens": 9, "messages": [*START, *turns]}
        case _:
            call = {
                "type": "function_call",
                "call_id": id_,
                **function,
            }
            output = {
                "type": "function_call_output",
                "call_id": id_,
                "output": "1",
            }
            return {"input": [*START, call, output]}


def answer(
    path: str,
    ids: list[str],
    arguments: object,
) -> Json:
    reply = Reply(calls=(("f", {}),) * len(ids), stop="tools")
    match path:
        case "/v1/chat/completions":
            whole = openai.whole(reply)
            calls = whole["choices"][0]["message"]["tool_calls"]
            made = [call["function"] for call in calls]
        case "/v1/messages":
            whole = anthropic.whole(reply)
            calls = whole["content"]
            made = []
        case _:
            names = {"type": "function_call", "name": "f"}
            made = [{**names, "id": f"fc_{number}"} for number in range(len(ids))]
            whole = {
                "model": "m",
                "status": "completed",
                "output": made,
            }
            calls = made
    for call, id_ in zip(calls, ids, strict=True):
        call["call_id" if path == RESPONSES else "id"] = id_
    for function in made:
        function["arguments"] = arguments
    return {**whole, "id": ids[0]}


def events(path: str, whole: Json) -> list[Json]:
    """The answer as a stream."""
    match path:
        case "/v1/chat/completions":
            choice = whole["choices"][0]
            calls = choice["message"]["tool_calls"]
            deltas = [{"tool_calls": [{**call, "index": n}]} for n, call in enumerate(calls)]
            ends = [None] * len(deltas) + ["tool_calls"]
            return [
                {
                    "id": whole["id"],
                    "model": "m",
                    "choices": [
                        {
                            "index": 0,
                            "delta": delta,
                            "finish_reason": end,
                        }
                    ],
                }
                for delta, end in zip([*deltas, {}], ends, strict=True)
            ]
        case "/v1/messages":
            begun: list[Json] = [
                {
                    "type": "message_start",
                    "message": {**whole, "content": []},
                }
            ]
            for n, block in enumerate(whole["content"]):
                begun += [
                    {
                        "type": "content_block_start",
                        "index": n,
                        "content_block": block,
                    },
                    {"type": "content_block_stop", "index": n},
                ]
            ended = {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use"},
            }
            return [*begun, ended, {"type": "message_stop"}]
        case _:
            begun = [
                {
                    "type": "response.created",
                    "response": {**whole, "output": []},
                }
            ]
            for n, item in enumerate(whole["output"]):
                begun += [
                    {
                        "type": f"response.output_item.{kind}",
                        "output_index": n,
                        "item": item,
                    }
                    for kind in ("added", "done")
                ]
            return [
                *begun,
                {"type": "response.completed", "response": whole},
            ]


def call_ids(
    path: str,
    body: bytes,
    *,
    stream: bool,
) -> list[str]:
    """The ids of the calls as a client finds them; of the whole answer where it is streamed."""
    if not stream:
        told = json.loads(body)
        assert told["id"]
        calls = (
            told["choices"][0]["message"]["tool_calls"]
            if path == CHAT
            else told["content" if path == MESSAGES else "output"]
        )
        return [call["call_id" if path == RESPONSES else "id"] for call in calls]
    lines = body.decode().splitlines()
    found = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    match path:
        case "/v1/chat/completions":
            assert len({event["id"] for event in found}) == 1
            assert found[0]["id"]
            deltas = [event["choices"][0]["delta"] for event in found]
            return [call["id"] for delta in deltas for call in delta.get("tool_calls", ())]
        case "/v1/messages":
            assert found[0]["message"]["id"]
            return [event["content_block"]["id"] for event in found if "content_block" in event]
        case _:
            (final,) = (e["response"] for e in found if e["type"] == "response.completed")
            assert final["id"] == found[0]["response"]["id"] != ""
            items = [event["item"] for event in found if "item" in event]
            done = items[1::2]
            assert items[::2] == done == final["output"]
            return [item["call_id"] for item in done]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["call_0", "x"], ["x"]),
        (["x", "x"], ["x"]),
        (["", ""], []),
        (["x", "y"], ["x", "y"]),
    ],
    ids=["of the history", "twice", "empty", "good"],
)
async def test_a_server_that_repeats_ids_or_gives_none_confuses_no_client(
    tmp_path: Path,
    path: str,
    ids: list[str],
    kept: list[str],
    *,
    stream: bool,
) -> None:
    whole = answer(path, ids, {"a": 1} if path != MESSAGES else "")

    def play(request: UpstreamRequest) -> ScriptedTurn:
        if not request.stream:
            return ScriptedTurn(steps=(json.dumps(whole).encode(),))
        told = "".join(
            f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n"
            for event in events(path, whole)
        )
        return ScriptedTurn(
            headers={"content-type": "text/event-stream"},
            steps=(told.encode(),),
        )

    url = "http://127.0.0.1:1/v1"
    first = snapshot(url, providers=[provider(url, kind=KINDS[path])])
    door = Door(
        tmp_path,
        play,
        first=first,
        moves=True,
    )
    asked = {
        "model": "support",
        "stream": stream,
        **history(path, "call_0"),
    }
    status, _, body = await door.call(path, json.dumps(asked).encode())

    assert status == 200, body
    found = call_ids(path, body, stream=stream)
    assert len({*found, "call_0", ""}) == 4
    assert set(kept) <= set(found)
    assert body.count(rb"{\"a\":1}") == (0 if path == MESSAGES else body.count(b'"arguments"'))
