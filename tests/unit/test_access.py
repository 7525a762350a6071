"""Keys are stored as hashes, and read from a bearer header alone."""

import pytest

from harness.api.frame.access import read_bearer
from harness.domain.operations.access import key_hash
from tests.support.control.control_plane import SECRET


def test_a_key_is_stored_as_its_hmac_of_sha_256() -> None:
    # RFC 4231, test case 1.
    assert key_hash("Hi There", b"\x0b" * 20) == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )


def test_a_text_that_is_no_unicode_is_hashed_all_the_same() -> None:
    assert len(key_hash("sg-mgmt-\udce9", SECRET)) == 64


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer k", "k"),
        ("bearer  k ", "k"),
        ("Basic k", ""),
        ("k", ""),
        ("Bearer", ""),
        ("", ""),
    ],
)
def test_a_key_is_read_from_a_bearer_header_alone(header: str, token: str) -> None:
    assert read_bearer(header) == token
