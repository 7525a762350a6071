"""The strict providers of the tests answer what is malformed as the real ones do: with 400."""

import base64
import copy
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.wire import anthropic, bedrock, gemini, openai, vertex
from tests.wire.server import KEY, Json, Strict, serving

BAD = "not base64!"
PNG = base64.b64encode(b"png").decode()
ASKED = [{"role": "user", "content": "Hello?"}]
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Hello?"}]}]}
GENERATE = {"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]}
WIRES: dict[ModuleType, tuple[str, dict[str, str], Json]] = {
    anthropic: (
        "/v1/messages",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        {
            "model": anthropic.MODEL,
            "max_tokens": 9,
            "messages": ASKED,
            "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        },
    ),
    bedrock: (
        f"/model/{bedrock.MODEL.replace(':', '%3A')}/converse",
        {"authorization": f"Bearer {KEY}"},
        CONVERSE,
    ),
    gemini: (f"/models/{gemini.MODEL}:generateContent", {"x-goog-api-key": KEY}, GENERATE),
    vertex: (
        f"/models/{vertex.MODEL}:generateContent",
        {"authorization": f"Bearer {KEY}"},
        GENERATE,
    ),
    openai: (
        "/chat/completions",
        {"authorization": f"Bearer {KEY}"},
        {"model": openai.MODEL, "messages": ASKED},
    ),
}


@pytest.fixture(scope="module")
def served() -> Iterator[dict[ModuleType, Strict]]:
    found = {wire: serving(wire.strict()) for wire in WIRES}
    entered = {wire: server.__enter__() for wire, server in found.items()}
    yield entered
    for server in found.values():
        server.__exit__(None, None, None)


def status(served: dict[ModuleType, Strict], wire: ModuleType, body: Any) -> int:
    path, headers, _ = WIRES[wire]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{served[wire].api_base}{path}"
    try:
        with urlopen(Request(url, raw, headers), timeout=60) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            said = json.loads(refused.read())
        assert said
        return refused.code


def by_user(**parts: Any) -> list[Json]:
    return [{"role": "user", **parts}]


def used(result: list[Json]) -> list[Json]:
    """A tool's use, and what came of it."""
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    done = {"type": "tool_result", "tool_use_id": "t1", "content": result}
    return [
        *ASKED,
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [done]},
    ]


def pictured(data: str) -> Json:
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    }


def called(arguments: object) -> list[Json]:
    function = {"name": "look", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    done = {"role": "tool", "tool_call_id": "c1", "content": "x"}
    return [*ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}, done]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: str(wire.__name__))
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null"])
def test_what_is_no_object_is_refused(
    served: dict[ModuleType, Strict], wire: ModuleType, body: bytes
) -> None:
    assert status(served, wire, body) == 400
    assert status(served, wire, WIRES[wire][2]) == 200


@pytest.mark.parametrize(
    ("wire", "change"),
    [
        (anthropic, {"temperature": "hot"}),
        (anthropic, {"messages": by_user(content=[pictured(BAD)])}),
        (anthropic, {"messages": by_user(content=[pictured("é")])}),
        (anthropic, {"messages": by_user(content=7)}),
        (anthropic, {"messages": used([pictured(BAD)])}),
        (anthropic, {"messages": used([{"type": "tool_use"}])}),
        (anthropic, {"tools": [{}]}),
        (bedrock, {"inferenceConfig": {"temperature": "hot"}}),
        (
            bedrock,
            {"messages": by_user(content=[{"image": {"source": {"bytes": BAD}}}])},
        ),
        (bedrock, {"messages": [{}]}),
        (gemini, {"generationConfig": {"temperature": "hot"}}),
        (
            gemini,
            {
                "contents": by_user(
                    parts=[{"inlineData": {"mimeType": "image/png", "data": BAD}}]
                )
            },
        ),
        (vertex, {"contents": [7]}),
        (openai, {"temperature": "hot"}),
        (openai, {"messages": called("")}),
        (openai, {"messages": called(None)}),
        (openai, {"messages": by_user(content=[{"type": "video"}])}),
        (
            openai,
            {
                "messages": by_user(
                    content=[
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{BAD}"},
                        }
                    ]
                )
            },
        ),
    ],
)
def test_odd_values_are_refused(
    served: dict[ModuleType, Strict], wire: ModuleType, change: Json
) -> None:
    assert status(served, wire, copy.deepcopy(WIRES[wire][2]) | change) == 400


def test_a_tools_result_may_be_a_picture_alone_at_anthropic(
    served: dict[ModuleType, Strict],
) -> None:
    body = WIRES[anthropic][2] | {"messages": used([pictured(PNG)])}

    assert status(served, anthropic, body) == 200
    assert served[anthropic].readings[-1].turns[-1].results == ("",)
