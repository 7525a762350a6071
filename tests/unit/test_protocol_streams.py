import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.frame.sse import MAX_EVENT_BYTES, MAX_UNFINISHED_BYTES
from router.protocols.answers import TokenUsage
from router.protocols.chat.stream import DONE, ChatStream
from router.protocols.event_stream import StreamFilter
from router.protocols.messages.dialect import MessagesStream
from router.protocols.responses.dialect import ResponsesStream
from tests.support.providers.scripted_upstream import ROLE, USAGE
from tests.support.providers.scripted_upstream import event as chunk

F = FailureClass


def ev(kind: str, **fields: Any) -> bytes:
    """Odd spacing, so that equal bytes mean something."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def raw(kind: str, data: str) -> bytes:
    return f'event: {kind}\ndata: {{ "type" :"{kind}", {data} }}\n\n'.encode()


def delta(**fields: Any) -> bytes:
    return ev("content_block_delta", index=0, delta=fields)


def block(**fields: Any) -> bytes:
    return ev("content_block_start", index=0, content_block=fields)


START = raw(
    "message_start",
    '"message":{"id":"msg", "model" : "claude", "content":[], "usage":{"input_tokens":5,'
    '"cache_read_input_tokens":20,"cache_creation_input_tokens":10,"output_tokens":1}}',
)
BLOCK = block(type="text", text="")
STOPPED = ev("content_block_stop", index=0)
END = ev(
    "message_delta",
    delta={"stop_reason": "end_turn"},
    usage={"output_tokens": 7},
)
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
TEXT = delta(type="text_delta", text='say "model": "claude"')
MESSAGE = START + BLOCK + PING + TEXT + delta(type="text_delta", text="b") + STOPPED + END

CREATED = raw(
    "response.created",
    '"sequence_number":0,"response":{"id":"r","model": "gpt"}',
)
ADDED = ev("response.output_item.added", sequence_number=1, item={"type": "message"})
WORD = ev("response.output_text.delta", sequence_number=2, delta='"model": "gpt"')
COMPLETED = raw(
    "response.completed",
    '"sequence_number":3,"response":{"model": "gpt", "output":[], "usage":{"input_tokens":9,'
    '"output_tokens":4}}',
)
RESPONSE = CREATED + ADDED + WORD
FAILED = raw(
    "response.failed",
    '"sequence_number":3,"response":{"model": "gpt", "error":{"code":"server_error",'
    '"message":"no"}}',
)


WORDS = ROLE + chunk({"content": "a"}) + chunk({"content": "b"})
CHAT = WORDS + chunk(finish="stop") + USAGE


def chat() -> StreamFilter:
    return ChatStream('"route"', show_usage=True)


def messages() -> StreamFilter:
    return MessagesStream('"route"')


def responses() -> StreamFilter:
    return ResponsesStream('"route"')


Make = Callable[[], StreamFilter]
# sure: what may be cut off, and the stream is broken.
EACH = pytest.mark.parametrize(
    ("make", "begun", "sure", "end"),
    [
        (chat, CHAT, len(WORDS), DONE),
        (messages, MESSAGE, len(MESSAGE) - len(END), ev("message_stop")),
        (responses, RESPONSE, len(RESPONSE), COMPLETED),
    ],
    ids=["chat", "messages", "responses"],
)


def run(
    stream: StreamFilter,
    data: bytes,
    cuts: list[int],
) -> bytes:
    """What the client gets when `data` arrives cut at these places, and ends."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    out = b""
    for start, end in itertools.pairwise(places):
        out += stream.feed(data[start:end])
        if stream.failure or stream.finished:
            return out
    return out + stream.end()


cuts = st.lists(st.integers(0, 10_000), max_size=30)


