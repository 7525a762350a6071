"""Only `model` changes; all else stays byte for byte."""

import gzip
import itertools
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from evals.runner import chat_completions
from harness.frame.errors import InputError
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestPatch, Target
from harness.routing.table import Arm
from router.frame.asgi import BodyTooLarge
from router.frame.body import read_request
from router.frame.json_spans import (
    MAX_DEPTH,
    JsonSpan,
    element_spans,
    member_spans,
    parse_finite_object,
    parse_object,
)
from router.protocols.chat.dialect import CHAT
from router.protocols.endpoints import DIALECTS
from router.request import upstream_call
from router.request.request_state import Attempt, RoutedRequest
from router.server.request_body import BodyCut, CodingUnknown, decode_body
from router.snapshot.compiler import compile_snapshot
from tests.support.router.live_router import snapshot

PLAIN = Target("p", "the/model-1")
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
names = st.text().filter(lambda name: name not in {"model", "stream", "stream_options"})
spaces = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, str]:
    """A body and the same with another model: any spacing, order and escapes."""
    members = draw(st.dictionaries(names, values, max_size=6))
    texts = [
        (
            json.dumps(name, ensure_ascii=draw(st.booleans())),
            json.dumps(
                value,
                indent=draw(st.sampled_from([None, 1])),
                ensure_ascii=draw(st.booleans()),
            ),
        )
        for name, value in members.items()
    ]
    raw = draw(st.sampled_from(["1.0", "1e5", "12345678901234567890123", '"\\ud800"', '"\\/"']))
    texts.append(('"x_raw_"', raw))
    place = draw(st.integers(0, len(texts)))
    texts.insert(place, ("MODEL", ""))
    pad = draw(spaces)

    def text(model: str) -> str:
        parts = [
            f'{pad}"model"{pad}:{pad}{model}{pad}'
            if name == "MODEL"
            else f"{pad}{name}:{value}"
            for name, value in texts
        ]
        return f"{pad}{{{','.join(parts)}}}{pad}"

    return text('"support"'), text(json.dumps(PLAIN.model))


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.req("A2")
@given(
    bodies().filter(lambda pair: encodable(pair[0])),
    st.sampled_from(Endpoint),
)
def test_everything_but_model_survives_byte_for_byte(
    pair: tuple[str, str], endpoint: Endpoint
) -> None:
    before, after = pair

    request = read_request(before.encode(), endpoint)
    assert DIALECTS[endpoint].patched(request, PLAIN) == after.encode()


def read_by_json(body: bytes) -> dict[str, object] | None:
    """Reads the body by the standard library; None for a text that the router must refuse."""
    outermost: list[tuple[str, object]] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        outermost[:] = pairs
        return dict(pairs)

    try:
        found = json.loads(body.decode(), object_pairs_hook=note, parse_constant=int)
    except (ValueError, RecursionError):
        return None
    is_usable = isinstance(found, dict) and len(found) == len(outermost)
    return found if is_usable else None


def read(body: bytes) -> dict[str, object] | None:
    """Reads the body as the router does, and checks that each place holds its value."""
    try:
        parsed = parse_object(body)
    except InputError:
        return None
    place = parsed.text_place("model")  # before the other places are known
    assert place == parsed.values.get("model")
    found = {name: span.value for name, span in parsed.values.items()}
    assert found == parsed.found
    assert parsed.text[parsed.close] == "}"
    for span in parsed.values.values():
        check_places(parsed.text, span)
    return found


def check_places(text: str, span: JsonSpan) -> None:
    assert json.loads(text[span.start : span.end]) == span.value
    inner: list[JsonSpan] = []
    if isinstance(span.value, dict):
        try:
            spans, close = member_spans(text, span.start, span.value)
        except InputError:  # a name that occurs twice has no one place
            return
        assert close == span.end - 1
        inner = [*spans.values()]
        assert {name: of_name.value for name, of_name in spans.items()} == span.value
    elif isinstance(span.value, list):
        inner = element_spans(text, span.start, span.value)
        assert [of_item.value for of_item in inner] == span.value
    for each in inner:
        check_places(text, each)


