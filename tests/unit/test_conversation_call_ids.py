"""A call of an answer never has the id of an earlier one of its conversation."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.conversation.call_ids import fresh_ids, history_ids
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.router.asgi_router import CHAT, Door

pytestmark = pytest.mark.req("B7")
CALL = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_only_ids_of_the_history_are_written_anew_and_each_gets_another() -> None:
    taken = history_ids(b'[{"tool_call_id": "call_0"}, {"tool_call_id":"call_0_2"}]')

    assert fresh_ids(taken)(b'{"id":"call_0"},{"id":"call_1"}') == (
        b'{"id":"call_0_3"},{"id":"call_1"}'
    )


async def test_a_server_that_numbers_each_answers_calls_from_0_confuses_no_client(
    tmp_path: Path,
) -> None:
    def play(request: UpstreamRequest) -> ScriptedTurn:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "tool_calls"}
        if not request.stream:
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
            answer = json.dumps({"id": "c", "choices": [choice]})
            return ScriptedTurn(steps=(answer.encode(),))
        choice["delta"] = {"role": "assistant", "tool_calls": [{"index": 0, **CALL}]}
        event = json.dumps({"id": "c", "choices": [choice]})
        return ScriptedTurn(
            headers={"content-type": "text/event-stream"},
            steps=(f"data: {event}\n\ndata: [DONE]\n\n".encode(),),
        )

    door = Door(tmp_path, play, moves=True)
    first: list[dict[str, Any]] = [{"role": "user", "content": "go on"}]
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_0", "content": "1"},
    ]
    for messages, given in ((first, b'"call_0"'), (first + turn, b'"call_0_1"')):
        for stream in (False, True):
            asked = {"model": "support", "messages": messages, "stream": stream}
            status, _, body = await door.call(CHAT, json.dumps(asked).encode())

            assert status == 200
            assert given in body
