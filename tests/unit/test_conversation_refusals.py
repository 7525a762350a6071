import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.providers.target import Provider
from router.conversation.intake import read_mark
from router.frame.body import CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH
from router.upstream.learned_repairs import LearnedRepairs
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import ConversationTransport
from tests.support.providers.scripted_transport import (
    ScriptedTransport,
    ScriptedTurn,
)

pytestmark = pytest.mark.req("B7", "A4")
BASE = "http://127.0.0.1:9/v1"
SPOKEN: frozenset[str] = frozenset()  # the target speaks each endpoint itself
SIGNED = {
    "type": "thinking",
    "thinking": "hm",
    "signature": "c2ln",
}
USE = {
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
THINKS = {
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "messages": [
        {"role": "assistant", "content": [SIGNED, USE]},
        {"role": "user", "content": [RESULT]},
    ],
}
REASONS = {
    "input": [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "encrypted_content": "x",
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "f",
        },
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": "1",
        },
    ]
}
CALLED = {
    "messages": [
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "extra_content": {"google": {}}}],
        },
        {
            "role": "tool",
            "tool_call_id": "c",
            "content": "1",
        },
    ]
}
BOUND = {
    "thinking": {"type": "adaptive", "block_binding": {"on": "mismatch"}},
    "messages": [],
}
FILED = {
    "container": "container_1",
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "file", "file_id": "file_1"},
                }
            ],
        },
        {"role": "assistant", "content": "read"},
        {
            "role": "user",
            "content": [{"type": "container_upload", "file_id": "file_2"}],
        },
    ],
}
ASKED_OF_A_FILE = {
    "tools": [{"type": "code_interpreter", "container": "cntr_1"}],
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_file", "file_id": "file-1"}],
        },
        {
            "type": "function_call",
            "call_id": "c",
            "name": "f",
        },
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": "1",
        },
    ],
}
BETAS = (
    (
        b"anthropic-beta",
        b"thinking-binding-2026-08-01,context-1m-2025-08-07",
    ),
)
Json = dict[str, Any]


def anthropics(message: str) -> Json:
    error = {"type": "invalid_request_error", "message": message}
    return {"type": "error", "error": error}


def openais(message: str, code: str | None = None) -> Json:
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "code": code,
        }
    }


def mistrals(*loc: str) -> Json:
    detail = {"detail": [{"type": "extra_forbidden", "loc": ["body", *loc]}]}
    return {
        "object": "error",
        "message": detail,
        "type": "invalid_request_error",
    }


def provider(path: str, refuses: Callable[[Json], Json | None]) -> ScriptedTransport:
    """Answers 400 with what `refuses` says of a body, else 200."""

    def script_turn(request: UpstreamRequest) -> ScriptedTurn:
        assert request.path == path
        refusal = refuses(json.loads(request.body))
        status, said = (200, {"ok": True}) if refusal is None else (400, refusal)
        return ScriptedTurn(status, steps=(json.dumps(said).encode(),))

    return ScriptedTransport(script_turn)


def moving(kind: str, wire: ScriptedTransport) -> ConversationTransport:
    return ConversationTransport(kind, wire, LearnedRepairs(time.monotonic))


async def ask(
    wire: ScriptedTransport,
    path: str,
    body: Json,
    kind: str = "custom",
    **more: Any,
) -> tuple[int, tuple[str, ...], list[Json]]:
    """Status, what was left out, and the bodies that the provider got."""
    raw = json.dumps(body).encode()
    of = Provider("p", kind, BASE)
    request = UpstreamRequest(of, raw, False, path=path, bridged=SPOKEN, **more)  # noqa: FBT003 - no stream
    reply = await moving(kind, wire).send(request)
    await reply.body()
    await reply.aclose()
    assert wire.open_replies == 0
    return (
        reply.status,
        reply.dropped,
        [json.loads(r.body) for r in wire.seen],
    )


def within(text: str, refusal: Json) -> Callable[[Json], Json | None]:
    return lambda body: refusal if text in json.dumps(body) else None