@EACH
@given(cuts=cuts, line=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_only_the_model_changes_wherever_the_network_cuts(
    make: Make,
    begun: bytes,
    sure: int,
    end: bytes,
    cuts: list[int],
    line: bytes,
) -> None:
    assert 0 < sure <= len(begun)
    data = (begun + end).replace(b"\n", line)
    stream = make()

    out = run(stream, data, cuts)

    assert (stream.failure, stream.finished, stream.failure_class) == (
        "",
        True,
        None,
    )
    # In the words of the answer the quotes are escaped: those stay.
    changed = data
    for model in (b'"claude"', b'"gpt"', b'"m"'):
        changed = changed.replace(model, b'"route"')
    assert out == changed != data


@EACH
@pytest.mark.req("B8")
@given(cuts=cuts, data=st.data())
def test_a_stream_cut_before_its_end_is_broken(
    make: Make,
    begun: bytes,
    sure: int,
    end: bytes,
    cuts: list[int],
    data: st.DataObject,
) -> None:
    whole = begun[: data.draw(st.integers(0, sure))]
    stream = make()

    out = run(stream, whole, cuts)

    assert stream.failure
    assert stream.failure_class is F.MALFORMED
    assert b"message_stop" not in out
    assert b"completed" not in out
    assert end not in out


@pytest.mark.parametrize(
    ("make", "data", "commits"),
    [
        (chat, ROLE, False),
        (chat, b": keep-alive\n\n", False),
        (chat, chunk({"content": None, "tool_calls": []}), False),
        (chat, chunk({"content": "x"}), True),
        (chat, chunk({"reasoning_content": "x"}), True),
        (chat, chunk({"tool_calls": [{"index": 0}]}), False),
        (chat, chunk({"refusal": "no"}), True),
        (chat, chunk(finish="length"), True),
        (chat, PING, False),
        (messages, START, False),
        (messages, BLOCK, False),
        (messages, PING, False),
        (messages, b": keep-alive\n\n", False),
        (messages, delta(type="text_delta", text=""), False),
        (messages, block(type="tool_use"), False),
        (messages, block(type="thinking"), False),
        (messages, delta(type="text_delta", text="a"), True),
        (messages, delta(type="thinking_delta", thinking="a"), True),
        (messages, delta(type="input_json_delta", partial_json="{"), True),
        (messages, STOPPED, False),
        (messages, block(type="text", text="a"), True),
        (messages, block(type="redacted_thinking"), True),
        (
            messages,
            ev("message_delta", delta={"stop_reason": "max_tokens"}),
            True,
        ),
        (messages, ev("an_event_of_tomorrow"), False),
        (responses, ev("an_event_of_tomorrow"), False),
        (responses, CREATED, False),
        (
            responses,
            ev("response.in_progress", response={"model": None}),
            False,
        ),
        (responses, ADDED, False),
        (responses, ev("response.content_part.added"), False),
        (responses, ev("response.output_text.delta", delta=""), False),
        (responses, WORD, True),
        (
            responses,
            ev("response.function_call_arguments.delta", delta="{"),
            True,
        ),
        (
            responses,
            ev("response.reasoning_summary_text.delta", delta="a"),
            True,
        ),
        (responses, ev("response.refusal.delta", delta="a"), True),
        (responses, ev("response.output_item.done", item={}), True),
        (responses, ev("response.incomplete", response={}), True),
    ],
)
@pytest.mark.req("B8")
def test_the_first_real_output_commits(
    make: Make,
    data: bytes,
    *,
    commits: bool,
) -> None:
    stream = make()

    stream.feed(data)

    assert stream.committed is commits
    assert stream.failure == ""


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("overloaded_error", F.OVERLOADED),
        ("rate_limit_error", F.RATE_LIMITED),
        ("api_error", F.SERVER),
        ("permission_error", F.OUR_KEY),
        ("invalid_request_error", F.BAD_REQUEST),
        ("of_tomorrow", F.MALFORMED),
    ],
)
@pytest.mark.req("B8")
def test_an_error_event_of_a_message_is_kept_back_and_has_its_class(
    kind: str, failure: F
) -> None:
    stream = messages()

    out = stream.feed(START + ev("error", error={"type": kind, "message": "secret words"}))

    assert b"secret" not in out
    assert (stream.committed, stream.failure_class) == (False, failure)


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (ev("error", code="server_error", message="x"), F.SERVER),
        (
            ev(
                "error",
                error={"code": "rate_limit_exceeded", "message": "x"},
            ),
            F.RATE_LIMITED,
        ),
        (b'data: {"error":{"type":"insufficient_quota"}}\n\n', F.QUOTA),
        (ev("error"), F.MALFORMED),
        (FAILED, F.SERVER),
    ],
)
@pytest.mark.req("B8")
def test_an_error_before_the_output_of_a_response_has_its_class(
    event: bytes, failure: F
) -> None:
    stream = responses()

    out = stream.feed(CREATED + event)

    assert b"response.created" in out
    assert b"error" not in out
    assert (stream.committed, stream.finished) == (False, False)
    assert stream.failure
    assert stream.failure_class is failure


