"""What a provider wants to see again of its own reasoning, when the answer came as a stream."""

import pytest

from harness.client.response_parsing import parse_chunk
from harness.client.stream import StreamAssembly
from harness.client.types import Served


def assembled(*deltas: dict[str, object]) -> object:
    assembly = StreamAssembly()
    for delta in deltas:
        assembly.add(parse_chunk({"choices": [{"index": 0, "delta": delta}]}))
    return assembly.response(Served()).message.extra


@pytest.mark.req("B1", "C5")
def test_signed_thoughts_of_a_stream_go_back_with_the_message() -> None:
    first, second = ({"type": "thinking", "thinking": t, "signature": "s"} for t in "ab")

    extra = assembled(
        {"thinking_blocks": [first]}, {"content": "x"}, {"thinking_blocks": [second]}
    )

    assert extra == {"thinking_blocks": [first, second]}


@pytest.mark.req("B1", "C5")
def test_the_pieces_of_a_detail_make_one_detail() -> None:
    def piece(**fields: object) -> dict[str, object]:
        return {"reasoning_details": [{"type": "reasoning.text", "index": 0, **fields}]}

    sealed = {"type": "reasoning.encrypted", "index": 1, "data": "…"}

    extra = assembled(
        piece(text="First ", signature=None),
        piece(text="this."),
        piece(text="", signature="s"),
        {"reasoning_details": [sealed]},
    )

    whole = {"type": "reasoning.text", "index": 0, "text": "First this.", "signature": "s"}
    assert extra == {"reasoning_details": [whole, sealed]}
