import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.client.response_parsing import parse_chunk
from harness.client.stream import StreamAssembly
from harness.client.types import Served
from router.protocols.answer_signals import AnswerSignals
from router.protocols.chat.stream import DONE, ChatStream, TextEventForm
from tests.support.providers.scripted_upstream import ROLE, event

# Most providers write no space; who names the model last, edits behind the text.
MODEL_FIRST = (
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"%b":"%b"},"p":null}]}'
)
MODEL_LAST = (
    b'data:{"choices": [{"delta": {"role":"a","%b" : "%b"}, "index": 1}], "model": "m"}'
)
NO_MODEL = b'data: {"choices":[{"delta":{"%b":"%b"},"finish_reason":null}],"usage":null}'
IN_DISGUISE = b'data: {"\\u006dodel":"m","choices":[{"index":0,"delta":{"%b":"%b"}}]}'
NOT_FINITE = b'data: {"model":"m","choices":[{"index":0,"logprobs":NaN,"delta":{"%b":"%b"}}]}'
TWICE = b'data: {"model":"m","content":"x","choices":[{"index":0,"delta":{"%b":"%b"}}]}'
FORMS = MODEL_FIRST, MODEL_LAST, NO_MODEL, IN_DISGUISE, NOT_FINITE, TWICE
ODD_TEXTS = (
    b"",
    b'a"b',
    b'a","content":"b',
    b"\\",
    b"\\x",
    b"\\u0041",
    b"\\ud83d",
    b"\xff",
    b"\xed\xa0\x80",
    b"a\tb",
    b"a\nb",
    b"a\r\n\r\nb",
    b"\x7f",
    b"[" * 70,
    b'\\"model\\":\\"m\\"',
    b'\\"content\\":\\"m',
    b"0-swapproof-text-0",
    b"NaN",
)
texts = st.one_of(
    st.text(max_size=9).map(lambda text: json.dumps(text, ensure_ascii=False).encode()[1:-1]),
    st.text(max_size=4).map(lambda text: json.dumps(text).encode()[1:-1]),
    st.sampled_from(ODD_TEXTS),
)
text_events = st.builds(
    lambda form, name, text, end: form % (name, text) + end,
    st.sampled_from(FORMS),
    st.sampled_from([b"content", b"reasoning_content", b"refusal", b"role"]),
    texts,
    st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]),
)
others = st.sampled_from([b": ping\n\n", ROLE, event(finish="stop"), event({"content": "a"})])
same_form = st.lists(texts, min_size=4, max_size=8).map(
    lambda all_: b"".join(MODEL_FIRST % (b"content", text) + b"\n\n" for text in all_)
)
streams = st.lists(st.one_of(text_events, same_form, others), max_size=12).map(b"".join)


class ParsedChatStream(ChatStream):
    """Parses every event."""

    @property
    def _form(self) -> None:
        return None

    @_form.setter
    def _form(self, _: object) -> None: ...


def relayed(
    stream: ChatStream,
    data: bytes,
    cuts: list[int],
    *,
    keeps: bool | None,
) -> dict[str, object]:
    """What the client gets of `data`, cut at these places, and all that the stream noted."""
    if keeps is not None:
        stream.listen(lambda: AnswerSignals(keeps=keeps))
    out = []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        out.append(stream.feed(data[start:end]))
        if stream.failure or stream.finished:
            break
    else:
        out.append(stream.end())
    signals = stream.signals
    return {
        "sent": out,
        "failure": (stream.failure, stream.failure_class),
        "ended": (stream.finished, stream.ended, stream.finish_reasons),
        "counted": (
            stream.output_events,
            stream.progress_events,
            stream.committed,
        ),
        "named": (stream.model, stream.irregularities),
        "fault": stream.signals_fault,
        "signals": signals
        and (
            list(signals.texts()),
            signals.length,
            signals.refused,
            signals.truncated,
            signals.cut,
            signals.declined,
        ),
    }


def compare(
    data: bytes,
    cuts: list[int],
    *,
    keeps: bool | None,
    skips: bool,
) -> None:
    by_form = ChatStream('"route"', show_usage=False)
    parsed = ParsedChatStream('"route"', show_usage=False)
    by_form.skips = parsed.skips = skips
    assert relayed(by_form, data, cuts, keeps=keeps) == relayed(parsed, data, cuts, keeps=keeps)


def events_with(
    *said: bytes,
    form: bytes = MODEL_FIRST,
    name: bytes = b"content",
) -> bytes:
    return b"".join(form % (name, text) + b"\n\n" for text in said)


@given(
    data=streams,
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
    keeps=st.sampled_from([None, True, False]),
    skips=st.booleans(),
)
@example(
    data=events_with(*[b"a"] * 9) + event(finish="stop") + DONE,
    cuts=[],
    keeps=True,
    skips=False,
)
def test_every_stream_is_relayed_as_if_each_event_were_parsed(
    *,
    data: bytes,
    cuts: list[int],
    keeps: bool | None,
    skips: bool,
) -> None:
    compare(
        data,
        cuts,
        keeps=keeps,
        skips=skips,
    )