def test_a_response_that_fails_after_its_output_ends_with_the_providers_words() -> None:
    stream = responses()

    out = stream.feed(RESPONSE + FAILED)

    assert out.endswith(FAILED.replace(b'"gpt"', b'"route"'))
    assert (stream.finished, stream.failure, stream.failure_class) == (
        True,
        "",
        F.SERVER,
    )


def test_usage_counts_the_cache_and_the_last_word_on_the_output() -> None:
    stream = messages()
    stream.feed(START + BLOCK + TEXT)
    assert stream.used() == TokenUsage(35, 1, 20, 10)
    stream.feed(delta(type="text_delta", text="b"))
    assert stream.used() == TokenUsage(35, 2, 20, 10)
    stream.feed(END)
    assert stream.used() == TokenUsage(35, 7, 20, 10)

    other = responses()
    other.feed(RESPONSE)
    assert other.used() == TokenUsage(0, 1)
    other.feed(COMPLETED)
    assert other.used() == TokenUsage(9, 4)
    assert (stream.finish_reasons, other.finish_reasons) == (
        ["end_turn"],
        ["completed"],
    )


def test_a_stop_without_a_reason_is_no_end() -> None:
    stream = messages()

    stream.feed(START + BLOCK + TEXT + STOPPED + ev("message_stop"))

    assert "stop_reason" in stream.failure
    assert not stream.finished


def test_what_ends_a_broken_stream_is_in_the_clients_protocol() -> None:
    told = json.loads(messages().broken("it broke", F.OVERLOADED).split(b"data: ")[1])
    assert told == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "it broke"},
    }

    stream = responses()
    stream.feed(RESPONSE)
    told = json.loads(stream.broken("it broke", F.TIMEOUT).split(b"data: ")[1])
    assert told["sequence_number"] == 3
    assert (
        told["type"],
        told["code"],
        told["message"],
    ) == (
        "error",
        "timeout",
        "it broke",
    )
    assert told["error"]["message"] == "it broke"  # the official client looks here


def test_every_choice_needs_its_own_end() -> None:
    two = (
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}},'
        b'{"index":1,"delta":{"content":"b"}}]}\n\n'
    )
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(two + chunk(finish="stop") + DONE)

    assert "finish_reason" in stream.failure


@pytest.mark.req("B8")
def test_a_provider_that_sends_an_empty_finish_reason_has_not_finished() -> None:
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(chunk({"role": "assistant"}, finish=""))
    assert not stream.committed
    stream.feed(chunk({"content": "a"}, finish=""))
    stream.end()

    assert "finish_reason" in stream.failure


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
    came = chunk({"content": "a"}).removesuffix(b"\n\n")
    repeated = name + came.removeprefix(b"data: ")

    sent = ChatStream('"route"', show_usage=False).feed(came + b"\n" + repeated + b"\n\n")

    assert sent == came.replace(b'"m"', b'"route"') + b"\n" + repeated + b"\n\n"


def test_the_last_event_stays_as_it_came_as_well() -> None:
    end = b"id: 9\ndata:[DONE]\nretry: 5\n\n"

    stream = chat()
    out = run(stream, WORDS + chunk(finish="stop") + end + b"data: late\n\n", [])

    assert stream.failure == ""
    assert out.endswith(end)


def test_an_endless_event_is_cut_off() -> None:
    stream = ChatStream('"r"', show_usage=False)

    stream.feed(b"data: " + b"x" * MAX_EVENT_BYTES)

    assert "larger" in stream.failure
    assert stream.failure_class is FailureClass.MALFORMED


@given(st.lists(st.integers(0, 5_000_000), max_size=8))
@settings(max_examples=10)
def test_an_event_of_some_mib_arrives_unchanged_wherever_it_is_cut(cuts: list[int]) -> None:
    picture = chunk({"content": "x" * 4_000_000})

    whole = run(chat(), CHAT.replace(WORDS, ROLE + picture), cuts)

    assert whole == run(chat(), CHAT.replace(WORDS, ROLE + picture), [])
    assert b"x" * 4_000_000 in whole


def test_the_unfinished_events_of_a_process_are_bounded_together() -> None:
    beginning = b"data: " + b"x" * (MAX_EVENT_BYTES - 8)
    streams = [chat() for _ in range(MAX_UNFINISHED_BYTES // MAX_EVENT_BYTES + 1)]

    for stream in streams:
        stream.feed(beginning)

    assert [bool(stream.failure) for stream in streams] == [*[False] * 8, True]
    assert streams[-1].failure_class is FailureClass.INTERNAL  # no fault of the provider
    del streams
    latest = chat()
    latest.feed(beginning)
    assert latest.failure == ""
