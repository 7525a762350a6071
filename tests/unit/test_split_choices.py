"""GitHub Copilot splits an answer of Claude: the text is one choice, the call another.

https://github.com/zeroclaw-labs/zeroclaw/pull/2136
"""

import json
from pathlib import Path
from typing import Any

import pytest

from router.conversation.split_choices import join_choices, may_ask_for_several
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.router.asgi_router import AUTH, CHAT, Door

pytestmark = pytest.mark.req("B7", "A4")
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHOICES: list[dict[str, Any]] = [
    {
        "index": 0,
        "message": {"role": "assistant", "content": "I look."},
        "finish_reason": "stop",
    },
    {
        "index": 1,
        "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
        "finish_reason": "tool_calls",
    },
]
ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": CHOICES,
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


@pytest.mark.parametrize("order", [CHOICES, CHOICES[::-1]], ids=["text first", "call first"])
def test_a_joined_choice_has_the_text_and_the_calls_of_all(
    order: list[dict[str, Any]],
) -> None:
    joined = join_choices(order)

    message = joined["message"]
    assert (message["content"], message["tool_calls"]) == ("I look.", [CALL])
    assert joined["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("body", "several"),
    [
        ('{"model": "m", "n": 1}', False),
        ('{"n": null, "model": "m"}', False),
        ('{"model": "m"}', False),
        ('{"n":2}', True),
        ('{"n": 10}', True),
    ],
)
def test_choices_are_alternatives_only_if_the_client_asked_for_several(
    body: str,
    several: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert may_ask_for_several(body) is several


@pytest.mark.parametrize(("n", "count"), [(None, 1), (1, 1), (2, 2)])
async def test_a_client_gets_one_choice_unless_it_asked_for_more(
    n: int | None, count: int, tmp_path: Path
) -> None:
    turn = ScriptedTurn(200, steps=(json.dumps(ANSWER).encode(),))
    door = Door(tmp_path, lambda _: turn, moves=True)
    ask = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "n": n}

    status, _, raw = await door.call(CHAT, json.dumps(ask).encode(), headers=(AUTH,))

    assert status == 200
    choices = json.loads(raw)["choices"]
    assert len(choices) == count
    calls = [call for c in choices for call in c["message"].get("tool_calls") or ()]
    assert [call["function"]["name"] for call in calls] == ["f"]
