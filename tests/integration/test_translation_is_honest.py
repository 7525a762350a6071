import asyncio
import copy
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from harness.providers.models.abilities import find_abilities
from harness.providers.target import Provider
from router.frame.failure import Untranslatable, UpstreamFailed
from router.upstream.translate.request_screening import RULES, screen_request
from router.upstream.translate.translation import TranslatedCall, Translation
from router.upstream.translate.transport import (
    TranslatingTransport,
    load_translation,
)
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTransport,
    ScriptedTurn,
)
from tests.wire import anthropic, bedrock, gemini, vertex
from tests.wire.server import KEY, WireRequest

pytestmark = pytest.mark.slow

MODELS: Final = {
    "anthropic": anthropic.MODEL,
    "bedrock": bedrock.MODEL,
    "gemini": gemini.MODEL,
    "vertex": vertex.MODEL,
}
USER: Final = {"role": "user", "content": "Rain?"}
TOOL: Final = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module")
def loaded() -> Mapping[str, Translation]:
    return {kind: load_translation(kind) for kind in RULES}


def translate_request(
    loaded: Mapping[str, Translation],
    kind: str,
    **more: Any,
) -> TranslatedCall:
    body = {
        "model": MODELS[kind],
        "messages": [dict(USER)],
        **more,
    }
    return loaded[kind].ask(screen_request(body, kind), stream=False)


@pytest.mark.req("B7")
@pytest.mark.parametrize(
    ("kind", "model", "effort", "said", "told"),
    [
        ("anthropic", "claude-sonnet-4-5", "xhigh", "high", True),
        ("anthropic", "claude-sonnet-4-5", "max", "high", True),
        ("anthropic", "claude-sonnet-4-5", "minimal", "low", True),
        ("anthropic", "claude-opus-4-6", "xhigh", "high", True),
        ("anthropic", "claude-opus-4-6", "max", "max", False),
        ("anthropic", "claude-opus-4-7", "xhigh", "xhigh", False),
        (
            "bedrock",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "xhigh",
            "high",
            True,
        ),
        ("bedrock", "anthropic.claude-opus-4-6-v1:0", "xhigh", "high", True),
        ("gemini", "gemini-2.5-flash", "xhigh", "high", True),
        ("gemini", "gemini-3-pro-preview", "minimal", "low", True),
        ("vertex", "gemini-3-pro-preview", "max", "high", True),
        *((kind, model, "medium", "medium", False) for kind, model in MODELS.items()),
    ],
)
def test_an_effort_is_said_as_it_is_or_as_the_nearest_with_a_word(
    loaded: Mapping[str, Translation],
    kind: str,
    model: str,
    effort: str,
    said: str,
    *,
    told: bool,
) -> None:
    call = translate_request(
        loaded,
        kind,
        model=model,
        reasoning_effort=effort,
        max_tokens=64000,
    )
    plain = translate_request(
        loaded,
        kind,
        model=model,
        reasoning_effort=said,
        max_tokens=64000,
    )

    assert call.body == plain.body
    assert call.dropped == (("reasoning_effort",) if told else ())
    assert "reasoning_effort" not in plain.dropped or said == "low"


@pytest.mark.req("B7")
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("gemini", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-pro"),
        ("vertex", "gemini-2.5-flash-lite"),
    ],
)
@pytest.mark.parametrize("limit", [16, 600, 1400, 5000])
def test_an_effort_leaves_the_answer_its_share_of_the_limit(
    loaded: Mapping[str, Translation],
    kind: str,
    model: str,
    limit: int,
) -> None:
    call = translate_request(
        loaded,
        kind,
        model=model,
        reasoning_effort="high",
        max_tokens=limit,
    )

    budgets = [
        object_[name]
        for object_ in _objects(call.body)
        for name in ("budget_tokens", "thinkingBudget")
        if object_.get(name)
    ]
    assert all(limit - budget >= max(limit / 4, 256) for budget in budgets) or (
        budgets == [128] and "pro" in model  # which always thinks
    )
    assert (call.dropped == ("reasoning_effort",)) is (budgets in ([], [128]))


