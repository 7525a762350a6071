import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.gate.online.waiting import WaitKind, wait_bin
from harness.routing.settings import RouterSettings
from router.protocols.chat.stream import DONE
from router.protocols.messages.dialect import STOP_EVENT
from router.upstream.learned_repairs import LearnedRepairs
from router.upstream.transport import Transport
from router.upstream.transports import ConversationTransport
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTransport,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    EVENTS,
    ROLE,
    broken_stream,
    completion,
    event,
    streamed,
)
from tests.support.router.asgi_router import CHAT, Door, Script
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    QUICK,
    provider,
    snapshot,
)

pytestmark = pytest.mark.req("B8")

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
ASK: dict[str, Any] = {
    "model": "support",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
}
ASKS = {
    CHAT: ASK,
    MESSAGES: ASK,
    RESPONSES: {
        "model": "support",
        "stream": True,
        "input": "hi",
    },
}


def ev(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str) -> bytes:
    return ev(
        "content_block_delta",
        index=0,
        delta={"type": "text_delta", "text": text},
    )


MESSAGE = (
    ev("message_start", message={"model": "m", "usage": {"input_tokens": 1}}),
    ev(
        "content_block_start",
        index=0,
        content_block={"type": "text", "text": ""},
    ),
    delta("hello"),
    ev("content_block_stop", index=0),
)
STOPPED = ev(
    "message_delta",
    delta={"stop_reason": "end_turn"},
    usage={"output_tokens": 2},
)
CHAT_TEXT = (ROLE, event({"content": "hello"}))
FINISHED = event(finish="stop")
CUT = b'data: {"choices":[],"usa'  # within what comes after the reason to end
ENDS: dict[str, tuple[bytes | ScriptedEvent, ...]] = {
    "closed": (),
    "reset": (ScriptedEvent.RESET,),
    "silent": (ScriptedEvent.HANG,),
    "cut": (CUT,),
    "cut and reset": (CUT, ScriptedEvent.RESET),
}
BREAKS: dict[str, tuple[bytes | ScriptedEvent, ...]] = {
    **ENDS,
    # Of a chat alone.
    "error event": (b'data: {"error":{"message":"gone","code":"server_error"}}\n\n',),
    "no JSON": (b"data: {oops\n\n",),
    "done": (DONE,),
}
BEGUN = {
    CHAT: CHAT_TEXT,
    MESSAGES: MESSAGE,
    RESPONSES: (ev("response.output_text.delta", delta="hello"),),
}
TRANSLATED = (("ollama", MESSAGES), ("ollama", RESPONSES))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.request.stream_relay.LAST_EVENTS_S", 0.05)
    monkeypatch.setattr("router.upstream.reply_reading.LAST_EVENTS_S", 0.05)


def door(
    folder: Path,
    turn: ScriptedTurn | Script,
    settings: RouterSettings = QUICK,
    *,
    kind: str = "",
) -> Door:
    """Builds the router's door with a scripted provider.

    Args:
        kind: of a provider that has chats alone, behind the bridges; else empty.
    """
    script: Script = {INCUMBENT: turn} if isinstance(turn, ScriptedTurn) else turn
    url = "http://127.0.0.1:1/v1"
    of = provider(url, kind=kind) if kind else provider(url)
    first = snapshot(url, fallback=isinstance(turn, dict), providers=[of])
    made = Door(folder, script, settings, first=first)
    if kind:
        repairs = LearnedRepairs(time.monotonic)
        bridged: Transport = ConversationTransport(kind, made.transport, repairs)
        made.transport = bridged  # type: ignore[assignment]  # as the scripted one, but for `seen`
    return made


async def ask_router(
    router: Door,
    path: str = CHAT,
    **more: object,
) -> bytes:
    status, _, body = await router.call(path, json.dumps({**ASKS[path], **more}).encode())
    assert status == 200, body
    return body


def irregular(what: str, target: str = f"up/{INCUMBENT}") -> str:
    return f'swapproof_irregular_answers_total{{target="{target}",what="{what}"}}'


