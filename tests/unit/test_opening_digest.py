"""A conversation's digest has one value for ever, however long its opening is."""

import json
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.request.client_directives import LONG_CHARS, opening_digest, opening_json

ascii_texts = st.text(alphabet=st.characters(max_codepoint=127))
texts = ascii_texts | st.text(st.characters(exclude_categories=()))  # lone surrogates as well
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
openings = st.lists(
    st.tuples(st.sampled_from(("system", "developer", "user")), texts | values), max_size=4
)


def plain_digest(opening: list[object]) -> str:
    return blake2b(json.dumps(opening).encode(), digest_size=16).hexdigest()


@given(openings)
def test_an_opening_is_written_as_python_writes_json(opening: list[object]) -> None:
    assert opening_json(opening) == json.dumps(opening).encode()


@pytest.mark.req("F3")
@given(openings)
def test_a_long_opening_has_the_digest_of_its_json_each_time(opening: list[object]) -> None:
    digests = {opening_digest(opening, chars) for chars in (0, LONG_CHARS, LONG_CHARS)}

    assert digests == {plain_digest(opening)}


@pytest.mark.parametrize(
    ("content", "other"),
    [
        ([1], [True]),
        ([1], [1.0]),
        ([{"a": "b"}], [[["a", "b"]]]),
        ([], {}),
        ("", None),
        (["ab"], ["a", "b"]),
    ],
)
def test_openings_that_python_could_take_for_one_have_digests_of_their_own(
    content: object, other: object
) -> None:
    for given_content in (content, other):
        opening: list[object] = [("user", given_content)]
        assert opening_digest(opening, LONG_CHARS) == plain_digest(opening)