@pytest.mark.parametrize("odd", ODD_TEXTS)
def test_an_odd_text_after_plain_ones_is_read_as_the_parser_reads_it(odd: bytes) -> None:
    plain = [b"a", "\u00e9\\n".encode()] * 4
    for form, name in itertools.product(FORMS, (b"content", b"reasoning_content", b"refusal")):
        whole = events_with(
            *plain,
            odd,
            b"b",
            form=form,
            name=name,
        )
        whole += event(finish="stop") + DONE
        events = [at + 2 for at in range(len(whole)) if whole.startswith(b"\n\n", at)]
        compare(
            whole,
            events,
            keeps=True,
            skips=False,
        )
        compare(
            whole,
            [],
            keeps=None,
            skips=False,
        )


HEAD = b'data: {"model":"m","choices":[{"delta":{"content":"%b"},'
# Each almost has the form of the plain events before it, which end like the first.
ALIKE = {
    "another choice": (HEAD + b'"index":0}]}', HEAD + b'"index":1}]}'),
    "an end": (
        HEAD + b'"finish_reason":null}]}',
        HEAD + b'"finish_reason":1234}]}',
    ),
    "another model": (
        HEAD + b'"index":0}],"model":"m"}',
        HEAD + b'"index":0}],"model":"n"}',
    ),
    "usage": (
        HEAD + b'"index":0}],"usage":null}',
        HEAD + b'"index":0}],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    ),
    "a broken end": (HEAD + b'"index":0}]}', HEAD + b'"index":0}]]'),
    "an empty text": (
        HEAD + b'"index":0}]}',
        HEAD.replace(b"%b", b"%.0b") + b'"index":0}]}',
    ),
}


@pytest.mark.parametrize(("plain", "alike"), ALIKE.values(), ids=ALIKE)
def test_an_event_that_differs_elsewhere_is_parsed(plain: bytes, alike: bytes) -> None:
    events = [
        *[plain % b"a"] * 6,
        alike % b"a",
        plain % b"a",
    ]
    for cuts in (
        [],
        list(itertools.accumulate(len(sent) + 2 for sent in events)),
    ):
        compare(
            b"".join(sent + b"\n\n" for sent in events),
            cuts,
            keeps=True,
            skips=False,
        )


# In each, what changes is not the text, but looks like it.
MISLEADING = (
    b'data: {"content":"%b","choices":[{"index":0,"delta":{"content":"fixed"}}]}',
    b'data: {"choices":[{"index":0,"delta":{"content":"fixed"}}],"content":"%b"}',
    b'data: {"q\\"content":"%b","choices":[{"delta":{"\\u0063ontent":"fixed"}}]}',
    b'data: {"choices":[{"delta":{"content":"%b"}},{"delta":{"reasoning":"fixed"}}]}',
    b'data: {"choices":[{"delta":{"content":"%b"}}],"usage":{"prompt_tokens":1}}',
    b'data: {"choices":[{"delta":{"content":"%b","reasoning":"fixed"}}]}',
    b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":"length"}]}',
)


@pytest.mark.parametrize("form", MISLEADING)
@pytest.mark.parametrize("texts", [(b"a",) * 9, (b"a", b"bc", b"d", b"e", b"f", b"g", b"hi")])
def test_what_is_not_plainly_a_text_event_is_parsed(
    form: bytes, texts: tuple[bytes, ...]
) -> None:
    compare(
        b"".join(form % text + b"\n\n" for text in texts),
        [],
        keeps=True,
        skips=False,
    )


@pytest.mark.parametrize("form", [MODEL_FIRST, MODEL_LAST, NO_MODEL])
def test_after_a_few_text_events_no_more_are_parsed(
    form: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ChatStream('"route"', show_usage=False)
    for _ in range(4):
        stream.feed(events_with(b"a", form=form))
    monkeypatch.setattr(
        "router.protocols.event_stream.parse_object",
        lambda _: pytest.fail("it was parsed"),
    )

    sent = stream.feed(events_with(b"new", form=form))

    assert sent == events_with(b"new", form=form).replace(b'"m"', b'"route"')
    assert stream.output_events == 5


def test_a_form_that_deviated_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextEventForm, "texts", lambda form, data: [data[len(form.before) :]])

    with pytest.raises(AssertionError):
        compare(
            events_with(*[b"a"] * 9),
            [],
            keeps=None,
            skips=False,
        )


def assembled(*deltas: dict[str, object]) -> object:
    assembly = StreamAssembly()
    for delta in deltas:
        assembly.add(parse_chunk({"choices": [{"index": 0, "delta": delta}]}))
    return assembly.response(Served()).message.extra


@pytest.mark.req("B1", "C5")
def test_signed_thoughts_of_a_stream_go_back_with_the_message() -> None:
    first, second = (
        {
            "type": "thinking",
            "thinking": t,
            "signature": "s",
        }
        for t in "ab"
    )

    extra = assembled(
        {"thinking_blocks": [first]},
        {"content": "x"},
        {"thinking_blocks": [second]},
    )

    assert extra == {"thinking_blocks": [first, second]}


@pytest.mark.req("B1", "C5")
def test_the_pieces_of_a_detail_make_one_detail() -> None:
    def piece(**fields: object) -> dict[str, object]:
        return {
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "index": 0,
                    **fields,
                }
            ]
        }

    sealed = {
        "type": "reasoning.encrypted",
        "index": 1,
        "data": "…",
    }

    extra = assembled(
        piece(text="First ", signature=None),
        piece(text="this."),
        piece(text="", signature="s"),
        {"reasoning_details": [sealed]},
    )

    whole = {
        "type": "reasoning.text",
        "index": 0,
        "text": "First this.",
        "signature": "s",
    }
    assert extra == {"reasoning_details": [whole, sealed]}