ATTEMPTS = "swapproof_attempts_total{"
GOOD = f'{ATTEMPTS}failure_class="none",provider="up",target="up/{INCUMBENT}"}}'


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("kind", "path", "begun", "last"),
    [
        ("", CHAT, (*CHAT_TEXT, FINISHED), DONE),
        ("", MESSAGES, (*MESSAGE, STOPPED), STOP_EVENT),
        ("ollama", MESSAGES, (*CHAT_TEXT, FINISHED), b"message_stop"),
        ("ollama", RESPONSES, (*CHAT_TEXT, FINISHED), b"response.completed"),
    ],
)
async def test_a_stream_that_said_why_it_ends_is_whole_without_its_last_event(
    tmp_path: Path,
    kind: str,
    path: str,
    begun: tuple[bytes, ...],
    last: bytes,
    end: str,
) -> None:
    """Its client gets the whole answer and no error.

    Args:
        kind: of a provider that has chats alone, else empty.
    """
    turn = ScriptedTurn(headers=EVENTS, steps=(*begun, *ENDS[end]))
    router = door(tmp_path, turn, kind=kind)

    body = await ask_router(router, path)

    assert b"hello" in body
    assert body.endswith(last) if not kind else last in body
    assert b"event: error" not in body
    assert b'{"error"' not in body
    found = await router.metrics()
    assert found[GOOD] == 1
    assert kind or found[irregular("no_last_event")] == 1


@pytest.mark.parametrize(
    ("kind", "path", "end"),
    [
        *(("", path, end) for path in (MESSAGES, RESPONSES) for end in ENDS),
        *((kind, path, end) for kind, path in (("", CHAT), *TRANSLATED) for end in BREAKS),
    ],
)
async def test_one_that_does_not_say_why_it_ends_is_broken(
    tmp_path: Path,
    kind: str,
    path: str,
    end: str,
) -> None:
    quick = replace(QUICK, between_chunks_timeout_s=0.05)
    begun = BEGUN[CHAT if kind else path]
    turn = ScriptedTurn(headers=EVENTS, steps=(*begun, *BREAKS[end]))
    router = door(tmp_path, turn, quick, kind=kind)

    body = await ask_router(router, path)

    assert b"hello" in body
    assert b"error" in body.split(b"\n\n")[-2]
    assert b"broke off" in body
    # Behind a block's end, Claude Code does not ask again.
    ends = (
        DONE,
        b"content_block_stop",
        b"event: message_",
        b"event: response.completed",
    )
    assert not [end for end in ends if end in body.replace(b"event: message_start", b"")]
    (attempt,) = [name for name in await router.metrics() if name.startswith(ATTEMPTS)]
    assert 'failure_class="none"' not in attempt
    assert 'failure_class="cancelled"' not in attempt


FIRST_OF_TWO = (event({"content": "one"}), FINISHED)
SECOND_OF_TWO = (
    0.3,
    event({"content": "two"}, index=1),
    event(finish="stop", index=1),
)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("rest", "whole"),
    [
        *((rest, False) for end, rest in ENDS.items() if end != "silent"),
        # One choice after another, with the last event and without it.
        (SECOND_OF_TWO, True),
        ((*SECOND_OF_TWO, DONE), True),
        # A provider that makes fewer choices says so by its last event.
        ((DONE,), True),
    ],
)
async def test_a_stream_is_whole_once_each_choice_that_was_asked_for_came_or_the_last_event(
    tmp_path: Path,
    rest: tuple[bytes | float | ScriptedEvent, ...],
    *,
    whole: bool,
) -> None:
    router = door(tmp_path, ScriptedTurn(headers=EVENTS, steps=(*FIRST_OF_TWO, *rest)))

    body = await ask_router(router, n=2)

    assert b"one" in body
    assert (b"two" in body) is (0.3 in rest)
    assert body.endswith(DONE) is whole
    assert (DONE in body) is whole
    assert (b'"error"' in body) is not whole
    assert (GOOD in await router.metrics()) is whole


PING = b": ping\n\n"
NOTHING_NEW = {
    "comment": PING,
    "ping": b'event: ping\ndata: {"type": "ping"}\n\n',
    "empty": event({"content": ""}),
    "role": event({"role": "assistant", "content": None}),
    "no choices": b'data: {"choices": []}\n\n',
    "usage": b'data: {"choices": [{"delta": {}}], "usage": {"total_tokens": 1}}\n\n',
    "half an event": b"data: ",
}