FORGED = anthropics("messages.0.content.0: Invalid `signature` in `thinking` block")
BOUND_ELSEWHERE = anthropics(
    "messages.0.content.0: the block is bound to a different conversation"
)
SEALED = openais(
    "The encrypted content could not be verified",
    "invalid_encrypted_content",
)
NO_ITEM = openais("Item with id 'rs_1' not found.")
NO_FILE = anthropics("File not found: file_1")
NO_CONTAINER = openais("Container with id 'cntr_1' not found.")
NO_STORE = openais("Unknown parameter: 'store'.")
NO_NAME = openais("'messages.0' : for 'role:user' property 'messages.0.name' is unsupported")
UNSIGNED = openais("Thought signature is not valid")
STORED = {"messages": [], "store": True}
NAMED = {"messages": [{"role": "user", "name": "a"}]}
THOUGHT = ("messages.thinking", "thinking")
READ = ("messages.document", "container")
FILES = ("input.input_file", "tools.container")


@pytest.mark.parametrize(
    ("path", "body", "refused", "refusal", "dropped"),
    [
        (MESSAGES_PATH, THINKS, "c2ln", FORGED, THOUGHT),
        (MESSAGES_PATH, THINKS, "c2ln", BOUND_ELSEWHERE, THOUGHT),
        (f"{MESSAGES_PATH}/count_tokens", THINKS, "c2ln", FORGED, THOUGHT),
        (
            RESPONSES_PATH,
            REASONS,
            "encrypted_content",
            SEALED,
            ("input.reasoning",),
        ),
        (RESPONSES_PATH, REASONS, "rs_1", NO_ITEM, ("input.reasoning",)),
        (CHAT_PATH, CALLED, "extra_content", UNSIGNED, ("extra_content",)),
        (MESSAGES_PATH, FILED, '"source"', NO_FILE, READ),
        (RESPONSES_PATH, ASKED_OF_A_FILE, "cntr_1", NO_CONTAINER, FILES),
        (CHAT_PATH, STORED, "store", NO_STORE, ("store",)),
        (CHAT_PATH, STORED, "store", mistrals("store"), ("store",)),
        (CHAT_PATH, NAMED, "name", NO_NAME, ("messages.*.name",)),
    ],
)
async def test_what_a_provider_refuses_it_is_asked_without(
    path: str,
    body: Json,
    refused: str,
    refusal: Json,
    dropped: tuple[str, ...],
) -> None:
    wire = provider(path, within(refused, refusal))
    status, left_out, bodies = await ask(
        wire,
        path,
        body,
    )
    assert (status, left_out, len(bodies)) == (200, dropped, 2)
    assert refused not in json.dumps(bodies[1])


@pytest.mark.parametrize(
    ("path", "body", "refused", "refusal"),
    [
        (MESSAGES_PATH, THINKS, "c2ln", FORGED),
        (RESPONSES_PATH, REASONS, "rs_1", NO_ITEM),
        (
            MESSAGES_PATH,
            {"messages": FILED["messages"]},
            '"source"',
            NO_FILE,
        ),
    ],
)
async def test_what_was_refused_stays_behind_in_each_later_turn_and_nothing_else_does(
    path: str,
    body: Json,
    refused: str,
    refusal: Json,
) -> None:
    wire = provider(path, within(refused, refusal))
    repairs = LearnedRepairs(time.monotonic)
    moved = ConversationTransport("custom", wire, repairs)
    (history,) = (name for name in ("messages", "input") if name in body)
    own = {
        "type": "thinking",
        "thinking": "hm",
        "signature": "b3du",
    }
    answer: Json = {"role": "assistant", "content": [own]}
    if path == RESPONSES_PATH:
        answer = {
            "type": "reasoning",
            "id": "rs_2",
            "summary": [],
            "encrypted_content": "y",
        }
    later = {
        **body,
        history: [
            *body[history],
            answer,
            {"role": "user", "content": "more"},
        ],
    }
    for turn, requests in ((body, 2), (later, 3)):
        raw = json.dumps(turn).encode()
        reply = await moved.send(
            UpstreamRequest(
                Provider("p", "custom", BASE),
                raw,
                stream=False,
                path=path,
                bridged=SPOKEN,
            )
        )
        assert (reply.status, len(wire.seen)) == (200, requests)
    assert json.loads(wire.seen[-1].body)[history][-2] == answer
    ((shown,),) = repairs.fields().values()
    assert shown.words.endswith(" of another target")


