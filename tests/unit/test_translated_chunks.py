import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.upstream.translate.bedrock import EventMessages
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import EVENTS
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import provider, snapshot
from tests.wire.bedrock import framed

Event = dict[str, Any]
HEAD: Final[Event] = {
    "id": "msg_1",
    "model": "m",
    "content": [],
    "usage": {"input_tokens": 3},
}
END: Final[list[Event]] = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {},
    },
    {"type": "message_stop"},
]


def begin(place: int, given: Event | None = None) -> Event:
    block = {
        "type": "tool_use",
        "id": f"t{place}",
        "name": f"f{place}",
        "input": given or {},
    }
    return {
        "type": "content_block_start",
        "index": place,
        "content_block": block,
    }


def more(place: int, text: str) -> Event:
    delta = {"type": "input_json_delta", "partial_json": text}
    return {
        "type": "content_block_delta",
        "index": place,
        "delta": delta,
    }


def stop(place: int) -> Event:
    return {"type": "content_block_stop", "index": place}


CALL: Final = [
    begin(0),
    more(0, '{"n":0}'),
    stop(0),
]
IN_TURNS: Final = [
    begin(0),
    begin(1),
    more(1, '{"n"'),
    more(0, '{"n":0}'),
    more(1, ":1}"),
    stop(0),
    stop(1),
]
STREAMS: Final[dict[str, tuple[Event, Sequence[Event], str, int]]] = {
    "Anthropic's": (HEAD, CALL, "", 1),
    "no head": ({}, CALL, "", 1),
    "whole input": (HEAD, [begin(0, {"n": 0}), stop(0)], "", 1),
    "blocks in turns": (HEAD, IN_TURNS, "", 2),
    "no stops": (
        HEAD,
        [e for e in IN_TURNS if e["type"] != "content_block_stop"],
        "",
        2,
    ),
    "an end of OpenAI's": (HEAD, CALL, "data: [DONE]\n\n", 1),
}


@pytest.mark.req("B8", "B7")
@pytest.mark.parametrize("name", STREAMS)
async def test_each_call_reaches_a_chats_client_whole(name: str, tmp_path: Path) -> None:
    head, events, behind, calls = STREAMS[name]
    said = [
        {"type": "message_start", "message": head},
        *events,
        *END,
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in said) + behind
    turn = ScriptedTurn(headers=EVENTS, steps=(text.encode(),))
    claude = provider("http://up", kind="anthropic")
    door = Door(
        tmp_path,
        lambda _: turn,
        moves=True,
        first=snapshot("http://up", providers=[claude]),
    )

    status, _, raw = await door.call(CHAT, ASK[:-1] + b',"stream":true}')

    assert status == 200
    found: dict[int, list[str]] = {}
    for line in raw.decode().splitlines():
        if line.startswith("data: {"):
            chunk = json.loads(line[6:])
            assert chunk["id"]
            for piece in chunk["choices"][0]["delta"].get("tool_calls", ()):
                call = found.setdefault(piece["index"], ["", ""])
                call[0] += piece["function"].get("name") or ""
                call[1] += piece["function"].get("arguments") or ""
    assert [(name, json.loads(given)) for name, given in found.values()] == [
        (f"f{number}", {"n": number}) for number in range(calls)
    ]


def candidate(parts: list[Event], reason: str) -> Event:
    return {"candidates": [{"content": {"parts": parts}, "finishReason": reason}]}


@pytest.mark.req("B8", "B7")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("parts", "reason", "told"),
    [
        ([{"functionCall": {"name": "f"}}], "STOP", "tool_calls"),
        (
            [{"functionCall": {"name": "f", "args": None}}],
            "STOP",
            "tool_calls",
        ),
        ([{"text": "a"}], "MAX_TOKENS", "length"),
        ([{"text": "a"}], "RECITATION", "content_filter"),
        ([{"text": "a"}], "MALFORMED_FUNCTION_CALL", "aborted"),
        ([{"text": "a"}], "OTHER", "aborted"),
    ],
)
async def test_googles_own_word_says_how_its_answer_ended(
    parts: list[Event],
    reason: str,
    told: str,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    said = json.dumps(candidate(parts, reason)).encode()
    whole = ScriptedTurn(steps=(said,))
    turn = ScriptedTurn(headers=EVENTS, steps=(b"data: " + said + b"\n\n",))
    google = provider("http://up", kind="gemini")
    first = snapshot("http://up", providers=[google])
    door = Door(
        tmp_path,
        lambda _: turn if stream else whole,
        moves=True,
        first=first,
    )

    _, _, raw = await door.call(
        CHAT, ASK[:-1] + b',"stream":%b}' % str(stream).lower().encode()
    )

    assert f'"{told}"' in raw.decode()


@pytest.mark.req("B8", "B7")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("end_turn", "stop"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("a word of tomorrow", "a word of tomorrow"),
        ("error", "aborted"),
    ],
)
async def test_anthropics_own_word_says_how_its_answer_ended(
    reason: str,
    told: str,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    block = {"type": "text", "text": "a"}
    events = [
        {"type": "message_start", "message": HEAD},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": block,
        },
        stop(0),
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason},
            "usage": {},
        },
        {"type": "message_stop"},
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    said = json.dumps(
        {
            **HEAD,
            "model": None,
            "content": [block],
            "stop_reason": reason,
        }
    )
    whole = ScriptedTurn(steps=(said.encode(),))
    turn = ScriptedTurn(headers=EVENTS, steps=(text.encode(),))
    first = snapshot("http://up", providers=[provider("http://up", kind="anthropic")])
    door = Door(
        tmp_path,
        lambda _: turn if stream else whole,
        moves=True,
        first=first,
    )

    _, _, raw = await door.call(
        CHAT, ASK[:-1] + b',"stream":%b}' % str(stream).lower().encode()
    )

    assert f'"{told}"' in raw.decode()


FRAMES = import_module("botocore.eventstream")
pytestmark = pytest.mark.req("B7")


def test_a_message_comes_out_when_its_last_byte_is_there() -> None:
    messages = EventMessages(FRAMES)
    raw = framed("messageStart", {"role": "assistant"})
    found = [message for at in range(len(raw)) for message in messages.read(raw[at : at + 1])]
    assert [json.loads(message) for message in found] == [
        {"name": "messageStart", "body": {"role": "assistant"}}
    ]


def test_an_exception_within_the_stream_has_its_name() -> None:
    raw = framed("throttlingException", {"message": "Too many"}, "exception")
    [found] = EventMessages(FRAMES).read(raw)
    assert json.loads(found)["name"] == "throttlingException"


@pytest.mark.parametrize("raw", [b"data: {}\n\n" * 3, framed("a", {})[:-1] + b"x"])
def test_what_is_no_such_stream_is_malformed(raw: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        list(EventMessages(FRAMES).read(raw))
    assert caught.value.failure is FailureClass.MALFORMED