@given(
    st.text(alphabet='{}[]",:\\u065 amodel1.e\n', max_size=60)
    | st.text(max_size=20)
    | st.text(alphabet='{}[]",:\\ud8fctrelsNa1.-e+ ', max_size=40).map('{{"a":{}}}'.format)
)
def test_the_router_reads_what_the_standard_library_reads(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")

    assert read(body) == read_by_json(body)


@given(bodies().filter(lambda pair: encodable(pair[0])))
def test_each_place_in_a_body_holds_its_value(pair: tuple[str, str]) -> None:
    for text in pair:
        found = read(text.encode())

        assert found is not None
        assert found == read_by_json(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        r'{"mod\u0065l":"a","x":{"model":"b"}}',
        r'{"mod\u0065l":"a","x":"say \"model"}',
        r'{"MODEL":"a","model":"b"}',
        r'{"x":[{"model":"b"}],"model":"a"}',
        r'{"say \"model":"b","model":"a"}',
        r'{"x":"\\\"model\":\"b\"","model" : "a\"b"}',
        r'{"model":"a","x":{"y":1,"y":2}}',
        r'{"model":"a","x":"\ud800"}',
        r'{"x":{"model":"b","model":"c"},"model":"a"}',
        r'{"model":["a"]}',
        r'{"model":"\u00e9 \u0041"}',
    ],
)
def test_a_name_that_is_hidden_or_repeated_further_in_is_not_mistaken(text: str) -> None:
    found = read(text.encode())

    assert found is not None
    assert found == read_by_json(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a" 1}',
        '{"a":}',
        '{"a":1,}',
        "{a:1}",
        '{"a":1}x',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1,"a":2}',
        '{"a":"\\ud800","a":2}',
        '{"a":01}',
        '{"a":"\n"}',
        "{1:2}",
    ],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_object(text.encode())


def without_infinities(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: without_infinities(item)
            for name, item in value.items()
            if not (isinstance(item, float) and not math.isfinite(item))
        }
    if isinstance(value, list):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
    )
)
def test_a_tolerant_reading_loses_only_nan_and_infinities(value: dict[str, object]) -> None:
    parsed = parse_finite_object(json.dumps(value).encode())

    assert parsed.found == without_infinities(value)


@given(
    before=st.dictionaries(st.sampled_from(("a", 'x"model', "\\", "é")), values, max_size=2),
    after=st.dictionaries(st.sampled_from(("b", '"model"', "c\n")), values, max_size=2),
    model=st.text(min_size=1),
    separators=st.sampled_from(((", ", ": "), (",", ":"))),
    long=st.sampled_from(("{" * 5000, "é" * 5000)),
)
def test_a_large_body_keeps_every_byte_but_those_of_its_model(
    before: dict[str, object],
    after: dict[str, object],
    model: str,
    separators: tuple[str, str],
    long: str,
) -> None:
    is_ascii = long.isascii()
    members = {
        **before,
        "v": "model",
        "model": model,
        **after,
        "long": long,
    }
    try:
        body = json.dumps(members, separators=separators, ensure_ascii=is_ascii).encode()
    except UnicodeEncodeError:
        return
    parsed = parse_object(body)

    written = parsed.with_text("model", '"m"')

    if written is not None:
        wanted = json.dumps(
            {**members, "model": "m"},
            separators=separators,
            ensure_ascii=is_ascii,
        )
        assert written == wanted.encode()


@given(
    brackets=st.lists(st.sampled_from(("[]", "{}")), min_size=MAX_DEPTH - 3, max_size=130),
    wide=st.sampled_from((0, 100, 50_000)),
    long=st.sampled_from((0, 100_000)),
)
def test_depth_is_counted_exactly_in_a_body_that_is_parsed(
    brackets: list[str],
    wide: int,
    long: int,
) -> None:
    inner = json.dumps(["[" * long, *range(wide)])
    for pair in brackets:
        inner = f"[{inner}]" if pair == "[]" else f'{{"a":{inner}}}'
    body = f'{{"model":"m","x":{inner}}}'.encode()
    depth = len(brackets) + 2

    if depth > MAX_DEPTH:
        with pytest.raises(InputError, match="deeper"):
            parse_object(body)
    else:
        assert parse_object(body).get("model") == "m"


