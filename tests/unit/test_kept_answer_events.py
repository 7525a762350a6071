"""A stream whose answer is kept passes on unchanged, however large its events are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame import sse
from router.server.kept_responses import AnswerEvents

pytestmark = pytest.mark.req("A2", "G4")

DELTA = b'data: {"type": "response.output_text.delta", "delta": "hi"}\n\n'


def completed(text: str) -> bytes:
    response = {"id": "resp_1", "status": "completed", "output": [{"type": "message"}]}
    data = {"type": "response.completed", "response": {**response, "instructions": text}}
    return f"data: {json.dumps(data)}\n\n".encode()


def passed(stream: bytes, size: int) -> tuple[bytes, AnswerEvents]:
    events = AnswerEvents()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return b"".join(map(events.feed, pieces)) + events.rest(), events


@given(st.integers(1, 400_000), st.booleans())
def test_a_large_event_in_pieces_is_kept_and_passes_on(size: int, cut: bool) -> None:  # noqa: FBT001 - a parameter
    stream = DELTA + completed("x" * 300_000)
    stream = stream[:-2] if cut else stream

    heard, events = passed(stream, max(size, 4_096))

    assert heard == stream
    assert events.answer is not None
    assert events.answer["id"] == "resp_1"


@pytest.mark.parametrize("limit", ["MAX_EVENT_BYTES", "MAX_UNFINISHED_BYTES"])
def test_an_event_that_is_too_large_to_keep_passes_on(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sse, limit, 280_000)
    stream = DELTA + completed("x" * 400_000) + DELTA

    heard, events = passed(stream, 65_536)

    assert heard == stream
    assert events.answer is None