@pytest.mark.parametrize(
    ("path", "nothing"),
    [
        *((CHAT, nothing) for nothing in NOTHING_NEW.values()),
        (MESSAGES, delta("")),
        (MESSAGES, NOTHING_NEW["ping"]),
        (RESPONSES, ev("response.in_progress", response={})),
        (RESPONSES, ev("response.output_text.delta", delta="")),
    ],
)
async def test_what_brings_an_answer_on_alone_gives_a_stream_more_time(
    tmp_path: Path,
    path: str,
    nothing: bytes,
) -> None:
    # Before, this went on to the end of all time, which is two minutes.
    pings: tuple[bytes | float, ...] = (nothing, 0.02) * 6000
    settings = replace(QUICK, between_chunks_timeout_s=0.2)
    turn = ScriptedTurn(headers=EVENTS, steps=(*BEGUN[path], *pings))

    body = await ask_router(door(tmp_path, turn, settings), path)

    assert b"time between chunks is up" in body


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_thoughts_that_a_translation_keeps_back_give_a_stream_more_time(
    tmp_path: Path, path: str
) -> None:
    thoughts = (event({"reasoning_content": "hm"}), 0.02) * 100
    settings = replace(QUICK, between_chunks_timeout_s=1.0)
    turn = ScriptedTurn(headers=EVENTS, steps=(*CHAT_TEXT, *thoughts, FINISHED, DONE))
    router = door(tmp_path, turn, settings, kind="ollama")

    body = await ask_router(router, path)

    assert b"hm" not in body
    assert b"is up" not in body


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_thoughts_that_a_translation_keeps_back_are_no_output(
    tmp_path: Path, path: str
) -> None:
    thoughts = (0.02, event({"reasoning_content": "hm"})) * 20
    more = event({"content": "more"})
    turn = ScriptedTurn(headers=EVENTS, steps=(*CHAT_TEXT, *thoughts, more, FINISHED, DONE))
    router = door(tmp_path, turn, kind="ollama")

    await ask_router(router, path)

    router.recorder.flush(final=True)
    (minute,) = router.kept.traffic
    assert [*minute.waits[WaitKind.GAP]] >= [wait_bin(0.3)], "one wait, and not twenty short"


USE = {
    "type": "tool_use",
    "id": "c",
    "name": "f",
    "input": {},
}
NO_PIECE = {"type": "input_json_delta", "partial_json": ""}
NAMED = {
    CHAT: (
        ROLE,
        event(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c",
                        "function": {"name": "f"},
                    }
                ]
            }
        ),
        event({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
    ),
    MESSAGES: (
        MESSAGE[0],
        ev("content_block_start", index=0, content_block=USE),
        ev("content_block_delta", index=0, delta=NO_PIECE),
        ev("content_block_stop", index=0),
    ),
    RESPONSES: (
        ev("response.created", response={}),
        ev(
            "response.output_item.added",
            item={"type": "function_call", "name": "f"},
        ),
        ev("response.function_call_arguments.delta", delta=""),
    ),
}
GOES_ON = {
    CHAT: (*CHAT_TEXT, FINISHED, DONE),
    MESSAGES: (*MESSAGE, STOPPED, STOP_EVENT),
    RESPONSES: (
        ev("response.output_text.delta", delta="hello"),
        ev("response.completed", response={"output": []}),
    ),
}


@pytest.mark.parametrize(("kind", "path"), [*(("", path) for path in NAMED), *TRANSLATED])
async def test_a_tools_name_alone_does_not_commit_a_stream(
    tmp_path: Path,
    kind: str,
    path: str,
) -> None:
    spoken = CHAT if kind else path
    turns: Script = {
        INCUMBENT: ScriptedTurn(headers=EVENTS, steps=(*NAMED[spoken], ScriptedEvent.RESET)),
        FALLBACK: ScriptedTurn(headers=EVENTS, steps=GOES_ON[spoken]),
    }
    router = door(tmp_path, turns, kind=kind)

    body = await ask_router(router, path)

    assert b"hello" in body
    assert b'"f"' not in body
    assert b'{"error"' not in body
    assert b"event: error" not in body


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_what_is_not_known_is_passed_on_in_its_place(tmp_path: Path, path: str) -> None:
    odd = ev("weather", sun=True)
    turn = ScriptedTurn(
        headers=EVENTS,
        steps=(odd, *GOES_ON[path][:-1], odd, GOES_ON[path][-1]),
    )

    body = await ask_router(door(tmp_path, turn), path)

    assert body.count(b'"sun": true') == 2
    assert body.index(b"weather") < body.index(b"hello")
    assert b'"error"' not in body