def test_an_object_of_100_000_names_is_refused() -> None:
    names = ",".join(f'"{n:x}":1' for n in range(100_000))

    with pytest.raises(InputError, match="more than 1000 names"):
        read_request(f'{{"model":"m",{names}}}'.encode(), Endpoint.CHAT)


def test_a_nesting_of_100_000_is_refused_and_not_a_crash() -> None:
    with pytest.raises(InputError):
        read_request(b'{"model":"m","x":' + b"[" * 100_000, Endpoint.CHAT)


@pytest.mark.parametrize("body", [b'{"model":1}', b'{"model":""}', b'{"stream":true}'])
def test_a_request_must_name_its_model(body: bytes) -> None:
    with pytest.raises(InputError, match="model"):
        read_request(body, Endpoint.CHAT)


def sent(body: Mapping[str, object], target: Target) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        CHAT.patched(read_request(json.dumps(body).encode(), Endpoint.CHAT), target)
    )
    return found


def test_parameters_are_defaults_and_the_patch_is_not() -> None:
    patch = RequestPatch(
        parameters={
            "top_p": 0.5,
            "seed": 1,
            "model": "never",
            "messages": [],
        },
        response_format={"type": "json_object"},
    )
    target = Target("p", "m", {"temperature": 0, "max_tokens": 5}, patch)

    found = sent(
        {
            "model": "r",
            "messages": [1],
            "temperature": 1.5,
            "top_p": 0.9,
            "response_format": 1,
        },
        target,
    )

    assert found == {
        "model": "m",
        "messages": [1],
        "temperature": 1.5,
        "max_tokens": 5,
        "top_p": 0.5,
        "seed": 1,
        "response_format": {"type": "json_object"},
    }


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], [{"role": "system", "content": 'Be\n"brief".'}]),
        ([USER], [{"role": "system", "content": 'Be\n"brief".'}, USER]),
        (
            [{"content": "Sé amable\ud800", "role": "system"}, USER],
            [
                {
                    "content": 'Sé amable\ud800\n\nBe\n"brief".',
                    "role": "system",
                },
                USER,
            ],
        ),
        (
            [
                USER,
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "a"}],
                },
            ],
            [
                USER,
                {
                    "role": "developer",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "text", "text": 'Be\n"brief".'},
                    ],
                },
            ],
        ),
        (
            [{"role": "system", "content": ""}],
            [{"role": "system", "content": '\n\nBe\n"brief".'}],
        ),
        (
            [{"role": "system", "content": None}],
            [{"role": "system", "content": 'Be\n"brief".'}],
        ),
    ],
)
@pytest.mark.req("A8")
def test_the_addendum_ends_the_system_message(
    messages: list[object], expected: list[object]
) -> None:
    target = Target("p", "m", request_patch=RequestPatch(prompt_addendum='Be\n"brief".'))

    assert sent({"model": "r", "messages": messages}, target)["messages"] == expected


parameters = st.dictionaries(st.text(max_size=5) | st.sampled_from(["seed", "stop"]), values)
formats = st.none() | st.just({"type": "json_object"})
patches = st.builds(RequestPatch, parameters, st.text(max_size=9), formats)
messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        st.text(),
    )
)


@pytest.mark.req("A8")
@given(
    st.builds(Target, st.just("p"), st.just("m"), parameters, patches),
    messages,
)
def test_what_was_measured_is_what_serves(target: Target, said: list[dict[str, str]]) -> None:
    measured = chat_completions.request_body(target, said, {})

    assert sent({"model": "r", "messages": said}, target) == measured


