"""A conversation's digest has one value for ever: routers of all versions of Python agree."""

import pytest

from router.request.client_directives import opening_digest


@pytest.mark.req("F3")
def test_an_opening_has_the_same_digest_in_every_process_and_version() -> None:
    parts = [
        {"type": "text", "text": "Wo ist mein Paket \u2013 \ud800?", "n": [1, 1.5, None, True]}
    ]
    assert opening_digest([("system", "Be kind."), ("user", parts)]) == (
        "4563e2bb6473bbda68553f829c912746"
    )


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
    assert opening_digest([("user", content)]) != opening_digest([("user", other)])
