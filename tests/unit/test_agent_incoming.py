"""What a client may send to a session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.agents.incoming_message import parse_content, parse_incoming
from harness.domain.errors import InputError

pytestmark = pytest.mark.req("E2")

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def image(**fields: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": PIXEL, **fields}}


def test_a_text_and_parts_of_text_and_images_are_taken_as_they_are() -> None:
    parts = [{"type": "text", "text": "What is it?"}, image(detail="low")]

    assert parse_incoming("user", "hello").content == "hello"
    assert list(parse_incoming("user", parts).content) == parts
    assert parse_incoming("tool", "", "c1").response_to == "c1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        (None, "neither a text nor a list"),
        ({"type": "text", "text": "x"}, "neither a text nor a list"),
        ([], "1 to 256 parts, not 0"),
        ([{"type": "text", "text": "x"}] * 257, "1 to 256 parts, not 257"),
        (["x"], r"content\[0\]: a part is an object"),
        ([{"type": "file", "file": {}}], r"content\[0\]: a part is an object with the type"),
        ([{"type": "text", "text": ""}], r"content\[0\].text: a text is needed"),
        ([{"type": "text", "text": "x", "cache_control": {}}], "has no field 'cache_control'"),
        ([{"type": "image_url", "image_url": PIXEL}], "an object is needed"),
        ([image(url="file:///etc/passwd")], r"content\[0\].image_url.url"),
        ([image(url="data:text/html;base64,PGI+")], r"content\[0\].image_url.url"),
        ([image(url="data:image/svg+xml;base64,PGI+")], r"content\[0\].image_url.url"),
        ([image(url="https://[")], r"content\[0\].image_url.url"),
        ([image(url="https:///path")], r"content\[0\].image_url.url"),
        ([image(detail="ultra")], "it is one of auto, low, high"),
        ([image(size=3)], "there is no field 'size'"),
    ],
)
def test_content_of_another_form_is_refused_by_its_place(content: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_content(content)


@pytest.mark.parametrize(
    ("role", "content", "call", "words"),
    [
        ("user", "x", "c1", "only a message of the role tool"),
        ("tool", "x", "", "names the call it answers"),
        ("tool", [image()], "c1", "the result of a tool is a text"),
    ],
)
def test_a_result_names_its_call_and_is_a_text(
    role: str, content: object, call: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        parse_incoming(role, content, call)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "image_url", "url", "detail"])
            | st.text(max_size=5),
            inner | st.sampled_from(["text", "image_url", PIXEL]),
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_content_is_taken_or_refused_as_input(content: object) -> None:
    try:
        parsed = parse_content(content)
    except InputError:
        return
    assert parse_content(parsed) == parsed
