"""Events on their way: the commit point, the end, and every other byte."""

import itertools
import json
from codecs import BOM_UTF8
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.protocols.chat.stream import DONE, ChatStream
from router.protocols.sse import SsePayloads
from tests.support.providers.scripted_upstream import ROLE, USAGE, event

WHOLE = b"".join(
    (
        b": ping\n\n",
        ROLE,
        event({"content": "a"}),
        event({"content": "b"}),
        event(finish="stop"),
    )
)


def filtered(data: bytes, cuts: list[int], *, show_usage: bool = False) -> tuple[bytes, str]:
    """What the client gets when `data` arrives cut at these places, and the failure."""
    stream = ChatStream('"route"', show_usage=show_usage)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    out = b""
    for start, end in itertools.pairwise(places):
        out += stream.feed(data[start:end])
        if stream.failure or stream.finished:
            return out, stream.failure
    return out + stream.end(), stream.failure


cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(cuts, st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_only_model_changes_wherever_the_network_cuts(cuts: list[int], line: bytes) -> None:
    data = (WHOLE + USAGE + DONE).replace(b"\n", line)

    out, failure = filtered(data, cuts, show_usage=True)

    assert failure == ""
    model = out.count(b'"model": "route"') + out.count(b'"model":"route"')
    assert model == 5
    # Some readers take the empty line behind a comment for the end of an event.
    assert out.replace(b'"route"', b'"m"') == data.replace(line, b"", 1)


@given(cuts)
def test_usage_that_was_not_asked_for_is_counted_and_not_sent(cuts: list[int]) -> None:
    out, failure = filtered(WHOLE + USAGE + DONE, cuts)

    assert failure == ""
    assert b"usage" not in out
    assert out.endswith(DONE)


@pytest.mark.req("B8")
@given(cuts, st.integers(0, len(WHOLE) - len(event(finish="stop"))))
def test_a_stream_cut_before_its_finish_reason_is_broken(cuts: list[int], end: int) -> None:
    out, failure = filtered(WHOLE[:end], cuts)

    assert failure
    assert b"[DONE]" not in out


@pytest.mark.parametrize(
    ("data", "commits"),
    [
        (ROLE, False),
        (b": keep-alive\n\n", False),
        (event({"content": None, "tool_calls": []}), False),
        (event({"content": "x"}), True),
        (event({"reasoning_content": "x"}), True),
        (event({"tool_calls": [{"index": 0}]}), False),
        (event({"refusal": "no"}), True),
        (event(finish="length"), True),
        (b'event: ping\ndata: {"type":"ping"}\n\n', False),
    ],
)
@pytest.mark.req("B8")
def test_the_first_real_output_commits(data: bytes, *, commits: bool) -> None:
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(data)

    assert stream.committed is commits
    assert stream.failure == ""


@pytest.mark.req("B8")
def test_pieces_of_calls_are_written_as_all_clients_join_them() -> None:
    def piece(arguments: str, **given: object) -> bytes:
        function = {"name": given.pop("name", None), "arguments": arguments}
        named = {name: value for name, value in function.items() if value is not None}
        return event({"tool_calls": [{**given, "function": named}]})

    stream = ChatStream('"r"', show_usage=False)
    came = (
        piece("", index=0, id="c", type="function", name="look"),
        piece('{"n":1', index=0, id="c", name="look"),  # both once more
        piece("}", index=0),
        piece('{"n":2}', index=0, id="c", name="look"),  # another one in its place
        piece('{"n":3}', name="find"),  # no id, no index
    )

    out = b"".join(stream.feed(data) for data in came)

    joined: dict[int, list[Any]] = {}
    for data in SsePayloads().read(out):
        for delta in json.loads(data)["choices"][0]["delta"]["tool_calls"]:
            call = joined.setdefault(delta["index"], ["", "", "", ""])
            call[0] += delta.get("id") or ""
            call[1] += delta.get("type") or ""
            call[2] += delta["function"].get("name") or ""
            call[3] += delta["function"]["arguments"]
    ids = [call.pop(0) for call in joined.values()]
    assert (ids[0], len(set(ids)), all(ids)) == ("c", 3, True)
    assert list(joined.values()) == [
        ["function", "look", '{"n":1}'],
        ["function", "look", '{"n":2}'],
        ["function", "find", '{"n":3}'],
    ]
    regular = piece('{"n":1}', index=0, id="c", type="function", name="look")
    assert ChatStream(None, show_usage=False).feed(regular) == regular


def test_every_choice_needs_its_own_end() -> None:
    two = (
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}},'
        b'{"index":1,"delta":{"content":"b"}}]}\n\n'
    )
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(two + event(finish="stop") + DONE)

    assert "finish_reason" in stream.failure


@pytest.mark.req("B8")
def test_a_provider_that_sends_an_empty_finish_reason_has_not_finished() -> None:
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(event({"role": "assistant"}, finish=""))
    assert not stream.committed
    stream.feed(event({"content": "a"}, finish=""))
    stream.end()

    assert "finish_reason" in stream.failure


@given(cuts)
def test_a_byte_order_mark_hides_no_event(cuts: list[int]) -> None:
    assert filtered(BOM_UTF8 + WHOLE, cuts) == filtered(WHOLE, cuts)


def test_data_over_several_lines_are_one_event() -> None:
    stream = ChatStream('"r"', show_usage=False)

    out = stream.feed(
        b'event: message\ndata: {"model":"m",\n'
        b'data: "choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    )

    assert stream.committed
    assert b'"model":"r"' in out
    assert out.startswith(b"event: message\n")


@pytest.mark.parametrize("name", [b": ", b"id: "])
def test_a_line_behind_the_data_that_repeats_them_stays_as_it_came(name: bytes) -> None:
    came = event({"content": "a"}).removesuffix(b"\n\n")
    repeated = name + came.removeprefix(b"data: ")

    sent = ChatStream('"route"', show_usage=False).feed(came + b"\n" + repeated + b"\n\n")

    assert sent == came.replace(b'"m"', b'"route"') + b"\n" + repeated + b"\n\n"


def test_the_last_event_stays_as_it_came_as_well() -> None:
    end = b"id: 9\ndata:[DONE]\nretry: 5\n\n"

    out, failure = filtered(WHOLE + end + b"data: late\n\n", [])

    assert failure == ""
    assert out.endswith(end)


def test_an_end_without_done_gets_one() -> None:
    out, failure = filtered(WHOLE, [])

    assert failure == ""
    assert out.endswith(DONE)


def test_an_endless_event_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.domain.sse.MAX_EVENT_BYTES", 1000)
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(b"data: " + b"x" * 2000)

    assert "larger" in stream.failure