async def test_a_call_without_arguments_is_committed_by_its_end(tmp_path: Path) -> None:
    turn = ScriptedTurn(
        headers=EVENTS,
        steps=(*NAMED[CHAT], event(finish="tool_calls"), DONE),
    )

    body = await ask_router(door(tmp_path, turn))

    assert b'"f"' in body
    assert body.endswith(DONE)


NOT_FINITE = (
    b'data: {"model":"m","x":NaN,"choices":[{"index":0,"delta":{"content":"h\\u00e9llo"},'
    b'"logprobs":{"content":[-Infinity,0.5,NaN]}}],"usage":null,"n":1e999}\n\n'
)


@pytest.mark.parametrize("kind", ["", "ollama"])
async def test_a_number_that_is_none_is_left_out_of_its_event(
    tmp_path: Path, kind: str
) -> None:
    turn = broken_stream(ROLE, NOT_FINITE, FINISHED, DONE)
    router = door(tmp_path, turn, kind=kind)

    body = await ask_router(router)

    chunks = [json.loads(line[6:]) for line in body.decode().split("\n\n")[:-2]]
    assert chunks[1]["choices"][0]["delta"] == {"content": "héllo"}
    assert chunks[1]["choices"][0]["logprobs"] == {"content": [None, 0.5, None]}
    assert not {"x", "n"} & set(chunks[1])
    assert chunks[1]["model"] == "support"
    assert body.endswith(DONE)
    assert (await router.metrics())[irregular("not_finite")] == 1
    for path in (MESSAGES, RESPONSES) if kind else ():
        assert b"llo" in await ask_router(router, path)


def plain(
    path: str,
    content: object,
    **more: object,
) -> ScriptedTurn:
    answers: dict[str, dict[str, Any]] = {
        CHAT: {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content},
                }
            ]
        },
        MESSAGES: {
            "type": "message",
            "content": [content] if content else [],
        },
        RESPONSES: {
            "object": "response",
            "output": [content] if content else [],
        },
    }
    return ScriptedTurn(
        steps=(
            json.dumps(
                {
                    "model": "m",
                    **answers[path],
                    **more,
                }
            ).encode(),
        )
    )


PLAIN = {
    CHAT: "hello",
    MESSAGES: {"type": "text", "text": "hello"},
    RESPONSES: {"a": "hello"},
}


@pytest.mark.parametrize(
    ("kind", "path", "end"),
    [
        *(("", path, b"") for path in PLAIN),
        ("ollama", MESSAGES, b"end_turn"),
        ("ollama", RESPONSES, b"completed"),
    ],
)
async def test_a_plain_answer_without_a_reason_to_end_is_passed_and_counted(
    tmp_path: Path,
    kind: str,
    path: str,
    end: bytes,
) -> None:
    """Its client gets the whole answer.

    Args:
        end: what a translation makes of it, which is the usual one.
    """
    router = (
        door(tmp_path, plain(CHAT, "hello"), kind=kind)
        if kind
        else door(tmp_path, plain(path, PLAIN[path]))
    )

    body = await ask_router(router, path, stream=False)

    assert b"hello" in body
    assert end in body
    assert (await router.metrics())[irregular("no_finish_reason")] == 1


@pytest.mark.parametrize("path", PLAIN)
async def test_one_without_content_either_is_no_answer(tmp_path: Path, path: str) -> None:
    router = door(
        tmp_path,
        {INCUMBENT: plain(path, None), FALLBACK: plain(path, PLAIN[path])},
    )

    status, headers, body = await router.call(
        path, json.dumps({**ASKS[path], "stream": False}).encode()
    )

    assert status == 200
    assert b"hello" in body
    assert headers[b"x-swapproof-attempts"] == b"2"


async def test_an_answer_as_it_should_be_is_not_counted(tmp_path: Path) -> None:
    for name, turn, ask in (
        ("plain", completion("a"), {**ASK, "stream": False}),
        ("stream", streamed("a"), ASK),
    ):
        folder = tmp_path / name
        folder.mkdir()
        router = door(folder, turn)
        await router.call(CHAT, json.dumps(ask).encode())
        assert not [metric for metric in await router.metrics() if "irregular" in metric]
    assert isinstance(router.transport, ScriptedTransport)
