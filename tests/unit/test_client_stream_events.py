"""The client reads a stream's events by the one parser, however they are cut."""

import json
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.client.stream import AsyncStream
from harness.domain.errors import StreamBroken
from tests.support.providers.scripted_upstream import ROLE, event

DONE = b"data: [DONE]\n\n"
WHOLE = ROLE + b": ping\n\n" + event({"content": "well met"}) + event(finish="stop") + DONE


class Pieces:
    """Implements ChannelAnswer over bytes in memory."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def body(self) -> bytes:
        return b"".join(self._pieces)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None: ...


async def text(*pieces: bytes) -> str:
    async def opening() -> Pieces:
        return Pieces(*pieces)

    stream = AsyncStream(opening, "support")
    return "".join([chunk.text async for chunk in stream])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from([b"\n", b"\r\n", b"\r"]))
async def test_any_line_end_and_any_cut_gives_the_same_text(
    cuts: list[int], line: bytes
) -> None:
    assert await text(*split(WHOLE.replace(b"\n", line), cuts)) == "well met"


async def test_an_event_may_have_its_data_on_several_lines() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "well met"}}]}
    lines = json.dumps(chunk, indent=1).encode().splitlines()
    spread = b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"

    assert await text(spread, event(finish="stop"), DONE) == "well met"


async def test_an_event_that_the_end_cuts_off_is_no_end() -> None:
    with pytest.raises(StreamBroken):
        await text(WHOLE.removesuffix(b"\n\n"))


async def test_an_event_without_end_is_not_gathered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.domain.sse.MAX_EVENT_BYTES", 1000)

    with pytest.raises(StreamBroken, match="larger than 1000 bytes"):
        await text(ROLE, b"data: " + b"x" * 2000)
