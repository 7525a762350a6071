"""Claude Code reads the used context from a stream's first event.

https://github.com/router-for-me/CLIProxyAPI/issues/1700,
https://github.com/sgl-project/sglang/issues/20678
"""

import json
from typing import Any

import pytest

from harness.frame.sse import event_data
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.protocols.endpoints import DIALECTS
from router.upstream.endpoint_translation import estimate_input, translate_message

pytestmark = pytest.mark.req("B7", "A4")
USAGE = {"prompt_tokens": 1234, "completion_tokens": 5, "total_tokens": 1239}


def translated(usage: object) -> tuple[bytes, list[dict[str, Any]]]:
    """Returns the request's body, and the events of a translated stream."""
    message = {"role": "user", "content": "word " * 400}
    body = json.dumps(
        {"model": "m", "max_tokens": 9, "stream": True, "messages": [message]}
    ).encode()
    events = translate_message(body, "custom").events()
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": "ok"}}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": usage},
    ]
    sent = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    raw = events.feed(sent + b"data: [DONE]\n\n") + events.end()
    parts = raw.removesuffix(b"\n\n").split(b"\n\n")
    return raw, [json.loads(event_data(part) or b"") for part in parts]


def test_a_translated_stream_begins_with_an_estimate_and_ends_with_the_count() -> None:
    _, events = translated(USAGE)

    start = events[0]["message"]["usage"]["input_tokens"]
    assert 400 <= start <= 700
    assert events[-2]["usage"]["input_tokens"] == 1234


@pytest.mark.parametrize(("usage", "count"), [(USAGE, 1234), (None, 0)])
def test_an_estimate_is_never_accounted_as_a_count(usage: object, count: int) -> None:
    raw, _ = translated(usage)
    ask = read_request(b'{"model": "m", "stream": true}', Endpoint.MESSAGES)
    filtered = DIALECTS[Endpoint.MESSAGES].stream(ask, None)
    filtered.estimates_input = True

    filtered.feed(raw)

    assert not filtered.failure
    assert filtered.used().input_tokens == count


def test_a_picture_is_no_text() -> None:
    data = "iVBORw0KGgo" * 10_000

    assert estimate_input(json.dumps({"data": data, "text": "hi"}).encode()) < 20


def test_long_words_of_a_text_count_and_take_no_long_search() -> None:
    text = ("a" * 399 + " ") * 50_000

    assert estimate_input(json.dumps({"text": text}).encode()) > 4_000_000