async def test_reasoning_that_a_provider_wants_back_is_given_empty() -> None:
    refusal = openais("reasoning_content is missing in assistant tool call message at index 0")
    wire = provider(
        CHAT_PATH,
        lambda body: None if "reasoning_content" in json.dumps(body) else refusal,
    )
    status, left_out, bodies = await ask(
        wire,
        CHAT_PATH,
        CALLED,
    )
    assert (status, left_out) == (200, ())
    assert bodies[1]["messages"][0]["reasoning_content"] == ""


async def test_a_field_and_its_beta_leave_together() -> None:
    unknown = anthropics("thinking.adaptive.block_binding: Extra inputs are not permitted")
    wire = provider(MESSAGES_PATH, within("block_binding", unknown))
    status, left_out, bodies = await ask(
        wire,
        MESSAGES_PATH,
        BOUND,
        headers=BETAS,
    )
    assert (status, left_out) == (200, ("thinking.adaptive.block_binding",))
    assert bodies[1]["thinking"] == {"type": "adaptive"}
    assert wire.seen[1].headers == ((b"anthropic-beta", b"context-1m-2025-08-07"),)


async def test_an_unknown_field_in_a_list_is_left_out_of_all_entries_from_then_on() -> None:
    refusal = openais("property 'messages.1.name' is unsupported")
    wire = provider(CHAT_PATH, within("name", refusal))
    moved = moving("custom", wire)
    said = {
        "role": "user",
        "content": "hi",
        "name": "ann",
    }
    body = json.dumps({"model": "m", "messages": [{"role": "system"}, said, said]}).encode()
    request = UpstreamRequest(Provider("p", "custom", BASE), body, False)  # noqa: FBT003 - no stream
    for tries in (2, 3):
        reply = await moved.send(request)
        assert (reply.status, reply.dropped) == (200, ("messages.*.name",))
        assert len(wire.seen) == tries
    assert json.loads(wire.seen[-1].body)["messages"][2] == {
        "role": "user",
        "content": "hi",
    }


async def test_each_other_refusal_is_the_answer_after_one_request() -> None:
    for refusal in (
        openais("Invalid 'temperature'"),
        openais("Unknown parameter: 'messages'."),
        openais("Unknown parameter: 'not_sent'."),
        {"detail": "Not Found"},
    ):
        wire = provider(CHAT_PATH, within("messages", refusal))
        status, left_out, bodies = await ask(
            wire,
            CHAT_PATH,
            CALLED,
        )
        assert (status, left_out, len(bodies)) == (400, (), 1)


async def test_a_provider_that_refuses_all_is_asked_four_times_at_most() -> None:
    numbers = iter(range(9))
    wire = provider(
        CHAT_PATH,
        lambda _: openais(f"Unknown parameter: 'f{next(numbers)}'."),
    )
    status, _, bodies = await ask(
        wire,
        CHAT_PATH,
        {f"f{n}": n for n in range(9)},
    )
    assert (status, len(bodies)) == (400, 4)


@pytest.mark.parametrize("cut", [1, 7, 4096])
async def test_signatures_are_marked_in_a_stream_however_it_is_cut(cut: int) -> None:
    delta = {"type": "signature_delta", "signature": "c2ln"}
    events = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": delta,
        },
        {"type": "ping"},
    ]
    raw = b"".join(b"event: x\ndata: %b\n\n" % json.dumps(event).encode() for event in events)
    steps = tuple(raw[at : at + cut] for at in range(0, len(raw), cut))
    head = {"content-type": "text/event-stream"}
    wire = ScriptedTransport(lambda _: ScriptedTurn(headers=head, steps=steps))
    body = json.dumps({**THINKS, "messages": []}).encode()
    request = UpstreamRequest(
        Provider("p", "anthropic", BASE),
        body,
        True,  # noqa: FBT003 - a stream
        path=MESSAGES_PATH,
        maker="aaaaaaaa",
    )
    moved = moving("anthropic", wire)
    reply = await moved.send(request)
    came = b"".join([chunk async for chunk in reply.chunks()])
    data = [json.loads(line[5:]) for line in came.split(b"\n") if line.startswith(b"data:")]
    assert read_mark(data[0]["delta"]["signature"]) == ("aaaaaaaa", "c2ln")
    assert data[1] == events[1]
    assert came.count(b"\n\n") == len(events)