@pytest.mark.parametrize("kind", ["gemini", "vertex"])
def test_a_temperature_that_nobody_asked_for_is_not_sent(
    loaded: Mapping[str, Translation], kind: str
) -> None:
    thinking = {"model": "gemini-3-pro-preview", "reasoning_effort": "low"}

    assert "temperature" not in json.dumps(translate_request(loaded, kind, **thinking).body)
    wanted = translate_request(
        loaded,
        kind,
        **thinking,
        temperature=0.5,
    ).body["generationConfig"]
    assert wanted["temperature"] == 0.5


@pytest.mark.parametrize("kind", MODELS)
def test_a_call_without_arguments_has_none_at_the_provider(
    loaded: Mapping[str, Translation], kind: str
) -> None:
    call = {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call],
    }
    result = {
        "role": "tool",
        "tool_call_id": "a",
        "content": "rain",
    }

    body = translate_request(
        loaded,
        kind,
        messages=[dict(USER), turn, result],
        tools=[copy.deepcopy(TOOL)],
    ).body

    (made,) = [object_ for object_ in _objects(body) if {"args", "input"} & set(object_)]
    assert made.get("args", made.get("input")) == {}


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [object_ for item in value for object_ in _objects(item)]
    if not isinstance(value, dict):
        return []
    return [
        value,
        *(object_ for object_ in value.values() for object_ in _objects(object_)),
    ]


SAID: Final = {"role": "assistant", "content": "SECRET"}
REFUSED: Final[list[tuple[str, dict[str, Any], str | None]]] = [
    (
        "anthropic",
        {"messages": [{"role": "system", "content": "SECRET"}]},
        "messages",
    ),
    ("gemini", {"temperature": "SECRET"}, "temperature"),
    ("gemini", {"reasoning_effort": "SECRET"}, "reasoning_effort"),
    (
        "gemini",
        {
            "messages": [
                USER,
                {
                    "role": "tool",
                    "tool_call_id": "z",
                    "content": "SECRET",
                },
            ]
        },
        "messages[1].tool_call_id",
    ),
    ("vertex", {"thinking": "SECRET"}, "thinking"),
    *(
        (
            kind,
            {
                "messages": [
                    USER,
                    {**SAID, "thinking_blocks": "SECRET"},
                    USER,
                ]
            },
            "messages",
        )
        for kind in ("anthropic", "bedrock")
    ),
]


@pytest.mark.parametrize(("kind", "more", "param"), REFUSED)
def test_a_refusal_has_neither_the_librarys_words_nor_the_clients(
    loaded: Mapping[str, Translation],
    kind: str,
    more: dict[str, Any],
    param: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(Untranslatable) as caught,
    ):
        translate_request(loaded, kind, **copy.deepcopy(more))

    error = caught.value
    assert error.param == param
    shown = "".join(traceback.format_exception(error))
    for text in (error.message, shown, caplog.text, *capfd.readouterr()):
        assert "litellm" not in text.replace("/", " ").split()
        assert "SECRET" not in text
    assert "litellm" not in error.message


def test_the_librarys_loggers_say_nothing(loaded: Mapping[str, Translation]) -> None:
    assert loaded
    names = [name for name in logging.root.manager.loggerDict if "litellm" in name.lower()]

    assert "LiteLLM" in names
    assert all(logging.getLogger(name).disabled for name in names)