# What a text may hold that looks like the member `model`, and is another's, or text itself.
lookalikes = st.recursive(
    st.sampled_from(
        [
            "m",
            "model",
            '"model":"m"',
            '\\"model":"m"',
            '{"model":"m"}',
            "\\",
            "m\\",
            '"',
            "é/",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["model", "a", 'x"model":"m']), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(
    before=st.dictionaries(st.sampled_from(["a", 'b"', "c\\"]), lookalikes, max_size=2),
    after=st.dictionaries(st.sampled_from(["d", 'e"', "f\\"]), lookalikes, max_size=2),
    model=st.sampled_from(["m", '"', "\\", 'm"', 'm\\"', 'm","x":"y', "é/", "\\\\"]),
    compact=st.booleans(),
    ascii_only=st.booleans(),
)
def test_the_quick_way_finds_no_other_model_than_the_walk(
    before: dict[str, object],
    after: dict[str, object],
    model: str,
    *,
    compact: bool,
    ascii_only: bool,
) -> None:
    colon = ":" if compact else ": "
    text = json.dumps(
        {
            **before,
            "model": model,
            **after,
        },
        separators=(",", colon),
        ensure_ascii=ascii_only,
    )

    quick = parse_object(text.encode()).with_text("model", '"new"')

    place = parse_object(text.encode()).values["model"]
    assert quick in {
        None,
        f'{text[: place.start]}"new"{text[place.end :]}'.encode(),
    }


MORE = (
    "",
    ',"stream":true',
    ',"stream":true,"stream_options":null',
    ',"stream":true,"stream_options":{"include_usage":false}',
    ',"max_tokens":5',
    ',"max_completion_tokens":5,"max_tokens":6',
    ',"seed":1,"top_k":null',
    ',"output_config":{"effort":"low"},"thinking":{"type":"disabled"}',
    ',"metadata":{"cache_control":{"type":"ephemeral"}}',
    ',"metadata":{"signature": ""}',
)


@pytest.mark.req("A2")
@pytest.mark.parametrize("kind", ["openai", "anthropic", "groq", "custom"])
def test_a_body_is_written_alike_in_a_short_way_and_by_patches(kind: str) -> None:
    made = snapshot("http://127.0.0.1:1/v1")
    providers = {name: replace(known, kind=kind) for name, known in made.providers.items()}
    route = compile_snapshot(replace(made, providers=providers)).routes["support"]
    upstream = route.upstreams[route.route.incumbent]
    for endpoint, more in itertools.product(route.plans, MORE):
        text = f'{{"model": "support","input":"Hi","messages":[]{more}}}'
        read = read_request(text.encode(), endpoint)
        plan = route.plans[endpoint][Arm.INCUMBENT]
        job = RoutedRequest(
            read,
            route,
            Arm.INCUMBENT,
            plan,
            begun=0.0,
            deadline=1.0,
        )
        attempt = Attempt(
            upstream,
            1,
            None,
            until=1.0,
            number=1,
            endpoint=endpoint,
        )

        sent = upstream_call._build_request(job, attempt).body

        assert sent == upstream_call._write_body(job, upstream)


LIMIT = 100_000


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def in_two_frames(code: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: code(body[:3]) + code(body[3:])


zstd = zstandard.ZstdCompressor(write_content_size=False).compress
CODERS = [
    ("gzip", gzip.compress),
    ("gzip", in_two_frames(gzip.compress)),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("zstd", in_two_frames(zstd)),
    ("br", brotli.compress),
]


@given(
    body=st.binary(max_size=2_000),
    codings=st.lists(st.sampled_from(CODERS), max_size=3),
)
def test_what_any_codings_made_of_a_body_is_undone(
    body: bytes, codings: list[tuple[str, Callable[[bytes], bytes]]]
) -> None:
    coded = body
    for _, code in codings:
        coded = code(coded)

    assert decode_body(coded, [name for name, _ in codings], LIMIT) == body


@pytest.mark.parametrize(("name", "code"), CODERS)
def test_a_body_that_grows_over_the_limit_is_refused(
    name: str, code: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(BodyTooLarge):
        decode_body(code(bytes(50_000_000)), [name], LIMIT)


@pytest.mark.parametrize(("name", "code"), CODERS)
def test_a_cut_body_is_named(name: str, code: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BodyCut, match=name):
        decode_body(code(b"hello, " * 100)[:-2], [name], LIMIT)


@pytest.mark.parametrize("name", ["br", "gzip", "deflate", "zstd", "compress", "utf-8"])
def test_a_body_that_is_not_in_its_coding_is_refused(name: str) -> None:
    with pytest.raises(CodingUnknown, match=name):
        decode_body(b'{"model": "r"}', [name], LIMIT)
