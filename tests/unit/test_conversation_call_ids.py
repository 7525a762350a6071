import json
from pathlib import Path

import pytest

from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.router.asgi_router import CHAT, Door
from tests.support.router.live_router import provider, snapshot
from tests.wire import anthropic, openai
from tests.wire.server import Json, Reply

pytestmark = pytest.mark.req("B7")
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
KINDS = {CHAT: "custom", MESSAGES: "anthropic", RESPONSES: "openai"}
START: list[Json] = [{"role": "user", "content": "go on"}]


def history(path: str, id_: str) -> Json:
    function = {"name": "f", "arguments": "{}"}
    match path:
        case "/v1/chat/completions":
            call = {"id": id_, "type": "function", "function": function}
            turn = {"role": "assistant", "content": None, "tool_calls": [call]}
            result = {"role": "tool", "tool_call_id": id_, "content": "1"}
            return {"messages": [*START, turn, result]}
        case "/v1/messages":
            use = {"type": "tool_use", "id": id_, "name": "f", "input": {}}
            done = {"type": "tool_result", "tool_use_id": id_, "content": "1"}
            turns = [
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [done]},
            ]
            return {"max_tokens": 9, "messages": [*START, *turns]}
        case _:
            call = {"type": "function_call", "call_id": id_, **function}
            output = {"type": "function_call_output", "call_id": id_, "output": "1"}
            return {"input": [*START, call, output]}


def answer(path: str, ids: list[str], arguments: object) -> Json:
    reply = Reply(calls=(("f", {}),) * len(ids), stop="tools")
    match path:
        case "/v1/chat/completions":
            whole = openai.whole(reply)
            calls = whole["choices"][0]["message"]["tool_calls"]
            made = [call["function"] for call in calls]
        case "/v1/messages":
            whole = anthropic.whole(reply)
            calls, made = whole["content"], []
        case _:
            names = {"type": "function_call", "name": "f"}
            made = [{**names, "id": f"fc_{number}"} for number in range(len(ids))]
            whole = {"model": "m", "status": "completed", "output": made}
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
                    "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
                }
                for delta, end in zip([*deltas, {}], ends, strict=True)
            ]
        case "/v1/messages":
            begun: list[Json] = [{"type": "message_start", "message": {**whole, "content": []}}]
            for n, block in enumerate(whole["content"]):
                begun += [
                    {"type": "content_block_start", "index": n, "content_block": block},
                    {"type": "content_block_stop", "index": n},
                ]
            ended = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
            return [*begun, ended, {"type": "message_stop"}]
        case _:
            begun = [{"type": "response.created", "response": {**whole, "output": []}}]
            for n, item in enumerate(whole["output"]):
                begun += [
                    {"type": f"response.output_item.{kind}", "output_index": n, "item": item}
                    for kind in ("added", "done")
                ]
            return [*begun, {"type": "response.completed", "response": whole}]


def call_ids(path: str, body: bytes, *, stream: bool) -> list[str]:
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
    [(["call_0", "x"], ["x"]), (["x", "x"], ["x"]), (["", ""], []), (["x", "y"], ["x", "y"])],
    ids=["of the history", "twice", "empty", "good"],
)
async def test_a_server_that_repeats_ids_or_gives_none_confuses_no_client(
    tmp_path: Path, path: str, ids: list[str], kept: list[str], *, stream: bool
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
            headers={"content-type": "text/event-stream"}, steps=(told.encode(),)
        )

    url = "http://127.0.0.1:1/v1"
    first = snapshot(url, providers=[provider(url, kind=KINDS[path])])
    door = Door(tmp_path, play, first=first, moves=True)
    asked = {"model": "support", "stream": stream, **history(path, "call_0")}
    status, _, body = await door.call(path, json.dumps(asked).encode())

    assert status == 200, body
    found = call_ids(path, body, stream=stream)
    assert len({*found, "call_0", ""}) == 4
    assert set(kept) <= set(found)
    assert body.count(rb"{\"a\":1}") == (0 if path == MESSAGES else body.count(b'"arguments"'))