WORDS: Final = {"role": "model", "parts": [{"text": "hi"}]}
UNENDED: Final[Mapping[str, dict[str, Any]]] = {
    "anthropic": {
        "id": "m",
        "model": "claude",
        "content": [{"type": "text", "text": "hi"}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "usage": {
            "inputTokens": 1,
            "outputTokens": 1,
            "totalTokens": 2,
        },
    },
    "gemini": {
        "candidates": [
            {
                "content": WORDS,
                "index": 0,
                "avgLogprobs": float("nan"),
            }
        ]
    },
    "vertex": {"candidates": [{"content": WORDS, "index": 0}]},
}


async def replied(
    kind: str,
    turn: ScriptedTurn,
    *,
    stream: bool,
) -> bytes:
    body = json.dumps(
        {
            "model": MODELS[kind],
            "messages": [USER],
            "stream": stream,
        }
    ).encode()
    place = Provider("p", kind, "http://127.0.0.1:9/v1")
    transport = TranslatingTransport(kind, ScriptedTransport(lambda _: turn))
    reply = await transport.send(UpstreamRequest(place, body, stream))
    return await reply.body()


@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", UNENDED)
async def test_an_answer_that_does_not_say_why_it_ended_is_translated_without_a_reason(
    kind: str,
) -> None:
    turn = ScriptedTurn(steps=(json.dumps(UNENDED[kind]).encode(),))

    (choice,) = json.loads(await replied(kind, turn, stream=False))["choices"]

    assert (choice["message"]["content"], choice["finish_reason"]) == (
        "hi",
        None,
    )


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    "end",
    [
        (),
        (ScriptedEvent.RESET,),
        (ScriptedEvent.HANG,),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
async def test_a_google_stream_that_said_why_it_ends_is_whole(
    monkeypatch: pytest.MonkeyPatch,
    end: tuple[ScriptedEvent, ...],
    *,
    ended: bool,
) -> None:
    monkeypatch.setattr("router.upstream.reply_reading.LAST_EVENTS_S", 0.05)
    reason = {"finishReason": "STOP"} if ended else {}
    said = {
        "candidates": [
            {
                "content": WORDS,
                "index": 0,
                "avgLogprobs": 0.5,
                **reason,
            }
        ]
    }
    event = b"data: " + json.dumps(said).replace("0.5", "NaN").encode() + b"\n\n"
    turn = ScriptedTurn(headers={"content-type": "text/event-stream"}, steps=(event, *end))

    if not ended and end:
        with pytest.raises((UpstreamFailed, TimeoutError)):
            async with asyncio.timeout(0.5):
                await replied("gemini", turn, stream=True)
        return
    out = await replied("gemini", turn, stream=True)

    assert b'"hi"' in out
    assert out.endswith(b"data: [DONE]\n\n") is ended
    assert (b'"finish_reason":"stop"' in out) is ended


@pytest.mark.req("B7")
@pytest.mark.parametrize("texts", [(), ("What does it say?",)])
def test_a_document_reaches_converse_with_a_name_that_it_takes_and_a_text(
    loaded: Mapping[str, Translation], texts: tuple[str, ...]
) -> None:
    file = {"filename": "a_b.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjEK"}
    said = [{"type": "text", "text": text} for text in texts]
    message = {"role": "user", "content": [*said, {"type": "file", "file": file}]}

    call = translate_request(loaded, "bedrock", messages=[message])

    request = WireRequest(call.path, {"authorization": f"Bearer {KEY}"}, call.body)
    (turn,) = bedrock.read(request).turns
    (document,) = [
        block["document"]
        for block in call.body["messages"][0]["content"]
        if "document" in block
    ]
    assert (document["format"], document["source"]) == ("pdf", {"bytes": "JVBERi0xLjEK"})
    assert turn.text == (texts or (".",))[0]  # Converse demands a text beside a document
    assert call.dropped == ()


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929"),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ],
)
def test_a_limit_above_the_models_largest_is_lowered_in_a_chat_too(
    loaded: Mapping[str, Translation], kind: str, model: str
) -> None:
    body = {"model": model, "messages": [dict(USER)], "max_tokens": 128_000}

    request = replace(screen_request(body, kind), can=find_abilities(kind, model))
    call = loaded[kind].ask(request, stream=False)

    limits = call.body.get("inferenceConfig", call.body)
    assert (limits.get("maxTokens") or limits.get("max_tokens")) == 64_000
    assert "max_tokens" in call.dropped
